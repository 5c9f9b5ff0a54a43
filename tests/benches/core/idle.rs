//! What clients cost that have nothing to do.

use std::time::Duration;

use pulse_core::{Client, Error, EventId, MapFeed, NewEvent, Read, Scope, Transaction};
use tokio::task::JoinSet;

use crate::harness::{Bench, Goal, Rest, Row};

/// Longer than anything here takes.
const WAIT: Duration = Duration::from_secs(600);

/// A client with a few feeds and waiting readers.
pub(crate) async fn idle_client(bench: &Bench) -> Vec<Row> {
    let client = pulse_core::connect(&bench.options.url).await.expect("cannot connect");
    let crowd = Crowd::gather(&client, 4).await;
    let rest = Rest::watch(bench).await;
    crowd.dismiss().await;
    client.close().await;
    vec![
        Row::plain(
            "idle client, 4 feeds and 4 readers: CPU",
            rest.cpu_shown(),
            rest.cpu(),
            "%",
            Goal::AtMost(0.2),
            "not measured",
        ),
        Row::plain(
            "the same: commands",
            rest.commands_shown(),
            rest.commands(),
            "per second",
            Goal::AtMost(2.0),
            "not measured",
        ),
    ]
}

/// A thousand feeds and a thousand waiting readers on one client.
pub(crate) async fn thousand_feeds_and_readers(bench: &Bench) -> Vec<Row> {
    let others = bench.server.connections();
    let client = pulse_core::connect(&bench.options.url).await.expect("cannot connect");
    let crowd = Crowd::gather(&client, 1_000).await;
    let rest = Rest::watch(bench).await;
    let connections = bench.server.connections() - others;
    crowd.dismiss().await;
    client.close().await;
    let shown = connections.to_string();
    vec![
        Row::plain(
            "1,000 feeds and 1,000 readers: connections",
            shown,
            connections as f64,
            "connections",
            Goal::AtMost(8.0),
            "11 per node",
        ),
        Row::plain("the same, idle: CPU", rest.cpu_shown(), rest.cpu(), "%", Goal::AtMost(1.0), "not measured"),
        Row::plain(
            "the same, idle: commands",
            rest.commands_shown(),
            rest.commands(),
            "per second",
            Goal::AtMost(20.0),
            "not measured",
        ),
    ]
}

/// Feeds and readers, each of a map and a stream of its own.
struct Crowd {
    client: Client,
    feeds: Vec<MapFeed>,
    readers: JoinSet<Result<Read, Error>>,
}

impl Crowd {
    async fn gather(client: &Client, each: usize) -> Self {
        let (mut feeds, mut readers) = (Vec::with_capacity(each), JoinSet::new());
        for number in 0..each {
            let scope = scope_of(number);
            let map = scope.map("map").expect("a short name is valid");
            feeds.push(client.backend().map_feed(&map).await.expect("cannot subscribe"));
            let stream = scope.stream("stream").expect("a short name is valid");
            let backend = client.backend().clone();
            readers.spawn(async move { backend.stream_read(&stream, EventId::ZERO, 1, WAIT).await });
        }
        Self { client: client.clone(), feeds, readers }
    }

    /// Sends something to every one, and waits until all have it: what does nothing must not look idle.
    async fn dismiss(mut self) {
        for number in 0..self.feeds.len() {
            let event = NewEvent::new("e", "p");
            let both = Transaction::new(&scope_of(number)).put("map", "key", "value").append("stream", event);
            self.client.commit(both).await.expect("the commit failed");
        }
        let everyone = async {
            while let Some(read) = self.readers.join_next().await {
                let read = read.expect("a reader panicked").expect("a reader failed");
                assert_eq!(read.entries.len(), 1, "a reader waited in vain");
            }
            for feed in &mut self.feeds {
                assert!(feed.next().await.is_some(), "a feed ended");
            }
        };
        let limit = Duration::from_secs(30);
        assert!(tokio::time::timeout(limit, everyone).await.is_ok(), "not all feeds and readers got what was sent");
    }
}

fn scope_of(number: usize) -> Scope {
    Scope::new(format!("crowd-{number}")).expect("a short name is valid")
}
