//! Figures of `pulse-pool`.

mod content;
mod dispatch;
mod idle;
pub(crate) mod memory;
mod moves;

use crate::harness::{Bench, Table, scenarios};

pub(crate) async fn run(bench: &Bench, table: &mut Table) {
    scenarios! {
        bench, table;
        "sequential" => dispatch::one_after_the_other,
        "callers" => dispatch::many_callers,
        "batches" => dispatch::batches,
        "tasks" => dispatch::tasks,
        "join" => moves::a_fifth_worker_joins,
        "leave" => moves::a_worker_leaves,
        "crash" => moves::a_node_dies,
        "idle" => idle::idle_node,
        "memory" => memory::of_jobs_elsewhere,
    }
}
