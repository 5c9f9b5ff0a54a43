//! Servers that forget, cut, stop and die.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pulse_core::{
    Change, ClientBuilder, Error, EventId, FeedItem, GapCause, Group, GroupStart, NewEvent, Outcome, Transaction,
};
use tests::Server;

use super::{connect, connect_hasty, map, scope, stream, until};

#[tokio::test]
async fn scripts_that_the_server_forgot_are_brought_again() {
    let server = Server::start();
    let client = connect(&server).await;
    for _ in 0..2 {
        client.commit(Transaction::new(&scope()).put("m", "k", "v")).await.unwrap();
        client.commit(Transaction::new(&scope()).expect_present("m", "k").add("m", "n", 1)).await.unwrap();
        server.cli(&["SCRIPT", "FLUSH"]);
    }
    let group = Group::new("g").unwrap();
    let consumer = pulse_core::Consumer::new("c").unwrap();
    client.backend().group_create(&stream("s"), &group, GroupStart::Oldest).await.unwrap();
    server.cli(&["SCRIPT", "FLUSH"]);
    client.backend().group_claim(&stream("s"), &group, &consumer, Duration::ZERO, 9).await.unwrap();
    client.backend().sweep(&scope()).await.unwrap();
    assert_eq!(client.backend().map_version(&map("m")).await.unwrap().unwrap().revision.0, 4);
    client.close().await;
}

