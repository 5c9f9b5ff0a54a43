//! Runs seeds: `cargo xtask simulate`.

use std::{process::ExitCode, time::Instant};

use simulation::{Sabotage, first_failure, run};

const USAGE: &str = "usage: simulation [--seeds N] [--from N] [--seed N] [--sabotage NAME]";

struct Options {
    from: u64,
    seeds: u64,
    /// One alone, with all that happens in it.
    seed: Option<u64>,
    sabotage: Option<Sabotage>,
}

fn options() -> Result<Options, String> {
    let mut options = Options { from: 0, seeds: 10_000, seed: None, sabotage: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or(USAGE)?;
        let number = || value.parse().map_err(|_| format!("{word} takes a number: {USAGE}"));
        match word.as_str() {
            "--seeds" => options.seeds = number()?,
            "--from" => options.from = number()?,
            "--seed" => options.seed = Some(number()?),
            "--sabotage" => options.sabotage = Some(value.parse()?),
            _ => return Err(USAGE.into()),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::FAILURE;
        }
    };
    let began = Instant::now();
    let failure = match options.seed {
        Some(seed) => {
            let ran = run(seed, options.sabotage);
            let (log, failure) = match ran {
                Ok(ran) => (ran.log, None),
                Err(failed) => (failed.log.clone(), Some(failed)),
            };
            log.iter().for_each(|line| println!("{line}"));
            failure
        }
        None => {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            first_failure(options.from..options.from.saturating_add(options.seeds), threads, options.sabotage)
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    match failure {
        Some(failed) => {
            println!("{failed}\nsee what happened: cargo xtask simulate --seed {}", failed.seed);
            println!("0 passed, 1 failed");
            ExitCode::FAILURE
        }
        None => {
            let passed = if options.seed.is_some() { 1 } else { options.seeds };
            println!("{passed} runs in {seconds:.1} s\n{passed} passed, 0 failed");
            ExitCode::SUCCESS
        }
    }
}
