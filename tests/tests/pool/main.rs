//! The worker pool keeps its promises on every backend.

mod board;
mod dispatching;
mod moving;

use std::time::Duration;

use pulse_pool::{Node, NodeBuilder};

/// The lifetime of the nodes' leases: short, so that the tests are, and long enough for a busy machine.
const TTL: Duration = Duration::from_secs(1);

/// A node of the pool that all tests use; each has a store of its own.
fn node() -> NodeBuilder {
    Node::builder("orchestra").worker_ttl(TTL)
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("part {index}")).collect()
}
