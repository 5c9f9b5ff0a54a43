//! Figures of `pulse-core`.

mod appends;
mod commits;
mod idle;
mod latency;

use crate::harness::{Bench, Table, scenarios};

pub(crate) async fn run(bench: &Bench, table: &mut Table) {
    scenarios! {
        bench, table;
        "commits" => commits::single_puts,
        "batched-commits" => commits::batched_puts,
        "latency" => latency::sequential_commits,
        "appends" => appends::single_appends,
        "batched-appends" => appends::batched_appends,
        "idle" => idle::idle_client,
        "crowd" => idle::thousand_feeds_and_readers,
    }
}
