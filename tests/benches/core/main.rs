//! Figures of `pulse-core` on a server: `cargo xtask bench core [--quick]`. Against a server that runs already, and only
//! the scenarios with this in their names: `PULSE_BENCH_URL=redis://… cargo bench -p tests --bench core -- appends`.
//!
//! Each scenario is one function in the module that carries its subject; it measures ours and its yardstick in turn,
//! round by round, and returns lines of the table.

#[path = "../harness/mod.rs"]
mod harness;

mod appends;
mod commits;
mod idle;
mod latency;

use std::process::ExitCode;

use harness::{Bench, Options, Server, Table, Yardsticks};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run() -> Result<(), String> {
    let options = Options::read("core")?;
    let server = Server::new(options.address()?);
    let bench = Bench { yardsticks: Yardsticks::new(&server), server, options };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (version, rounds) = (bench.server.version(), bench.options.rounds);
    eprintln!("measuring on {version}, {rounds} rounds of each figure");

    let mut table = Table::default();
    macro_rules! scenarios {
        ($($name:literal => $scenario:path),+ $(,)?) => {
            $(if bench.options.wants($name) {
                table.extend($scenario(&bench).await);
                bench.server.flush();
            })+
        };
    }
    scenarios! {
        "commits" => commits::single_puts,
        "batched-commits" => commits::batched_puts,
        "latency" => latency::sequential_commits,
        "appends" => appends::single_appends,
        "batched-appends" => appends::batched_appends,
        "idle" => idle::idle_client,
        "crowd" => idle::thousand_feeds_and_readers,
    }

    println!("\n{table}");
    println!("{cores} cores, {} {}, {version}", std::env::consts::OS, std::env::consts::ARCH);
    println!("yardsticks: {}", bench.yardsticks.summary());
    Ok(())
}
