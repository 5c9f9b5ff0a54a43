//! Figures of `pulse-streaming`.

mod adds;
mod content;
mod crowd;
mod growth;
mod latency;
mod readers;
mod sinks;
mod stalled;

use crate::harness::{Bench, Table, scenarios};

pub(crate) async fn run(bench: &Bench, table: &mut Table) {
    scenarios! {
        bench, table;
        "adds" => adds::single_adds,
        "batches" => adds::batches,
        "sequential-adds" => adds::sequential_adds,
        "sink-loop" => sinks::one_loop,
        "sink-handlers" => sinks::many_handlers,
        "sink-no-ack" => sinks::without_acks,
        "readers" => readers::one_reader,
        "latency" => latency::publish_until_received,
        "crowd" => crowd::thousand_readers,
        "stalled" => stalled::stalled_consumer,
        "growth" => growth::retained_events,
    }
}
