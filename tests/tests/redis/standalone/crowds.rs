//! Many callers whose writes travel together, while the connection is cut under them.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use pulse_core::{ClientBuilder, Error, EventId, NewEvent, Transaction};
use tests::Server;

use super::{connect, connect_hasty, map, scope, stream, until};

const CALLERS: usize = 64;
const ROUNDS: usize = 150;

/// What one caller was told of one write: its place, or that nobody knows.
type Told<T> = Vec<Option<T>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_tells_each_of_them_the_truth() {
    let server = Server::start();
    let client = connect(&server).await;
    let progress = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (client, progress) = (client.clone(), progress.clone());
            tokio::spawn(async move {
                let (mut puts, mut appends): (Told<u64>, Told<EventId>) = Default::default();
                for round in 0..ROUNDS {
                    let value = round.to_string();
                    let put = Transaction::new(&scope()).put("m", format!("{caller}"), value.clone());
                    let append = Transaction::new(&scope()).append("s", NewEvent::new(format!("{caller}"), value));
                    let (put, append) = futures::join!(client.commit(put), client.commit(append));
                    for error in [put.as_ref().err(), append.as_ref().err()].into_iter().flatten() {
                        assert!(error.is_outcome_unknown(), "what was certainly not done is done again: {error:?}");
                    }
                    puts.push(put.ok().and_then(|put| put.version("m")).map(|version| version.revision.0));
                    appends.push(append.ok().and_then(|append| append.event_id(0)));
                    progress.fetch_add(1, Ordering::Relaxed);
                }
                (puts, appends)
            })
        })
        .collect();
    for cut in 1..=4 {
        until("some more is done", async || progress.load(Ordering::Relaxed) >= cut * CALLERS * ROUNDS / 6).await;
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
    let mut revisions = HashSet::new();
    let mut events = HashSet::new();
    let mut unknown = 0;
    for (caller, running) in callers.into_iter().enumerate() {
        let (puts, appends) = running.await.unwrap();
        let key = caller.to_string();
        let found = client.backend().map_get(&map("m"), &[&key]).await.unwrap();
        let found: usize = std::str::from_utf8(found[0].as_deref().unwrap()).unwrap().parse().unwrap();
        let last_told = puts.iter().rposition(Option::is_some).unwrap();
        assert!(found >= last_told, "the put {last_told} of caller {caller} is gone; there is {found}");
        unknown += puts.iter().filter(|put| put.is_none()).count();
        revisions.extend(puts.iter().flatten().copied());
        assert!(puts.iter().flatten().is_sorted());
        events.extend(appends.into_iter().flatten());
    }
    let told = CALLERS * ROUNDS - unknown;
    assert_eq!(revisions.len(), told, "no revision was told twice");
    let last = client.backend().map_version(&map("m")).await.unwrap().unwrap().revision.0;
    assert!(last >= told as u64 && last <= (CALLERS * ROUNDS) as u64, "{last} puts were done, {told} told");
    let mut after = EventId::ZERO;
    let mut there = HashSet::new();
    loop {
        let page =
            client.backend().stream_read(&stream("s"), after, 1000, std::time::Duration::ZERO).await.unwrap().entries;
        let Some(end) = page.last() else { break };
        after = end.id;
        there.extend(page.iter().map(|entry| entry.id));
    }
    assert!(events.is_subset(&there), "an event was told and is not there");
    assert!(there.len() <= CALLERS * ROUNDS, "an event is there twice");
    client.close().await;
}

#[tokio::test]
async fn a_server_that_stands_still_ends_them_all_in_time() {
    let server = Server::start();
    let client = connect_hasty(&server).await;
    client.commit(Transaction::new(&scope()).put("m", "k", "before")).await.unwrap();
    server.pause();
    let begun = std::time::Instant::now();
    let put = |i: usize| client.commit(Transaction::new(&scope()).put("m", format!("{i}"), "v"));
    let results = futures::future::join_all((0..CALLERS).map(put)).await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    server.resume();
    until("the client works again", async || put(CALLERS).await.is_ok()).await;
    for (i, result) in results.into_iter().enumerate() {
        let error = result.unwrap_err();
        assert!(error.is_retryable() || error.is_outcome_unknown(), "{error:?}");
        let there = client.backend().map_get(&map("m"), &[&format!("{i}")]).await.unwrap()[0].is_some();
        assert!(error.is_outcome_unknown() || !there, "{i} was done, and {error:?} says that it was not");
    }
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_has_all_of_its_own_time_whatever_it_is_sent_with() {
    let server = Server::start();
    let timeout = std::time::Duration::from_millis(1500);
    let client = ClientBuilder::new(server.url()).command_timeout(timeout).connect().await.unwrap();
    client.commit(Transaction::new(&scope()).put("m", "k", "before")).await.unwrap();
    server.pause();
    let put = |key: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { client.commit(Transaction::new(&scope()).put("m", key, "v")).await })
    };
    // Two are sent at once, and the third waits for one of them.
    let early = [put("1"), put("2"), put("3")];
    // Time itself is the subject: the last write has most of its time left when that of the others is over.
    tokio::time::sleep(timeout * 4 / 5).await;
    let late = put("4");
    for write in early {
        let error = write.await.unwrap().expect_err("the server stood still all the time");
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    }
    server.resume();
    late.await.unwrap().expect("the server came back within the time of this write");
    client.close().await;
}
