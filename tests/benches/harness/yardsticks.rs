//! What is measured against: the server alone, driven by its own load generator.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    process::Command,
    sync::{Mutex, PoisonError},
};

use super::{PAYLOAD, Server, median, micros, thousands};

/// A figure that others are multiples of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Yardstick {
    /// Events per second of `redis-benchmark -c 64 -P 1` with `XADD`.
    X1,
    /// The same with `-P 32`.
    X32,
    /// Writes per second of `redis-benchmark -c 64 -P 1` with `HSET` over 1,000 fields.
    H1,
    /// Median latency in seconds of `redis-benchmark -c 1 PING`.
    P,
    /// Median latency in seconds of sequential `PING`s through fred in this process.
    F,
}

/// Measures the yardsticks and remembers what came out.
#[derive(Debug)]
pub(crate) struct Yardsticks {
    server: Server,
    seen: Mutex<BTreeMap<Yardstick, Vec<f64>>>,
}

impl Yardsticks {
    pub(crate) fn new(server: &Server) -> Self {
        Self { server: server.clone(), seen: Mutex::default() }
    }

    /// Measures one of those that `redis-benchmark` makes, with that many requests, on an empty server.
    pub(crate) async fn measure(&self, yardstick: Yardstick, requests: usize) -> f64 {
        let server = self.server.clone();
        let measured = tokio::task::spawn_blocking(move || {
            server.flush();
            let measured = drive(&server, yardstick, requests);
            server.flush();
            measured
        });
        let value = measured.await.expect("redis-benchmark could not be run");
        self.record(yardstick, value)
    }

    /// Remembers one that was measured elsewhere.
    pub(crate) fn record(&self, yardstick: Yardstick, value: f64) -> f64 {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).entry(yardstick).or_default().push(value);
        value
    }

    /// All that were measured, each as the median of its rounds.
    pub(crate) fn summary(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let show = |(yardstick, values): (&Yardstick, &Vec<f64>)| {
            let value = median(values.clone());
            match yardstick {
                Yardstick::P | Yardstick::F => format!("{yardstick:?} {}", micros(value)),
                _ => format!("{yardstick:?} {}", thousands(value)),
            }
        };
        seen.iter().map(show).collect::<Vec<_>>().join(", ")
    }
}

fn drive(server: &Server, yardstick: Yardstick, requests: usize) -> f64 {
    let payload = String::from_utf8_lossy(PAYLOAD).into_owned();
    let (options, command) = match yardstick {
        Yardstick::X1 => ("-c 64 -P 1", "XADD s MAXLEN ~ 1000000 * n e p"),
        Yardstick::X32 => ("-c 64 -P 32", "XADD s MAXLEN ~ 1000000 * n e p"),
        Yardstick::H1 => ("-c 64 -P 1 -r 1000", "HSET h k__rand_int__"),
        Yardstick::P => ("-c 1", "PING"),
        Yardstick::F => unreachable!("F is measured in the process, through fred"),
    };
    let mut arguments: Vec<&str> = vec!["-h", server.host(), "-p", server.port(), "--csv"];
    let requests = requests.to_string();
    arguments.extend(["-n", &requests]);
    arguments.extend(options.split(' '));
    arguments.extend(command.split(' '));
    if yardstick != Yardstick::P {
        arguments.push(&payload);
    }
    let text = run(&arguments);
    let column = if yardstick == Yardstick::P { "p50_latency_ms" } else { "rps" };
    let value = column_of(&text, column).unwrap_or_else(|| panic!("redis-benchmark printed no {column}:\n{text}"));
    if yardstick == Yardstick::P { value / 1000.0 } else { value }
}

/// Runs whichever load generator is installed and returns what it printed.
fn run(arguments: &[&str]) -> String {
    for program in ["redis-benchmark", "valkey-benchmark"] {
        match Command::new(program).args(arguments).output() {
            Ok(output) if output.status.success() => return String::from_utf8_lossy(&output.stdout).into_owned(),
            Ok(output) => panic!("{program} {arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => panic!("cannot run {program}: {error}"),
        }
    }
    panic!("neither redis-benchmark nor valkey-benchmark is installed: they come with the server's package")
}

/// A column of the table with one line that the load generator prints. The line's first cell is the command, in
/// quotes and without commas.
fn column_of(csv: &str, name: &str) -> Option<f64> {
    let mut lines = csv.lines().skip_while(|line| !line.contains(name));
    let at = lines.next()?.split(',').position(|cell| cell.trim_matches('"') == name)?;
    lines.next()?.split(',').nth(at)?.trim_matches('"').parse().ok()
}
