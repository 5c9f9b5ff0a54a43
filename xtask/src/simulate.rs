//! `cargo xtask simulate`: the simulation of pools, built for speed.

use crate::{Failure, run};

/// The options are those of the program.
pub(crate) fn run(options: &[String]) -> Result<(), Failure> {
    let mut simulation = run::cargo();
    simulation.args(["run", "--release", "--quiet", "--package", "simulation", "--"]).args(options);
    run::succeed(&mut simulation)
}
