//! Some of the seeds, and whether the simulation is worth its name.

use simulation::{Sabotage, first_failure, run};

#[test]
fn every_promise_is_kept_in_some_of_the_runs() {
    // `cargo xtask simulate` does many more.
    if let Some(failed) = first_failure(0..150, 2, None) {
        failed.log.iter().for_each(|line| println!("{line}"));
        panic!("{failed}");
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in 0..20 {
        let (first, second) = (run(seed, None), run(seed, None));
        let logs =
            |ran: Result<simulation::Ran, Box<simulation::Failed>>| ran.map_or_else(|failed| failed.log, |ran| ran.log);
        let (first, second) = (logs(first), logs(second));
        for (line, (one, other)) in first.iter().zip(&second).enumerate() {
            assert_eq!(one, other, "line {line} of seed {seed}");
        }
        assert_eq!(first.len(), second.len());
    }
}

#[test]
fn broken_promises_are_noticed() {
    for sabotage in Sabotage::ALL {
        let failed = first_failure(0..1_000, 2, Some(sabotage));
        let failed = failed.unwrap_or_else(|| panic!("nobody noticed that {sabotage} are sabotaged"));
        println!("{sabotage}: {failed}");
    }
}
