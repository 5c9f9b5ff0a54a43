//! `cargo xtask ci`: everything that a change must pass, in the order in which failures are cheapest to find.

use std::time::Instant;

use crate::{Failure, args::TestOptions, examples, matrix, package, run, simulate, test};

type Step = (&'static str, fn() -> Result<(), Failure>);

const STEPS: [Step; 8] = [
    ("formatting", || run::succeed(run::cargo().args(["fmt", "--all", "--check"]))),
    ("clippy", clippy),
    ("documentation", documentation),
    ("features", matrix::run),
    ("packages", package::run),
    ("examples", examples::run),
    ("simulation", || simulate::run(&[])),
    ("tests", || test::run(&TestOptions::default())),
];

pub(crate) fn run() -> Result<(), Failure> {
    let mut times = Vec::new();
    for (name, step) in STEPS {
        println!("\n=== {name}");
        let began = Instant::now();
        let done = step();
        times.push(format!("{name} {} s", began.elapsed().as_secs()));
        if let Err(failure) = done {
            return Err(format!("{name}: {failure}\n(took: {})", times.join(", ")).into());
        }
    }
    eprintln!("xtask: all passed; took: {}", times.join(", "));
    Ok(())
}

fn clippy() -> Result<(), Failure> {
    let mut clippy = run::cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--all-features", "--quiet", "--", "-D", "warnings"]);
    run::succeed(&mut clippy)
}

fn documentation() -> Result<(), Failure> {
    let mut doc = run::cargo();
    doc.args(["doc", "--workspace", "--no-deps", "--all-features", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings");
    run::succeed(&mut doc)
}
