//! What is particular to the embedded backend: its handles and names, paused time, waits, and many tasks at once. What
//! it shares with every backend is checked by the conformance suite.

mod handles;
mod tasks;
mod time;
mod waits;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::*;
use crate::{Binding, Deadline, FeedItem, LeaseId, MapCommit, NewEvent};

/// A lifetime that passes in a test.
const TTL: Duration = Duration::from_secs(3);
/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(100_000);

fn scope() -> Scope {
    Scope::new("s").unwrap()
}

fn map() -> MapId {
    scope().map("m").unwrap()
}

fn stream() -> StreamId {
    scope().stream("e").unwrap()
}

fn group() -> Group {
    Group::new("g").unwrap()
}

fn consumer(name: &str) -> Consumer {
    Consumer::new(name).unwrap()
}

fn begin() -> Transaction {
    Transaction::new(&scope())
}

fn put(key: &str) -> Transaction {
    begin().put("m", key, "v")
}

fn append() -> Transaction {
    begin().append("e", NewEvent::new("n", "p"))
}

async fn id_of_new_event(memory: &Memory) -> EventId {
    memory.commit(append()).await.unwrap().event_id(0).unwrap()
}

async fn has(memory: &Memory, key: &str) -> bool {
    memory.map_get(&map(), &[key]).await.unwrap() != [None]
}

async fn next_commit(feed: &mut MapFeed) -> MapCommit {
    match feed.next().await {
        Some(FeedItem::Commit(commit)) => commit,
        other => panic!("expected a commit, found {other:?}"),
    }
}
