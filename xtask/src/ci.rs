//! `cargo xtask ci`: everything that a change must pass, in the order in which failures are cheapest to find.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Failure,
    args::TestOptions,
    matrix, package, run,
    servers::{Server, program},
    simulate, test,
};

/// How long an example may run.
const EXAMPLE_TIME: Duration = Duration::from_secs(120);

type Step = (&'static str, fn() -> Result<(), Failure>);

const STEPS: [Step; 8] = [
    ("formatting", || run::succeed(run::cargo().args(["fmt", "--all", "--check"]))),
    ("clippy", clippy),
    ("documentation", documentation),
    ("features", matrix::run),
    ("packages", package::run),
    ("examples", examples),
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

/// Runs every example to its end, in memory and on a server.
fn examples() -> Result<(), Failure> {
    run::succeed(run::cargo().args(["build", "--package", "examples", "--bins", "--quiet"]))?;
    let server = Server::start(&program()?, &[])?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/src/bin");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        if let Some(name) = entry?.path().file_stem() {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort_unstable();
    for name in &names {
        for url in [None, Some(server.url())] {
            let place = if url.is_some() { "a server" } else { "memory" };
            let began = Instant::now();
            run_example(name, url).map_err(|failure| format!("example {name} on {place}: {failure}"))?;
            println!("{name} on {place}: {:.1} s", began.elapsed().as_secs_f64());
        }
    }
    Ok(())
}

fn run_example(name: &str, url: Option<String>) -> Result<(), Failure> {
    let mut command = run::cargo();
    command.args(["run", "--quiet", "--package", "examples", "--bin", name]).env_remove("PULSE_URL");
    if let Some(url) = url {
        command.env("PULSE_URL", url);
    }
    wait_for(&mut command)
}

fn wait_for(command: &mut Command) -> Result<(), Failure> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let deadline = Instant::now() + EXAMPLE_TIME;
    loop {
        if let Some(status) = child.try_wait()? {
            return if status.success() { Ok(()) } else { Err(format!("ended with {status}").into()) };
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(format!("still runs after {} s", EXAMPLE_TIME.as_secs()).into());
        }
        thread::sleep(Duration::from_millis(50));
    }
}
