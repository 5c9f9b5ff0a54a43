//! The worker pool keeps its promises on every backend.

mod board;
mod clients;
mod closing;
mod containing;
mod damaging;
mod dead;
mod dispatching;
mod failing;
mod headers;
mod leaving;
mod losing;
mod moving;
mod notifying;
mod ordering;
mod outcomes;
mod planning;
#[cfg(feature = "standalone")]
mod processes;
mod reading;
mod requeueing;
mod successors;
mod tasks;
mod terms;
mod ticking;

use std::{sync::Arc, time::Duration};

use pulse_core::{Client, Scope, testing::Faulty};
use pulse_pool::{Node, NodeBuilder};
use tests::Subject;

/// The lifetime of the leases of nodes that are to die in a test: short, so that the test is, and long enough for a
/// busy machine.
const TTL: Duration = Duration::from_secs(2);

/// A node of the pool that all tests use; each has a store of its own.
fn node() -> NodeBuilder {
    Node::builder("orchestra")
}

/// Where it keeps its data.
fn orchestra() -> Scope {
    Scope::new("orchestra").unwrap()
}

/// One whose death is noticed soon.
fn mortal_node() -> NodeBuilder {
    node().worker_ttl(TTL)
}

/// A client whose link the test controls.
async fn faulty_client(subject: &Subject) -> (Faulty, Client) {
    let link = Faulty::new(subject.client().await.backend().clone(), 1);
    (link.clone(), Client::from_backend(Arc::new(link)))
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("part {index}")).collect()
}
