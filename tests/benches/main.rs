//! Figures on a server: `cargo xtask bench core|rmap|streaming|pool|faults [--quick]`. Against a server that runs already,
//! and only the scenarios with this in their names:
//! `PULSE_BENCH_URL=redis://… cargo bench -p tests --features standalone -- core appends`.
//!
//! Each scenario is one function in the module that carries its subject; it measures ours and its yardstick in turn,
//! round by round, and returns lines of the table. Those of `faults` start servers of their own.

mod core;
mod faults;
mod harness;
mod pool;
mod rmap;
mod streaming;

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
    let options = Options::read()?;
    let server = Server::new(options.address()?);
    let bench = Bench { yardsticks: Yardsticks::new(&server), server, options };
    if bench.options.subject == rmap::memory::ALONE {
        rmap::memory::alone(&bench).await;
        return Ok(());
    }
    if bench.options.subject == pool::memory::ALONE {
        pool::memory::alone(&bench).await;
        return Ok(());
    }
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (version, rounds) = (bench.server.version(), bench.options.rounds);
    eprintln!("measuring on {version}, {rounds} rounds of each figure");

    let mut table = Table::default();
    match bench.options.subject.as_str() {
        "core" => core::run(&bench, &mut table).await,
        "rmap" => rmap::run(&bench, &mut table).await,
        "streaming" => streaming::run(&bench, &mut table).await,
        "pool" => pool::run(&bench, &mut table).await,
        "faults" => faults::run(&bench, &mut table).await,
        unknown => return Err(format!("there are no figures of {unknown:?}: core, rmap, streaming, pool, faults")),
    }
    println!("\n{table}");
    println!("{cores} cores, {} {}, {version}", std::env::consts::OS, std::env::consts::ARCH);
    println!("yardsticks: {}", bench.yardsticks.summary());
    Ok(())
}
