//! Figures of `pulse-rmap`.

mod content;
mod join;
pub(crate) mod memory;
mod reads;
mod replication;
mod writes;

use crate::harness::{Bench, Table, scenarios};

/// The size of map that goals are stated for, and those that show how figures grow.
const SIZES: [usize; 3] = [10_000, 100_000, 1_000_000];
const STATED: usize = 100_000;

pub(crate) async fn run(bench: &Bench, table: &mut Table) {
    scenarios! {
        bench, table;
        "set" => writes::sequential_sets,
        "sets" => writes::many_sets,
        "batches" => writes::batches,
        "replication" => replication::write_until_readable_elsewhere,
        "convergence" => replication::eight_replicas,
        "reads" => reads::gets,
        "snapshot" => reads::snapshots,
        "join" => join::joins,
        "memory" => memory::replicas,
    }
}
