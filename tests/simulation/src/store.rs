//! What the store really holds, past all links: the truth that the checks go by.

use std::collections::BTreeMap;

use pulse_core::{Backend, MapId, Memory, Scope, message_pack};
use pulse_pool::WorkerId;
use serde::Deserialize;

/// The name of the pool.
pub(crate) const POOL: &str = "orchestra";

/// The maps of a pool that the checks look into, by the names that its crate gives them.
pub(crate) const JOBS: &str = "pool:jobs";
pub(crate) const QUEUE: &str = "pool:queue";
pub(crate) const DEAD: &str = "pool:dead";
const WORKERS: &str = "pool:workers";

/// As much of a worker's record as is looked at here.
#[derive(Debug, Deserialize)]
struct Worker {
    #[serde(rename = "d")]
    draining: bool,
}

fn map(name: &str) -> MapId {
    Scope::new(POOL).and_then(|scope| scope.map(name)).expect("the names are valid")
}

/// The keys of a map.
pub(crate) async fn keys(store: &Memory, name: &str) -> Vec<String> {
    entries(store, name).await.into_iter().map(|(key, _)| key).collect()
}

async fn entries(store: &Memory, name: &str) -> Vec<(String, bytes::Bytes)> {
    let (map, mut cursor, mut entries) = (map(name), None, Vec::new());
    loop {
        let page = store.map_page(&map, cursor.as_ref(), 1000).await.expect("the store itself does not fail");
        entries.extend(page.entries.into_iter().map(|(key, value)| (key.to_string(), value)));
        cursor = page.next;
        if cursor.is_none() {
            return entries;
        }
    }
}

/// The workers that stand in the pool, and whether each is draining.
pub(crate) async fn workers(store: &Memory) -> BTreeMap<WorkerId, bool> {
    let worker = |(key, raw): (String, bytes::Bytes)| {
        Some((key.parse().ok()?, message_pack::decode::<Worker>(&raw).ok()?.draining))
    };
    entries(store, WORKERS).await.into_iter().filter_map(worker).collect()
}
