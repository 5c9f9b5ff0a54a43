//! Dropped futures: nothing half done, nothing lost, nothing left behind.

use std::{future::Future, pin::pin, time::Duration};

use futures::{FutureExt, future::join_all};

use super::{
    Subject, eventually,
    room::{Room, WAIT, consumer, done, ids_of},
    soon,
};
use crate::{Acks, EventId, GroupInfo, NewEvent, PendingQuery};

/// Polls a future a few times, with chances for others between, and drops it unless it is done.
async fn poll_and_drop<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Some(done) = future.as_mut().now_or_never() {
            return Some(done);
        }
        tokio::task::yield_now().await;
    }
    None
}

pub(super) async fn a_dropped_commit_is_carried_out_whole_or_not_at_all(subject: Subject) {
    let room = Room::open(&subject).await;
    for round in 0..60_usize {
        let key = format!("{round}");
        let transaction = room
            .begin()
            .put("a", key.as_str(), "v")
            .put("b", key.as_str(), "v")
            .append("s", NewEvent::new(key.as_str(), "p"));
        poll_and_drop(room.backend.commit(transaction), round % 6).await;
    }
    // What was sent before the drop may arrive until now, but not for ever: everything after it is answered in order or
    // not, so wait until two looks agree.
    let look = async || (room.content("a").await, room.content("b").await, room.read("s").await);
    let mut last = look().await;
    let (a, b, events) = eventually("the dropped commits have come to rest", async || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = look().await;
        let rest = now == last;
        last = now.clone();
        if rest { Ok(now) } else { Err("still moving") }
    })
    .await;
    assert_eq!(a, b, "both maps have the same keys");
    let mut keys: Vec<String> =
        events.iter().filter_map(|entry| entry.event.as_ref().ok()).map(|event| event.name.to_string()).collect();
    keys.sort();
    assert_eq!(keys, a.into_keys().collect::<Vec<_>>(), "and the stream has an event for each");
    room.commit(room.begin().put("a", "after", "v")).await;
}

