//! Calls that wait: they begin and end with what they wait for.

use std::time::Duration;

use futures::future::join_all;

use super::{
    Subject,
    room::{Room, WAIT, consumer, done, ids_of},
    soon,
};
use crate::{Acks, Error, EventId, GroupStart};

/// Gives what was started a chance to reach its wait. Nothing depends on whether it did.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

pub(super) async fn a_read_ends_empty_when_nothing_comes(subject: Subject) {
    let room = Room::open(&subject).await;
    room.append("s", "e").await;
    let group = room.group("s", "g").await;
    room.take("s", &group, "c", 10).await;
    let (stream, wait) = (room.stream("s"), Duration::from_millis(30));
    let read = room.backend.stream_read(&stream, EventId::MAX, 10, wait);
    assert!(done(soon("the read", read).await).entries.is_empty());
    let name = consumer("c");
    let read = room.backend.group_read(&stream, &group, &name, 10, wait, Acks::Explicit);
    assert!(done(soon("the read of the group", read).await).is_empty());
    let none = room.stream("none");
    let read = room.backend.stream_read(&none, EventId::ZERO, 10, wait);
    assert!(done(soon("the read of no stream", read).await).entries.is_empty());
}

pub(super) async fn a_waiting_read_gets_what_is_appended(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.other_client().await;
    let stream = room.stream("s");
    let mut after = EventId::ZERO;
    for round in 0..10 {
        let read = room.backend.stream_read(&stream, after, 10, WAIT);
        let append = async {
            if round % 2 == 0 {
                settle().await;
            }
            if round % 3 == 0 { &room } else { &other }.append("s", "e").await
        };
        let (entries, id) = tokio::join!(soon("the appended event", read), append);
        assert_eq!(done(entries).entries.into_iter().map(|entry| entry.id).collect::<Vec<_>>(), [id]);
        after = id;
    }
}

pub(super) async fn every_waiting_reader_gets_every_event(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.other_client().await;
    let stream = room.stream("s");
    let readers = (0..20).map(|i| {
        let backend = if i % 2 == 0 { &room.backend } else { &other.backend };
        let stream = &stream;
        async move {
            let mut ids: Vec<EventId> = Vec::new();
            while ids.len() < 30 {
                let after = ids.last().copied().unwrap_or(EventId::ZERO);
                let entries = done(soon("the next events", backend.stream_read(stream, after, 7, WAIT)).await).entries;
                ids.extend(entries.into_iter().map(|entry| entry.id));
            }
            ids
        }
    });
    let append = async {
        let mut ids = Vec::new();
        for _ in 0..10 {
            ids.extend(room.append_many("s", 3).await);
            tokio::task::yield_now().await;
        }
        ids
    };
    let (read, ids) = tokio::join!(join_all(readers), append);
    assert!(read.iter().all(|read| *read == ids), "each reader got every event once and in order");
}

pub(super) async fn a_waiting_consumer_gets_what_is_appended(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.other_client().await;
    let stream = room.stream("s");
    let group = room.group("s", "g").await;
    for round in 0..10 {
        let name = consumer("c");
        let read = room.backend.group_read(&stream, &group, &name, 10, WAIT, Acks::Explicit);
        let append = async {
            if round % 2 == 0 {
                settle().await;
            }
            if round % 3 == 0 { &room } else { &other }.append("s", "e").await
        };
        let (deliveries, id) = tokio::join!(soon("the appended event", read), append);
        assert_eq!(ids_of(&done(deliveries)), [id]);
    }
}

pub(super) async fn each_event_goes_to_one_waiting_consumer(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.other_client().await;
    let stream = room.stream("s");
    let group = room.group("s", "g").await;
    let total = 60;
    let stop = tokio_util::sync::CancellationToken::new();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let consumers = (0..6).map(|i| {
        let backend = if i % 2 == 0 { &room.backend } else { &other.backend };
        let (name, sender, stop) = (consumer(&format!("c{i}")), sender.clone(), &stop);
        let (stream, group) = (&stream, &group);
        async move {
            loop {
                let read = backend.group_read(stream, group, &name, 3, WAIT, Acks::Explicit);
                let deliveries = tokio::select! {
                    () = stop.cancelled() => return,
                    deliveries = read => done(deliveries),
                };
                for delivery in deliveries {
                    assert_eq!(delivery.deliveries, 1);
                    assert!(sender.send(delivery.entry.id).is_ok(), "the collector listens");
                }
            }
        }
    });
    let append = async {
        let mut ids = Vec::new();
        while ids.len() < total {
            ids.extend(room.append_many("s", 4).await);
            tokio::task::yield_now().await;
        }
        ids
    };
    let collect = async {
        let mut ids = Vec::new();
        while ids.len() < total {
            ids.extend(soon("the next delivery", receiver.recv()).await);
        }
        stop.cancel();
        ids
    };
    let (_, ids, mut delivered) = tokio::join!(join_all(consumers), append, collect);
    delivered.sort();
    assert_eq!(delivered, ids, "each event was delivered once");
}

