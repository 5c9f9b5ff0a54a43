//! Appends made once: the same once-id again adds nothing.

use std::time::Duration;

use futures::future::join_all;

use super::{
    Subject, eventually,
    room::{LONG, MODERATE, Room, SHORT, done},
};
use crate::{Deadline, EventId, NewEvent, Once, Transaction, Trim};

fn event() -> NewEvent {
    NewEvent::new("e", "p")
}

async fn append(room: &Room, stream: &str, once: &str, window: Duration) -> Option<EventId> {
    room.commit(room.begin().append_once(stream, event(), Once::new(once, window))).await.event_id(0)
}

pub(super) async fn what_was_appended_once_is_not_appended_again(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.other_client().await;
    let first = append(&room, "s", "a", LONG).await;
    for client in [&room, &other, &room] {
        assert_eq!(append(client, "s", "a", LONG).await, first);
    }
    let second = append(&other, "s", "b", LONG).await;
    assert!(second > first, "{second:?} after {first:?}");
    let third = room.append("s", "plain").await;
    for odd in ["", " ", "\0", "{a}", "ü", "B"] {
        let odd = format!("b{odd}");
        let id = append(&room, "s", &odd, LONG).await;
        assert_eq!(append(&other, "s", &odd, LONG).await, id, "{odd:?}");
    }
    assert_eq!(append(&room, "s", "b", LONG).await, second);
    assert_eq!(room.ids("s").await.len(), 3 + 5);
    assert!(room.ids("s").await.contains(&third));
}

pub(super) async fn a_once_id_counts_for_one_stream_and_one_window(subject: Subject) {
    let room = Room::open(&subject).await;
    let first = append(&room, "s", "a", MODERATE).await;
    let elsewhere = append(&room, "t", "a", LONG).await;
    assert_eq!(append(&room, "s", "a", LONG).await, first, "which does not prolong the window");
    room.let_pass(MODERATE).await;
    let again = append(&room, "s", "a", LONG).await;
    assert!(again > first, "the window has ended");
    assert_eq!(append(&room, "s", "a", LONG).await, again, "and another has begun");
    assert_eq!(append(&room, "t", "a", LONG).await, elsewhere);
    assert_eq!((room.ids("s").await.len(), room.ids("t").await.len()), (2, 1));
}

pub(super) async fn a_once_id_vanishes_with_its_stream(subject: Subject) {
    let room = Room::open(&subject).await;
    let first = append(&room, "s", "a", LONG).await;
    room.commit(room.begin().destroy_stream("s")).await;
    let second = append(&room, "s", "a", LONG).await;
    assert!(second > first, "the stream was destroyed");
    let once = || Once::new("a", LONG);
    let both = room.begin().append_once("s", event(), once()).destroy_stream("s").append_once("s", event(), once());
    let committed = room.commit(both).await;
    assert_eq!(committed.event_id(0), second);
    assert!(committed.event_id(2) > second, "{committed:?}");
    for expiry in [Deadline::IfUnset(SHORT), Deadline::Renew(SHORT)] {
        let before = append(&room, "expiring", "a", LONG).await;
        room.commit(room.begin().expire_stream("expiring", expiry)).await;
        eventually("the stream is gone", async || {
            let info = done(room.backend.stream_info(&room.stream("expiring")).await);
            if info.is_none() { Ok(()) } else { Err(info) }
        })
        .await;
        room.append("expiring", "plain").await;
        assert!(append(&room, "expiring", "a", LONG).await > before, "the stream had expired");
        room.commit(room.begin().destroy_stream("expiring")).await;
    }
    let kept = append(&room, "kept", "a", LONG).await;
    room.commit(room.begin().expire_stream("kept", Deadline::Renew(MODERATE))).await;
    room.commit(room.begin().expire_stream("kept", Deadline::Never)).await;
    room.let_pass(MODERATE).await;
    assert_eq!(append(&room, "kept", "a", LONG).await, kept, "the deadline was taken back");
}

pub(super) async fn a_once_id_outlives_its_event(subject: Subject) {
    let room = Room::open(&subject).await;
    let first = append(&room, "s", "a", LONG).await;
    room.commit(room.begin().delete_events("s", first.into_iter().collect())).await;
    assert_eq!(append(&room, "s", "a", LONG).await, first);
    let second = append(&room, "s", "b", LONG).await;
    room.commit(room.begin().trim_stream("s", Trim::MaxLength { length: 0, approximate: false })).await;
    assert_eq!(append(&room, "s", "b", LONG).await, second);
    assert!(room.ids("s").await.is_empty());
}

pub(super) async fn simultaneous_appends_by_one_once_id_add_one_event(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.other_client().await;
    for round in 0..5 {
        let once = format!("o{round}");
        let appends = (0..20).map(|i| append(if i % 2 == 0 { &room } else { &other }, "s", &once, LONG));
        let mut ids = join_all(appends).await;
        ids.dedup();
        assert_eq!(ids.len(), 1, "{ids:?}");
    }
    assert_eq!(room.ids("s").await.len(), 5);
}

pub(super) async fn an_append_once_takes_part_in_its_transaction(subject: Subject) {
    let room = Room::open(&subject).await;
    let begin = || -> Transaction {
        let once = |id| Once::new(id, LONG);
        room.begin().append_once("s", event(), once("a")).append_once("s", event(), once("b")).add("m", "k", 1)
    };
    let refused = room.refused(begin().expect_present("m", "k")).await;
    assert!(refused.is_conflict(), "{refused:?}");
    let first = room.commit(begin().append_once("s", event(), Once::new("a", LONG))).await;
    assert_eq!(first.event_id(3), first.event_id(0), "writes see each other");
    assert!(first.event_id(1) > first.event_id(0));
    let second = room.commit(begin()).await;
    assert_eq!((second.event_id(0), second.event_id(1)), (first.event_id(0), first.event_id(1)));
    assert_eq!(second.counter(2), Some(2), "the other writes are made again");
    assert_eq!(room.ids("s").await.len(), 2);
}

pub(super) async fn many_once_ids_come_and_go(subject: Subject) {
    let room = Room::open(&subject).await;
    let append_all = async |window| {
        let all = (0..500).fold(room.begin(), |transaction, i| {
            transaction.append_once("s", event(), Once::new(format!("once-{i}"), window))
        });
        let committed = room.commit(all).await;
        (0..500).filter_map(|i| committed.event_id(i)).collect::<Vec<_>>()
    };
    let first = append_all(SHORT).await;
    assert!(first.is_sorted_by(|a, b| a < b) && first.len() == 500);
    room.let_pass(SHORT).await;
    let second = append_all(LONG).await;
    assert!(second[0] > first[499], "the windows had ended");
    assert_eq!(append_all(LONG).await, second);
    assert_eq!(room.ids("s").await.len(), 1000);
}