pub(super) async fn no_event_is_lost_by_a_dropped_read_of_a_group(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.other_client().await;
    let (stream, group, name) = (room.stream("s"), room.group("s", "g").await, consumer("c"));
    let total = 120;
    let append = async {
        let mut ids = Vec::new();
        for _ in 0..total / 3 {
            ids.extend(other.append_many("s", 3).await);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        ids
    };
    let read = async {
        let mut ids = Vec::new();
        let mut round = 0;
        while ids.len() < total {
            round += 1;
            let read = room.backend.group_read(&stream, &group, &name, 2, WAIT, Acks::Explicit);
            let deliveries = if round % 2 == 0 {
                poll_and_drop(read, round % 7).await
            } else {
                let patience = Duration::from_micros(300 * (round as u64 % 12));
                tokio::time::timeout(patience, read).await.ok()
            };
            for delivery in deliveries.into_iter().flat_map(done) {
                assert_eq!(delivery.deliveries, 1);
                ids.push(delivery.entry.id);
            }
        }
        ids
    };
    let (ids, read) = tokio::join!(append, soon("all events, in spite of the dropped reads", read));
    assert_eq!(read, ids, "each event came once and in order");
    let pending = done(room.backend.group_pending(&stream, &group, PendingQuery::new(1000)).await);
    assert_eq!(pending.into_iter().map(|pending| pending.id).collect::<Vec<_>>(), ids);
}

pub(super) async fn what_a_dropped_read_left_is_not_returned_once_another_took_it(subject: Subject) {
    let room = Room::open(&subject).await;
    let (stream, group, name) = (room.stream("s"), room.group("s", "g").await, consumer("c"));
    let ids = room.append_many("s", 3).await;
    let mut patience = Duration::ZERO;
    eventually("the events were handed out", async || {
        let read = room.backend.group_read(&stream, &group, &name, 10, Duration::ZERO, Acks::Explicit);
        let _ = tokio::time::timeout(patience, read).await;
        patience += Duration::from_millis(1);
        let pending = done(room.backend.group_pending(&stream, &group, PendingQuery::new(10)).await);
        if pending.len() == ids.len() { Ok(()) } else { Err(pending) }
    })
    .await;
    let claimed = done(room.backend.group_claim(&stream, &group, &consumer("other"), Duration::ZERO, 2).await);
    assert_eq!(ids_of(&claimed.deliveries), ids[..2]);
    room.commit(room.begin().ack("s", &group, vec![ids[0]])).await;
    let read = ids_of(&room.take("s", &group, "c", 10).await);
    assert!(!read.contains(&ids[0]), "it was acknowledged");
    assert!(!read.contains(&ids[1]), "it is with another consumer");
}

pub(super) async fn a_dropped_wait_of_one_consumer_takes_nothing_from_another(subject: Subject) {
    let room = Room::open(&subject).await;
    let (stream, group) = (room.stream("s"), room.group("s", "g").await);
    let mut returned: Vec<EventId> = Vec::new();
    for round in 0..10 {
        let gone = consumer("gone");
        let wait = room.backend.group_read(&stream, &group, &gone, 10, WAIT, Acks::Explicit);
        // It may begin with what was handed out for the wait before, which was dropped.
        if let Ok(deliveries) = tokio::time::timeout(Duration::from_millis(1 + round % 5), wait).await {
            returned.extend(ids_of(&done(deliveries)));
        }
        // The dropped wait ends promptly, so that at the latest after a moment events go to the one who still reads.
        let id = eventually("the living consumer gets an event", async || {
            let id = room.append("s", "e").await;
            let ids = ids_of(&room.take("s", &group, "alive", 10).await);
            if ids.contains(&id) { Ok(id) } else { Err(ids) }
        })
        .await;
        room.commit(room.begin().ack("s", &group, vec![id])).await;
    }
    returned.extend(ids_of(&room.take("s", &group, "gone", 100).await));
    let held =
        done(room.backend.group_pending(&stream, &group, PendingQuery::new(1000).of_consumer(consumer("gone"))).await);
    assert_eq!(returned, held.iter().map(|pending| pending.id).collect::<Vec<_>>(), "what went to it comes back to it");
}

pub(super) async fn hundreds_of_dropped_waits_leave_nothing_behind(subject: Subject) {
    let room = Room::open(&subject).await;
    let streams: Vec<_> = (0..200).map(|i| room.stream(&format!("s{i}"))).collect();
    let (busy, group) = (room.stream("busy"), room.group("busy", "g").await);
    for _ in 0..3 {
        let reads = streams.iter().map(|stream| room.backend.stream_read(stream, EventId::ZERO, 1, WAIT));
        let names: Vec<_> = (0..50).map(|i| consumer(&format!("c{i}"))).collect();
        let groups = names.iter().map(|name| room.backend.group_read(&busy, &group, name, 1, WAIT, Acks::Explicit));
        let all = async { tokio::join!(join_all(reads), join_all(groups)) };
        assert!(tokio::time::timeout(Duration::from_millis(20), all).await.is_err(), "nothing was appended");
    }
    let work = async {
        for i in 0..20 {
            room.commit(room.begin().put("m", format!("{i}"), "v")).await;
        }
        let id = room.append("s0", "e").await;
        let read = done(room.backend.stream_read(&streams[0], EventId::ZERO, 1, WAIT).await);
        assert_eq!(read.entries.first().map(|entry| entry.id), Some(id));
    };
    soon("the work after the dropped waits", work).await;
    let info: Option<GroupInfo> = done(room.backend.group_info(&busy, &group).await);
    assert_eq!(info.map(|info| info.pending), Some(0));
}

pub(super) async fn a_dropped_read_of_a_stream_loses_nothing(subject: Subject) {
    let room = Room::open(&subject).await;
    let stream = room.stream("s");
    let mut ids = Vec::new();
    let mut read: Vec<EventId> = Vec::new();
    for round in 0..30 {
        ids.push(room.append("s", "e").await);
        let after = read.last().copied().unwrap_or(EventId::ZERO);
        if let Some(found) = poll_and_drop(room.backend.stream_read(&stream, after, 10, WAIT), round % 5).await {
            read.extend(done(found).entries.into_iter().map(|entry| entry.id));
        }
    }
    while read.len() < ids.len() {
        let after = read.last().copied().unwrap_or(EventId::ZERO);
        read.extend(
            done(room.backend.stream_read(&stream, after, 10, WAIT).await).entries.into_iter().map(|entry| entry.id),
        );
    }
    assert_eq!(read, ids);
}