#[tokio::test]
async fn the_server_has_another_name_after_a_restart_and_not_before() {
    let mut server = Server::start_durable();
    let client = connect(&server).await;
    let before = client.backend().server_run(&scope()).await.unwrap().expect("a server tells");
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    let run = async || client.backend().server_run(&scope()).await.ok().flatten();
    until("the connection is there again", async || run().await.is_some()).await;
    assert_eq!(run().await.as_ref(), Some(&before), "it is the same server");
    server.kill();
    server.restart();
    until("it is another run", async || run().await.is_some_and(|run| run != before)).await;
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_cut_in_the_midst_of_writes_shows_every_hole() {
    let server = Server::start();
    let client = connect(&server).await;
    let mut feed = client.backend().map_feed(&map("m")).await.unwrap();
    let enough = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (client, enough) = (client.clone(), enough.clone());
        async move {
            let mut written = 0_u64;
            while !enough.load(Ordering::Relaxed) {
                client.commit(Transaction::new(&scope()).put("m", "k", written.to_string())).await.unwrap();
                written += 1;
            }
            written
        }
    });
    // Where the reader stands, `None` after a gap.
    let mut at = Some(0);
    let (mut cuts, mut gaps) = (0, 0);
    while cuts < 5 || at.is_none() {
        match feed.next().await.expect("the feed goes on") {
            FeedItem::Commit(commit) => {
                assert!(at.is_none_or(|at| at == commit.before.0), "a silent hole before {commit:?}, at {at:?}");
                at = Some(commit.after.0);
                if commit.after.0 % 50 == 0 && cuts < 5 {
                    server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
                    cuts += 1;
                }
            }
            FeedItem::Gap(cause) => {
                gaps += usize::from(cause == GapCause::Resubscribed);
                at = None;
            }
            other => panic!("{other:?}"),
        }
    }
    enough.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();
    assert!(gaps >= 1, "no gap was told in {written} writes");
    // Whatever was written last arrives, as a commit or after a gap.
    while at != Some(written) {
        match feed.next().await.expect("the feed goes on") {
            FeedItem::Commit(commit) => at = Some(commit.after.0),
            _ => {
                let version = client.backend().map_version(&map("m")).await.unwrap().unwrap();
                at = Some(version.revision.0);
            }
        }
    }
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_wait_for_a_server_that_comes_back() {
    let mut server = Server::start_durable();
    let client = connect(&server).await;
    client.commit(Transaction::new(&scope()).put("m", "k", "1").append("s", NewEvent::new("e", "1"))).await.unwrap();
    let mut feed = client.backend().map_feed(&map("m")).await.unwrap();
    let last = client.backend().stream_info(&stream("s")).await.unwrap().unwrap().last;
    let reader = tokio::spawn({
        let client = client.clone();
        async move {
            loop {
                match client.backend().stream_read(&stream("s"), last, 9, Duration::from_secs(60)).await {
                    Ok(read) => return read.entries,
                    Err(error) => assert!(error.is_retryable(), "{error:?}"),
                }
            }
        }
    });
    server.kill();
    until("the loss is told", async || matches!(feed.try_next(), Some(FeedItem::Gap(GapCause::Disconnected)))).await;
    let commit = tokio::spawn({
        let client = client.clone();
        async move {
            loop {
                match client.commit(Transaction::new(&scope()).put("m", "k", "2")).await {
                    // Sent before the loss was noticed.
                    Err(error) if error.is_outcome_unknown() => {}
                    committed => return committed,
                }
            }
        }
    });
    server.restart();
    commit.await.unwrap().expect("the server came back in time");
    assert_eq!(client.backend().map_get(&map("m"), &["k"]).await.unwrap(), [Some("2".into())]);
    client.commit(Transaction::new(&scope()).append("s", NewEvent::new("e", "2"))).await.unwrap();
    assert_eq!(reader.await.unwrap().len(), 1);
    while feed.next().await != Some(FeedItem::Gap(GapCause::Resubscribed)) {}
    client.commit(Transaction::new(&scope()).put("m", "k", "3")).await.unwrap();
    loop {
        if let FeedItem::Commit(commit) = feed.next().await.unwrap()
            && commit.changes == [Change::Put { key: "k".into(), value: "3".into() }]
        {
            break;
        }
    }
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_never_left_says_that_nothing_changed() {
    let mut server = Server::start();
    let client = connect_hasty(&server).await;
    let mut feed = client.backend().map_feed(&map("m")).await.unwrap();
    server.kill();
    while feed.next().await != Some(FeedItem::Gap(GapCause::Disconnected)) {}
    let write = || client.commit(Transaction::new(&scope()).put("m", "k", "v"));
    // The first ones may still meet the end of the connection, and not know.
    until("a write knows that it never left", async || {
        let error = write().await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        matches!(error, Error::Unavailable { outcome: Outcome::NotApplied, .. })
    })
    .await;
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_ends_calls_in_time_with_an_unknown_outcome() {
    let server = Server::start();
    let client = connect_hasty(&server).await;
    client.commit(Transaction::new(&scope()).put("m", "k", "v")).await.unwrap();
    server.pause();
    let begun = std::time::Instant::now();
    let error = client.commit(Transaction::new(&scope()).put("m", "k", "w")).await.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    server.resume();
    let works = async || client.commit(Transaction::new(&scope()).put("m", "k", "x")).await.is_ok();
    until("the client works again", works).await;
    client.close().await;
}

#[tokio::test]
async fn a_read_only_replica_refuses_writes_by_name() {
    let primary = Server::start();
    let replica = Server::start_with(&["--replicaof", "127.0.0.1", &primary.port().to_string()]);
    until("the replica is in step", async || replica.cli(&["INFO", "replication"]).contains("link_status:up")).await;
    // The refusal is told when the time is over, because a server that was demoted may soon be replaced.
    let client = connect_hasty(&replica).await;
    for transaction in [
        Transaction::new(&scope()).put("m", "k", "v"),
        Transaction::new(&scope()).add("m", "k", 1),
        Transaction::new(&scope()).append("s", NewEvent::new("e", "p")),
    ] {
        let error = client.commit(transaction).await.unwrap_err();
        assert!(matches!(error, Error::ReadOnly { .. }), "{error:?}");
    }
    assert_eq!(client.backend().map_version(&map("m")).await.unwrap(), None);
    client.close().await;
}

#[tokio::test]
async fn a_full_server_refuses_and_changes_nothing() {
    let server = Server::start();
    let client = connect(&server).await;
    client.commit(Transaction::new(&scope()).put("m", "k", "v")).await.unwrap();
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    for transaction in [
        Transaction::new(&scope()).put("m", "k", "w"),
        Transaction::new(&scope()).put("m", "k", "w").append("s", NewEvent::new("e", "p")).add("n", "k", 1),
        Transaction::new(&scope()).append("s", NewEvent::new("e", "p")),
    ] {
        let error = client.commit(transaction).await.unwrap_err();
        assert!(matches!(&error, Error::Refused { transient: true, .. }), "{error:?}");
    }
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(client.backend().map_get(&map("m"), &["k"]).await.unwrap(), [Some("v".into())]);
    assert_eq!(client.backend().stream_info(&stream("s")).await.unwrap(), None);
    assert_eq!(client.backend().map_version(&map("n")).await.unwrap(), None);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_while_commits_are_under_way_leaves_no_doubt_that_is_not_told() {
    let server = Server::start();
    let client = ClientBuilder::new(server.url()).connect().await.unwrap();
    let mut counts = Vec::new();
    for task in 0..8 {
        let client = client.clone();
        counts.push(tokio::spawn(async move {
            let (mut certain, mut doubtful) = (0_i64, 0_i64);
            for _ in 0..300 {
                match client.commit(Transaction::new(&scope()).add("m", format!("{task}"), 1)).await {
                    Ok(_) => certain += 1,
                    Err(error) if error.is_outcome_unknown() => doubtful += 1,
                    Err(error) => assert!(error.is_retryable(), "{error:?}"),
                }
            }
            (task, certain, doubtful)
        }));
    }
    for _ in 0..5 {
        tokio::task::yield_now().await;
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
    for count in counts {
        let (task, certain, doubtful) = count.await.unwrap();
        let value = client.backend().map_get(&map("m"), &[&task.to_string()]).await.unwrap().remove(0).unwrap();
        let value: i64 = std::str::from_utf8(&value).unwrap().parse().unwrap();
        assert!((certain..=certain + doubtful).contains(&value), "{value} of {certain} and {doubtful} in doubt");
    }
    assert!(
        client.backend().stream_read(&stream("s"), EventId::ZERO, 1, Duration::ZERO).await.unwrap().entries.is_empty()
    );
    client.close().await;
}
