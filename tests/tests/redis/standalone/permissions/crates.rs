//! The everyday work of each crate, done by users who have no more than the guide grants them.

use std::time::Duration;

use pulse_core::ClientBuilder;
use pulse_pool::{HandlerError, Job, JobHandler, JobKey, Node};
use pulse_rmap::{Counter, Map, Session, Update};
use pulse_streaming::{EventId, EventStream, NewEvent, PartitionedStream, Retention, Start};
use tests::{Cluster, Server, eventually, soon};

use super::{change, commands, connect, make, missing};
use crate::standalone::scope;

const MINUTE: Duration = Duration::from_secs(60);

/// That the server denied nothing, not even what the client did by itself.
fn nothing_was_denied(server: &Server) {
    assert_eq!(server.cli(&["ACL", "LOG"]), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maps_need_no_more_than_the_guide_grants() {
    let server = Server::start();
    make(&server, "maps", &["+info", "+client|id"]);
    let (client, other) = (connect(&server, "maps").await, connect(&server, "maps").await);
    let states = Map::<String>::builder("states").scope(scope()).join(&client).await.unwrap();
    let replica = Map::<String>::builder("states").scope(scope()).join(&other).await.unwrap();
    let mut changes = replica.subscribe();
    states.set("7", &"placed".to_owned()).await.unwrap();
    assert!(matches!(soon("a change", changes.next()).await, Some(Update::Change(_))));
    states.compare_and_set("7", &"placed".to_owned(), &"paid".to_owned()).await.unwrap();
    states.set_bound("8", &"for a moment".to_owned(), Duration::from_millis(50)).await.unwrap();
    eventually("what has a lifetime is swept", async || if replica.contains_key("8") { Err(()) } else { Ok(()) }).await;
    let session = Session::open(&client, &scope(), MINUTE).await.unwrap();
    states.set_bound("9", &"as long as the session".to_owned(), session.lease()).await.unwrap();
    session.close().await.unwrap();
    states.expire_after(MINUTE).await.unwrap();
    states.expire_after(None).await.unwrap();

    let counts = Map::counters("counts").scope(scope()).join(&client).await.unwrap();
    counts.increment("n", 2).await.unwrap();
    counts.set("m", &Counter(1)).await.unwrap();
    let lists = Map::lists("lists").scope(scope()).join(&client).await.unwrap();
    lists.append("l", ["a", "b"]).await.unwrap();
    lists.append_unique("l", ["b", "c"]).await.unwrap();
    lists.remove_values("l", ["a"]).await.unwrap();

    states.batch().set("1", &"x".to_owned()).delete("7").commit().await.unwrap();
    states.delete("1").await.unwrap();
    states.clear().await.unwrap();
    for map in [&states, &replica] {
        map.close().await;
    }
    counts.destroy().await.unwrap();
    lists.destroy().await.unwrap();
    client.close().await;
    other.close().await;
    nothing_was_denied(&server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_only_read_follows_a_map_and_cannot_write_to_it() {
    let server = Server::start();
    make(&server, "maps", &[]);
    make(&server, "reader", &[]);
    let (client, reading) = (connect(&server, "maps").await, connect(&server, "reader").await);
    let states = Map::<String>::builder("states").scope(scope()).join(&client).await.unwrap();
    states.set("7", &"placed".to_owned()).await.unwrap();
    let replica = Map::<String>::builder("states").scope(scope()).join(&reading).await.unwrap();
    assert!(replica.contains_key("7"));
    let mut changes = replica.subscribe();
    states.delete("7").await.unwrap();
    assert!(matches!(soon("a change", changes.next()).await, Some(Update::Change(_))));
    let Err(pulse_rmap::Error::Key { source, .. }) = replica.set("7", &"mine".to_owned()).await else {
        panic!("this should have been denied")
    };
    assert!(missing::<()>(Err(*source)).contains("shop:{orders}:"));
    client.close().await;
    reading.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_a_cluster_need_to_be_told_its_slots() {
    let cluster = Cluster::start(2, false);
    let connect = || ClientBuilder::new(cluster.url()).credentials("maps", "secret").key_prefix("shop:").connect();
    for node in 0..2 {
        make(cluster.node(node), "maps", &[]);
    }
    let said = missing(connect().await);
    assert!(said.contains("grant +cluster|"), "{said}");
    for node in 0..2 {
        change(cluster.node(node), "maps", &["+cluster|slots", "+cluster|info"]);
    }
    let client = connect().await.unwrap();
    let states = Map::<String>::builder("states").scope(scope()).join(&client).await.unwrap();
    states.set_and_wait("7", &"placed".to_owned()).await.unwrap();
    let elsewhere = Map::<String>::builder("states").scope(super::other_scope()).join(&client).await;
    assert!(elsewhere.is_err_and(|error| error.to_string().contains("&shop:{customers}:*")));
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_need_no_more_than_the_guide_grants() {
    let server = Server::start();
    make(&server, "streams", &["+info", "+client|id"]);
    let client = connect(&server, "streams").await;
    let builder = EventStream::builder("log").scope(scope()).retention(Retention::Newest(100)).capacity(1000);
    let stream = builder.expires_unless_added_to_for(MINUTE).open(&client).unwrap();
    let mut reader = stream.reader().start(Start::Oldest).join().await.unwrap();
    let mut sink = stream.sink("sink").start(Start::Oldest).ack_grace(Duration::from_millis(200)).join().await.unwrap();
    stream.add("placed", "1").await.unwrap();
    stream.add_once("2", NewEvent::new("placed", "2")).await.unwrap();
    stream.add_batch([NewEvent::new("placed", "3"), NewEvent::new("placed", "4")]).await.unwrap();
    for _ in 0..4 {
        soon("an event", reader.next()).await.unwrap().unwrap();
    }
    let mut next = async || soon("a delivery", sink.next()).await.unwrap().unwrap();
    next().await.ack().await.unwrap();
    next().await.nack().await.unwrap();
    next().await.dead_letter("of no use").await.unwrap();
    let dropped = next().await;
    dropped.in_progress().await.unwrap();
    drop(dropped);
    // The one that was given back, and the one that was dropped.
    next().await.ack().await.unwrap();
    next().await.ack().await.unwrap();
    let letters = stream.dead_letters("sink").unwrap();
    let letter = letters.list(EventId::ZERO, 9).await.unwrap().remove(0);
    letters.replay(&letter).await.unwrap();
    next().await.ack().await.unwrap();
    stream.detail().await.unwrap().unwrap();
    stream.sink_info("sink").await.unwrap().unwrap();
    stream.trim(pulse_streaming::Trim::Consumed).await.unwrap();
    sink.close().await;
    stream.destroy().await.unwrap();
    client.close().await;
    nothing_was_denied(&server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitioned_streams_need_the_grants_of_maps_too() {
    let server = Server::start();
    let mut more = vec!["~shop:{orders#*}:*".to_owned(), "&shop:{orders#*}:*".to_owned()];
    more.extend(commands("maps").iter().map(|command| format!("+{command}")));
    make(&server, "streams", &more.iter().map(String::as_str).collect::<Vec<_>>());
    let client = connect(&server, "streams").await;
    let stream = PartitionedStream::new(&client, "orders", 4).unwrap();
    let mut sink = stream.sink("sink").start(Start::Oldest).join().await.unwrap();
    for number in 0..8 {
        stream.add(format!("key {number}"), "n", "p").await.unwrap();
    }
    for _ in 0..8 {
        soon("a delivery", sink.next()).await.unwrap().unwrap().ack().await.unwrap();
    }
    sink.close().await;
    stream.destroy().await.unwrap();
    client.close().await;
    assert!(!server.cli(&["ACL", "LOG"]).contains("shop:"));
}

/// A job that runs until it is stopped, and hears everything.
struct Runner;

#[pulse_pool::async_trait]
impl JobHandler for Runner {
    async fn start(&self, _: Job) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn stop(&self, _: &JobKey) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn notify(&self, _: &JobKey, _: pulse_pool::Bytes) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_need_no_more_than_the_guide_grants() {
    let server = Server::start();
    make(&server, "pool", &["+client|id"]);
    let (client, other) = (connect(&server, "pool").await, connect(&server, "pool").await);
    let node = Node::builder("orders").join(&client).await.unwrap();
    let second = Node::builder("orders").join(&other).await.unwrap();
    node.add_worker(Runner).await.unwrap();
    let worker = second.add_worker(Runner).await.unwrap();
    for number in 0..6 {
        node.dispatch(format!("job {number}"), "payload").await.unwrap();
    }
    second.notify("job 1", "hello").await.unwrap();
    second.stop("job 0").await.unwrap();
    node.enqueue("job 7", "payload").await.unwrap();
    let mut ticker = node.ticker("beat", Duration::from_millis(20)).await.unwrap();
    soon("a tick", ticker.next()).await.unwrap();
    ticker.stop().await.unwrap();
    second.remove_worker(worker).await.unwrap();
    assert!(node.jobs().await.unwrap().len() >= 6);
    second.close().await.unwrap();
    node.shutdown().await.unwrap();
    client.close().await;
    other.close().await;
    nothing_was_denied(&server);
}
