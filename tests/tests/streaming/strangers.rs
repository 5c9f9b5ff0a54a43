//! What sinks tell of what strangers do to their streams. Each test has a server of its own.

use std::collections::BTreeSet;

use pulse_core::ClientBuilder;
use pulse_streaming::{Client, Delivery, Error, EventStream, Notice, Scope, Sink, Start, Trim};
use tests::{Server, eventually, in_time, soon};

use crate::{LONG, SHORT, add_all, next_delivery, number};

/// The key of [`stream`] in the server.
const KEY: &str = "pulse:{shop}:s:events";

async fn client(server: &Server) -> Client {
    ClientBuilder::new(server.url()).connect().await.unwrap()
}

fn stream(client: &Client) -> EventStream {
    EventStream::in_scope(client, &Scope::new("shop").unwrap(), "events").unwrap()
}

/// What the instances of a sink got and were told is missing.
#[derive(Debug, Default)]
struct Account {
    got: BTreeSet<u32>,
    missed: u64,
}

impl Account {
    /// Takes and acknowledges what comes next.
    async fn take(&mut self, next: Option<Result<Delivery, Notice>>) {
        match next.expect("the sink is open") {
            Ok(delivery) => {
                assert!(self.got.insert(number(&delivery)), "{delivery:?} came twice");
                delivery.ack().await.unwrap();
            }
            Err(Notice::Missed { events, .. }) => self.missed += events.expect("the server counts them"),
            // What waited in a buffer that nobody emptied.
            Err(Notice::Lost { ids, .. }) => self.missed += ids.len() as u64,
            Err(notice) => panic!("{notice}"),
        }
    }

    /// Takes until all events are accounted for.
    async fn settle(&mut self, sink: &mut Sink, events: u64) {
        while self.got.len() as u64 + self.missed < events {
            let next = soon("an event or word of it", sink.next()).await;
            self.take(next).await;
        }
        assert_eq!(self.got.len() as u64 + self.missed, events, "{self:?}");
    }
}

mod standalone {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_sink_is_told_exactly_of_what_somebody_else_trimmed() {
        in_time(async {
            let server = Server::start();
            let client = client(&server).await;
            let stream = stream(&client);
            let builder = stream.sink("s").start(Start::Oldest).ack_grace(SHORT).buffer(1);
            let mut sink = builder.join().await.unwrap();
            add_all(&stream, 0..100).await;
            let first = next_delivery(&mut sink).await;
            let mut account = Account::default();
            account.got.insert(number(&first));
            first.ack().await.unwrap();
            server.cli(&["XTRIM", KEY, "MAXLEN", "5"]);
            account.settle(&mut sink, 100).await;
            assert!(account.missed >= 92 && account.got.contains(&99), "{account:?}");

            // Again, by producers of others, and between them a trim of ours.
            add_all(&stream, 100..150).await;
            server.cli(&["XTRIM", KEY, "MAXLEN", "30"]);
            stream.trim(Trim::MaxLength { length: 20, approximate: false }).await.unwrap();
            server.cli(&["XTRIM", KEY, "MAXLEN", "10"]);
            account.settle(&mut sink, 150).await;
            add_all(&stream, 150..152).await;
            account.settle(&mut sink, 152).await;
            // What was read before it was trimmed is not missing.
            server.cli(&["XTRIM", KEY, "MAXLEN", "0"]);
            assert!(tokio::time::timeout(SHORT, sink.next()).await.is_err(), "there is nothing to say");
            sink.close().await;
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_instances_of_a_sink_are_told_once_together() {
        in_time(async {
            let server = Server::start();
            let client = client(&server).await;
            let stream = stream(&client);
            let builder = || stream.sink("s").start(Start::Oldest).ack_grace(SHORT).buffer(2);
            let mut one = builder().join().await.unwrap();
            let other = builder().join().await.unwrap();
            add_all(&stream, 0..200).await;
            server.cli(&["XTRIM", KEY, "MAXLEN", "100"]);
            let mut account = Account::default();
            // What the other has in its buffer, or heard, comes here once it is closed, or from itself.
            let mut heard = other;
            while let Ok(next) = tokio::time::timeout(SHORT, heard.next()).await {
                account.take(next).await;
            }
            heard.close().await;
            account.settle(&mut one, 200).await;
            assert!(account.missed >= 90, "{account:?}");
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_said_of_a_delivery_that_was_taken_from_the_group_fails() {
        in_time(async {
            let server = Server::start();
            let client = client(&server).await;
            let stream = stream(&client);
            let builder = stream.sink("s").start(Start::Oldest).ack_grace(LONG).buffer(1);
            let mut sink = builder.join().await.unwrap();
            add_all(&stream, 0..5).await;
            let (first, second, third) =
                (next_delivery(&mut sink).await, next_delivery(&mut sink).await, next_delivery(&mut sink).await);
            // With a full buffer it reads no more, which would bring it back into the group.
            eventually("the buffer is full", async || {
                let info = stream.sink_info("s").await.unwrap().expect("there is a sink");
                if info.pending == 4 { Ok(()) } else { Err(info) }
            })
            .await;
            let info = stream.sink_info("s").await.unwrap().expect("there is a sink");
            let me = info.consumers[0].name.to_string();
            assert_eq!(server.cli(&["XGROUP", "DELCONSUMER", KEY, "s", &me]).trim(), "4");
            for outcome in [first.ack().await, second.nack().await, third.in_progress().await] {
                assert!(matches!(outcome, Err(Error::Superseded { .. })), "{outcome:?}");
            }
        })
        .await;
    }
}
