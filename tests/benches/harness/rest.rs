//! What goes on while nobody asks for anything.

use std::time::{Duration, Instant};

use super::{Bench, CpuTime};

/// What went on while nothing was asked for.
pub(crate) struct Rest {
    /// Share of one core; `None` where the system does not tell.
    cpu: Option<f64>,
    /// Per second.
    commands: f64,
}

impl Rest {
    /// Watches for as long as the options say.
    pub(crate) async fn watch(bench: &Bench) -> Self {
        // What was begun settles first.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = bench.server.commands();
        let (start, used) = (Instant::now(), CpuTime::now());
        tokio::time::sleep(bench.options.idle).await;
        let (elapsed, used_then) = (start.elapsed(), CpuTime::now());
        // One of the commands is the question before.
        let commands = bench.server.commands().saturating_sub(before + 1);
        let cpu = used.zip(used_then).map(|(before, after)| after.share_since(before, elapsed));
        Self { cpu, commands: commands as f64 / elapsed.as_secs_f64() }
    }

    /// Per second.
    pub(crate) fn commands(&self) -> f64 {
        self.commands
    }

    /// In percent of one core; unknown counts as a goal that is missed.
    pub(crate) fn cpu(&self) -> f64 {
        self.cpu.map_or(f64::NAN, |share| share * 100.0)
    }

    pub(crate) fn cpu_shown(&self) -> String {
        self.cpu.map_or_else(|| "this system does not tell".into(), |share| format!("{:.2} % of a core", share * 100.0))
    }

    pub(crate) fn commands_shown(&self) -> String {
        format!("{:.1} per second", self.commands)
    }
}
