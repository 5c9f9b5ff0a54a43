//! What the caller asked for.

use std::time::Duration;

/// From the command line and the environment.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// What is measured.
    pub(crate) subject: String,
    /// The server, as a URL.
    pub(crate) url: String,
    /// How often each figure is measured.
    pub(crate) rounds: usize,
    /// How long each measurement of a rate takes.
    pub(crate) window: Duration,
    /// How many calls each measurement of a latency makes.
    pub(crate) samples: usize,
    /// How long is watched that nothing happens.
    pub(crate) idle: Duration,
    /// Only scenarios whose names contain one of these; all if empty.
    pub(crate) only: Vec<String>,
}

impl Options {
    /// Reads them, or says how to start the program.
    pub(crate) fn read() -> Result<Self, String> {
        let usage = "run `cargo xtask bench core|rmap|streaming|pool|faults [--quick]`, which starts a server for it";
        let url = std::env::var("PULSE_BENCH_URL").map_err(|_| format!("PULSE_BENCH_URL is not set: {usage}"))?;
        let mut quick = false;
        let mut only = Vec::new();
        for argument in std::env::args().skip(1) {
            match argument.as_str() {
                "--quick" => quick = true,
                // Cargo says so to every bench program.
                "--bench" => {}
                unknown if unknown.starts_with('-') => return Err(format!("unknown option {unknown}: {usage}")),
                _ => only.push(argument),
            }
        }
        if only.is_empty() {
            return Err(format!("say what to measure: {usage}"));
        }
        let subject = only.remove(0);
        let (rounds, window, samples, idle) = if quick { (3, 500, 2_000, 3) } else { (9, 1_000, 5_000, 10) };
        let (window, idle) = (Duration::from_millis(window), Duration::from_secs(idle));
        Ok(Self { subject, url, rounds, window, samples, idle, only })
    }

    /// How many requests a load generator of about that rate makes in the time of a measurement.
    pub(crate) fn requests(&self, per_second: f64) -> usize {
        (per_second * self.window.as_secs_f64()) as usize
    }

    /// Whether a scenario is to run.
    pub(crate) fn wants(&self, scenario: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| scenario.contains(part.as_str()))
    }

    /// The `HOST:PORT` of the server.
    pub(crate) fn address(&self) -> Result<&str, String> {
        let address = self.url.strip_prefix("redis://").map(|rest| rest.trim_end_matches('/'));
        match address.filter(|address| !address.contains(['@', '/'])) {
            Some(address) => Ok(address),
            None => Err(format!("PULSE_BENCH_URL is {:?}: give redis://HOST:PORT, without password or path", self.url)),
        }
    }
}
