//! The project's own chores: tests on every backend, servers to work with by hand, CI, benchmarks, packages.
//!
//! `cargo xtask` prints what there is. Each chore has a module of its own; [`servers`] is what several of them stand
//! on. Nothing but the standard library is used, so that the first `cargo xtask` on a fresh machine is quick.

mod args;
mod bench;
mod by_hand;
mod ci;
mod examples;
mod fetch;
mod install;
mod libtest;
mod matrix;
mod package;
mod resp;
mod run;
mod servers;
mod simulate;
mod test;
mod tls;

use std::process::ExitCode;

use crate::args::Chore;

/// What a chore fails with: a text for the person at the terminal.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match args::parse(&arguments) {
        Ok(Chore::Help) => {
            println!("{}", args::HELP);
            Ok(())
        }
        Ok(Chore::Test(options)) => test::run(&options),
        Ok(Chore::Simulate(options)) => simulate::run(&options),
        Ok(Chore::Redis(action)) => by_hand::run(action),
        Ok(Chore::Fetch(server)) => fetch::run(server),
        Ok(Chore::Ci) => ci::run(),
        Ok(Chore::Package) => package::run(),
        Ok(Chore::Bench { name, quick }) => bench::run(&name, quick),
        Err(reason) => Err(format!("{reason}\n\n{}", args::HELP).into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
