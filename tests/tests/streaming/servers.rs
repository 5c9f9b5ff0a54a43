//! What streams promise when their server or their connection fails, and when strangers write to their keys. Each test
//! has a server of its own.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use pulse_core::ClientBuilder;
use pulse_streaming::{Client, Error, EventStream, NewEvent, Notice, Sink, Start};
use tests::{Server, eventually, in_time, soon};

use crate::{SHORT, add_all, next_delivery, next_event, number, read, work_off};

/// The key of [`stream`] in the server.
const KEY: &str = "pulse:{shop}:s:events";

async fn client(server: &Server) -> Client {
    ClientBuilder::new(server.url()).command_timeout(Duration::from_secs(1)).connect().await.unwrap()
}

fn stream(client: &Client) -> EventStream {
    EventStream::in_scope(client, &pulse_streaming::Scope::new("shop").unwrap(), "events").unwrap()
}

/// Takes and acknowledges deliveries until all of these were acknowledged; checks that none comes after its
/// acknowledgement.
async fn work_off_all(sink: &mut Sink, mut missing: BTreeSet<u32>) {
    let mut done = BTreeSet::new();
    while !missing.is_empty() {
        let delivery = next_delivery(sink).await;
        let number = number(&delivery);
        assert!(!done.contains(&number), "{number} was acknowledged and came again");
        if delivery.ack().await.is_ok() {
            missing.remove(&number);
            done.insert(number);
        }
    }
}

mod standalone {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn entries_of_strangers_are_skipped_and_do_not_stay_pending() {
        in_time(async {
            let server = Server::start();
            let client = client(&server).await;
            let stream = stream(&client);
            let mut reader = stream.reader().join().await.unwrap();
            let mut sink = stream.sink("s").ack_grace(SHORT).join().await.unwrap();
            for n in 0..5_u32 {
                server.cli(&["XADD", KEY, "*", "foo", "bar"]);
                server.cli(&["XADD", KEY, "*", "n", "\u{fffd}", "h", "no headers", "p", "payload"]);
                add_all(&stream, [n]).await;
            }
            assert_eq!(read(&mut reader, 5).await, [0, 1, 2, 3, 4]);
            assert_eq!(work_off(&mut sink, 5).await, [0, 1, 2, 3, 4]);
            soon("the closing", sink.close()).await;
            let info = stream.sink_info("s").await.unwrap().unwrap();
            assert_eq!((info.pending, info.consumers), (0, vec![]));
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_key_that_holds_something_else_is_told_and_healed_once_it_is_gone() {
        in_time(async {
            let server = Server::start();
            let client = client(&server).await;
            let stream = stream(&client);
            let mut reader = stream.reader().join().await.unwrap();
            let mut sink = stream.sink("s").ack_grace(SHORT).join().await.unwrap();
            server.cli(&["SET", KEY, "not a stream"]);

            let refused = stream.add("n", "1").await.unwrap_err();
            assert!(matches!(refused.backend(), Some(pulse_core::Error::WrongType { .. })), "{refused:?}");
            assert!(matches!(stream.sink("other").join().await, Err(Error::Backend { .. })));
            let told = soon("a notice to the reader", reader.next()).await.unwrap();
            assert!(matches!(told, Err(Notice::Failing { .. })), "{told:?}");
            let told = soon("a notice to the sink", sink.next()).await.unwrap();
            assert!(matches!(told, Err(Notice::Failing { .. })), "{told:?}");

            server.cli(&["DEL", KEY]);
            add_all(&stream, [2]).await;
            assert_eq!(number(&next_event(&mut reader).await), 2);
            let lost = soon("a notice to the sink", sink.next()).await.unwrap();
            assert!(matches!(lost, Err(Notice::CursorLost { .. })), "{lost:?}");
            assert_eq!(work_off(&mut sink, 1).await, [2]);
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn redelivery_goes_on_after_the_scripts_were_flushed_and_the_group_destroyed() {
        in_time(async {
            let server = Server::start();
            let client = client(&server).await;
            let stream = stream(&client);
            let mut sink = stream.sink("s").ack_grace(SHORT).join().await.unwrap();
            add_all(&stream, [1]).await;
            drop(next_delivery(&mut sink).await);
            server.cli(&["SCRIPT", "FLUSH"]);
            assert_eq!(next_delivery(&mut sink).await.deliveries(), 2);
            server.cli(&["XGROUP", "DESTROY", KEY, "s"]);
            add_all(&stream, [2]).await;
            let lost = soon("a notice", sink.next()).await.unwrap();
            assert!(matches!(lost, Err(Notice::CursorLost { .. })), "{lost:?}");
            drop(next_delivery(&mut sink).await);
            let again = next_delivery(&mut sink).await;
            assert_eq!((number(&again), again.deliveries()), (2, 2));
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_restarted_server_finds_readers_and_sinks_where_they_were() {
        in_time(async {
            let mut server = Server::start_durable();
            let client = client(&server).await;
            let stream = stream(&client);
            let mut reader = stream.reader().join().await.unwrap();
            let mut sink = stream.sink("s").ack_grace(3 * SHORT).join().await.unwrap();
            add_all(&stream, 0..50).await;
            assert_eq!(read(&mut reader, 20).await, (0..20).collect::<Vec<_>>());
            assert_eq!(work_off(&mut sink, 20).await, (0..20).collect::<Vec<_>>());
            server.kill();
            server.restart();
            eventually("the client is back", async || stream.add("n", "50").await.map_err(|error| error.to_string()))
                .await;
            // The add of unknown outcome may have been made twice; nothing else may.
            let seen = read(&mut reader, 31).await;
            assert_eq!(seen, (20..=50).collect::<Vec<_>>());
            work_off_all(&mut sink, (20..=50).collect()).await;
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn connections_killed_again_and_again_lose_nothing() {
        in_time(async {
            let server = Arc::new(Server::start());
            let (writer, worker) = (client(&server).await, client(&server).await);
            let (source, stream) = (stream(&writer), stream(&worker));
            let mut reader = stream.reader().start(Start::Oldest).join().await.unwrap();
            let mut sink = stream.sink("s").start(Start::Oldest).ack_grace(SHORT).join().await.unwrap();
            for batch in 0..20_u32 {
                let events = (0..100).map(|n| NewEvent::new("n", (batch * 100 + n).to_string()));
                source.add_batch(events).await.unwrap();
            }
            let killer = tokio::task::spawn_blocking({
                let server = server.clone();
                move || {
                    for kind in ["normal", "pubsub"].iter().cycle().take(12) {
                        server.cli(&["CLIENT", "KILL", "TYPE", kind]);
                        std::thread::sleep(Duration::from_millis(100));
                    }
                }
            });
            let all: Vec<u32> = (0..2_000).collect();
            let reading = async { assert_eq!(read(&mut reader, 2_000).await, all) };
            tokio::join!(reading, work_off_all(&mut sink, all.iter().copied().collect()));
            killer.await.unwrap();
        })
        .await;
    }
}
