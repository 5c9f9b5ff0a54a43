//! The maps that are measured: keys of 12 bytes, values of 100.

use std::sync::Arc;

use bytes::Bytes;
use pulse_core::Client;
use pulse_rmap::Map;

use crate::harness::{Bench, PAYLOAD};

pub(super) async fn connect(bench: &Bench) -> Client {
    pulse_core::connect(&bench.options.url).await.expect("cannot connect")
}

/// A replica of the map, whose values are bytes.
pub(super) async fn join(client: &Client) -> Map<Bytes> {
    Map::raw("bench").join(client).await.expect("cannot join")
}

pub(super) fn keys(count: usize) -> Arc<[Arc<str>]> {
    (0..count).map(|number| format!("k{number:011}").into()).collect()
}

/// A value of its own, as what comes from the network is.
pub(super) fn value() -> Bytes {
    Bytes::copy_from_slice(PAYLOAD)
}

/// Writes all keys.
pub(super) async fn fill(map: &Map<Bytes>, keys: &[Arc<str>]) {
    let mut last = None;
    for page in keys.chunks(500) {
        let batch = page.iter().fold(map.batch(), |batch, key| batch.set(Arc::clone(key), &value()));
        last = batch.commit().await.expect("the batch failed");
    }
    map.wait_for(last).await.expect("the replica ended");
}

/// Which key a task uses in its so-manieth operation.
pub(super) fn place(task: usize, number: usize, keys: usize) -> usize {
    (task * 7_919 + number) % keys
}