pub(super) async fn a_waiting_consumer_learns_that_its_group_is_gone(subject: Subject) {
    let room = Room::open(&subject).await;
    let stream = room.stream("s");
    let no_group = |result: Result<_, Error>| match result {
        Err(Error::NoGroup { stream: named, group }) => {
            assert_eq!((&named, group.as_str()), (&stream, "g"), "the error names the group");
        }
        other => panic!("expected that there is no such group, got {other:?}"),
    };
    for way in ["group", "stream"] {
        let group = room.group("s", "g").await;
        let name = consumer("c");
        let read = room.backend.group_read(&stream, &group, &name, 10, WAIT, Acks::Explicit);
        let end = async {
            settle().await;
            if way == "group" {
                assert!(done(room.backend.group_destroy(&stream, &group).await));
            } else {
                room.commit(room.begin().destroy_stream("s")).await;
            }
        };
        let (result, ()) = tokio::join!(soon("the end of the wait", read), end);
        no_group(result);
    }
    let never = super::room::valid(crate::Group::new("g"));
    no_group(room.backend.group_read(&stream, &never, &consumer("c"), 1, Duration::ZERO, Acks::Explicit).await);
    no_group(
        soon("the answer", room.backend.group_read(&stream, &never, &consumer("c"), 1, WAIT, Acks::Explicit)).await,
    );
}

pub(super) async fn waiting_reads_do_not_hold_up_other_calls(subject: Subject) {
    let room = Room::open(&subject).await;
    let streams: Vec<_> = (0..50).map(|i| room.stream(&format!("s{i}"))).collect();
    let (idle, group) = (room.stream("idle"), room.group("idle", "g").await);
    let waiting = async {
        let reads = streams.iter().map(|stream| room.backend.stream_read(stream, EventId::ZERO, 1, WAIT));
        let name = consumer("c");
        tokio::join!(join_all(reads), room.backend.group_read(&idle, &group, &name, 1, WAIT, Acks::Explicit))
    };
    let working = async {
        settle().await;
        for i in 0..50 {
            room.commit(room.begin().put("m", format!("{i}"), "v")).await;
        }
        room.content("m").await.len()
    };
    tokio::select! {
        (reads, read) = waiting => panic!("nothing was appended, but a wait ended: {reads:?} {read:?}"),
        entries = soon("the work beside the waits", working) => assert_eq!(entries, 50),
    }
}

pub(super) async fn hundreds_of_waits_are_served_side_by_side(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.other_client().await;
    let streams: Vec<_> = (0..300).map(|i| room.stream(&format!("s{i}"))).collect();
    let reads = streams.iter().map(|stream| room.backend.stream_read(stream, EventId::ZERO, 1, WAIT));
    let append = async {
        settle().await;
        let append =
            (0..300).fold(other.begin(), |append, i| append.append(format!("s{i}"), crate::NewEvent::new("e", "p")));
        other.commit(append).await
    };
    let (entries, committed) = tokio::join!(soon("all the events", join_all(reads)), append);
    for (i, entries) in entries.into_iter().enumerate() {
        let ids: Vec<_> = done(entries).entries.into_iter().map(|entry| entry.id).collect();
        assert_eq!(Some(ids), committed.event_id(i).map(|id| vec![id]), "stream {i}");
    }
}

pub(super) async fn consumers_of_many_groups_wait_side_by_side(subject: Subject) {
    let room = Room::open(&subject).await;
    let stream = room.stream("s");
    let names: Vec<_> = (0..40).map(|i| super::room::valid(crate::Group::new(format!("g{i}")))).collect();
    for group in &names {
        assert!(done(room.backend.group_create(&stream, group, GroupStart::Newest).await));
    }
    let name = consumer("c");
    let reads = names.iter().map(|group| room.backend.group_read(&stream, group, &name, 10, WAIT, Acks::Explicit));
    let append = async {
        settle().await;
        room.append("s", "e").await
    };
    let (read, id) = tokio::join!(soon("the event in every group", join_all(reads)), append);
    for deliveries in read {
        assert_eq!(ids_of(&done(deliveries)), [id]);
    }
}
