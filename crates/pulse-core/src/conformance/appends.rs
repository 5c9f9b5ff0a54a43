//! Transactions that append to one stream and otherwise only expect something of it, trim it, and set its lifetime.

use futures::future::join_all;

use super::{
    Subject, eventually,
    room::{LONG, Room, SHORT, done},
};
use crate::{Deadline, Error, EventId, Expectation, Found, NewEvent, Once, Transaction, Trim};

fn event(name: impl Into<String>) -> NewEvent {
    NewEvent::new(name.into(), "p")
}

fn exactly(length: u64) -> Trim {
    Trim::MaxLength { length, approximate: false }
}

fn append(transaction: Transaction, count: usize) -> Transaction {
    (0..count).fold(transaction, |transaction, i| transaction.append("s", event(format!("e{i}"))))
}

pub(super) async fn several_events_a_trim_and_a_lifetime_are_one_transaction(subject: Subject) {
    let room = Room::open(&subject).await;
    for count in [1, 2, 300] {
        let whole = append(room.begin(), count).trim_stream("s", exactly(2)).expire_stream("s", Deadline::Renew(LONG));
        let before = room.ids("s").await;
        let committed = room.commit(whole).await;
        assert_eq!(committed.results.len(), count + 2, "{committed:?}");
        let ids: Vec<EventId> = (0..count).filter_map(|i| committed.event_id(i)).collect();
        let all = [before, ids.clone()].concat();
        assert!(all.is_sorted_by(|a, b| a < b) && ids.len() == count, "{all:?}");
        let stay = all.len().saturating_sub(2);
        assert_eq!(committed.count(count), Some(stay as u64));
        assert_eq!(room.ids("s").await, all[stay..]);
    }
    let first =
        room.commit(append(room.begin(), 3).trim_stream("s", Trim::Before { id: EventId::MAX, approximate: false }));
    assert_eq!(first.await.count(3), Some(5), "a trim may take the new events too");
    room.commit(append(room.begin(), 1).expire_stream("s", Deadline::Renew(SHORT))).await;
    eventually("the stream is gone", async || {
        let info = done(room.backend.stream_info(&room.stream("s")).await);
        if info.is_none() { Ok(()) } else { Err(info) }
    })
    .await;
}

pub(super) async fn an_append_that_expects_a_stream_or_a_length_says_which_does_not_hold(subject: Subject) {
    let room = Room::open(&subject).await;
    let failed = |error: Error| match error {
        Error::ExpectationFailed { failed, .. } => (failed.index, failed.expected, failed.found),
        other => panic!("an expectation should have failed: {other:?}"),
    };
    let exists = || Expectation::StreamExists { stream: "s".into() };
    let shorter = |length| Expectation::ShorterThan { stream: "s".into(), length };
    let with = |expectations: &[Expectation]| {
        let begin = expectations.iter().cloned().fold(room.begin(), Transaction::expect);
        append(begin, 2).trim_stream("s", exactly(3)).expire_stream("s", Deadline::Never)
    };
    assert_eq!(failed(room.refused(with(&[exists()])).await), (0, exists(), Found::NoStream));
    assert_eq!(failed(room.refused(with(&[shorter(0), exists()])).await), (0, shorter(0), Found::Count(0)));
    assert_eq!(failed(room.refused(with(&[exists(), shorter(0)])).await), (0, exists(), Found::NoStream));
    assert_eq!(failed(room.refused(with(&[shorter(1), exists()])).await), (1, exists(), Found::NoStream));
    assert_eq!(done(room.backend.stream_info(&room.stream("s")).await), None, "none of this creates the stream");
    room.commit(with(&[shorter(1)])).await;
    room.commit(with(&[exists(), shorter(3)])).await;
    assert_eq!(failed(room.refused(with(&[exists(), shorter(3)])).await), (1, shorter(3), Found::Count(3)));
    let ids = room.ids("s").await;
    assert_eq!(ids.len(), 3);
    let once = || Once::new("a", LONG);
    let refused = room.begin().expect_shorter_than("s", 3).append_once("s", event("e"), once());
    assert_eq!(failed(room.refused(refused).await), (0, shorter(3), Found::Count(3)));
    let first =
        room.begin().expect_shorter_than("s", 4).append_once("s", event("e"), once()).trim_stream("s", exactly(3));
    assert!(room.commit(first).await.event_id(0) > ids.last().copied(), "what was refused is not known as appended");
}

pub(super) async fn simultaneous_appends_never_exceed_the_length_that_they_expect(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.other_client().await;
    for trim in [None, Some(exactly(100))] {
        let appends = (0..200).map(|i| {
            let append = append(room.begin().expect_shorter_than("s", 50), 1);
            let append = trim.into_iter().fold(append, |append, trim| append.trim_stream("s", trim));
            if i % 2 == 0 { &room } else { &other }.backend.commit(append)
        });
        let answers = join_all(appends).await;
        for answer in &answers {
            assert!(answer.as_ref().err().is_none_or(Error::is_conflict), "{answer:?}");
        }
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 50);
        assert_eq!(room.ids("s").await.len(), 50);
        room.commit(room.begin().destroy_stream("s")).await;
    }
    // A trim makes room for those who come after it.
    let appends = (0..100).map(|_| {
        room.backend.commit(append(room.begin().expect_shorter_than("s", 10), 1).trim_stream("s", exactly(9)))
    });
    assert!(join_all(appends).await.iter().all(Result::is_ok));
    assert_eq!(room.ids("s").await.len(), 9);
}

pub(super) async fn simultaneous_batches_stay_together_and_are_trimmed(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.other_client().await;
    let batches = (0..60).map(|i| {
        let client = if i % 2 == 0 { &room } else { &other };
        let batch = append(room.begin(), 5);
        client.commit(if i % 3 == 0 { batch } else { batch.trim_stream("s", exactly(1000)) })
    });
    let mut ids = Vec::new();
    for committed in join_all(batches).await {
        let batch: Vec<EventId> = (0..5).filter_map(|i| committed.event_id(i)).collect();
        assert!(batch.len() == 5 && committed.count(5).unwrap_or_default() == 0, "{committed:?}");
        ids.push(batch);
    }
    ids.sort();
    assert_eq!(room.ids("s").await, ids.concat(), "no event of another transaction stands between those of one");
    let trims = (0..50).map(|_| room.commit(append(room.begin(), 2).trim_stream("s", exactly(10))));
    let dropped: u64 = join_all(trims).await.iter().filter_map(|committed| committed.count(2)).sum();
    assert_eq!(dropped, 300 + 100 - 10);
    assert_eq!(room.ids("s").await.len(), 10);
}
