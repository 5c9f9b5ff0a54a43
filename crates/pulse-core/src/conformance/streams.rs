//! Streams: appending, reading, trimming, ending.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;

use super::{
    Subject, eventually,
    room::{LONG, MODERATE, Room, SHORT, bytes, done},
};
use crate::{Deadline, EventId, Headers, NewEvent, Scope, StreamInfo, Transaction, Trim};

async fn info(room: &Room, stream: &str) -> Option<StreamInfo> {
    done(room.backend.stream_info(&room.stream(stream)).await)
}

pub(super) async fn an_event_comes_back_as_it_was_appended(subject: Subject) {
    let room = Room::open(&subject).await;
    let odd = Bytes::from_static(&[0, 0xff, 0x80, b'\n']);
    let headers: Headers =
        [("trace", odd.clone()), ("a", bytes("1")), ("a", bytes("2")), ("", Bytes::new())].into_iter().collect();
    let events = [
        NewEvent::new("plain", "payload"),
        NewEvent::new("empty", ""),
        NewEvent::new("", odd.clone()),
        NewEvent::new("name \0\n ü", odd).with_topic("topic \0\n ü"),
        NewEvent::new("empty topic", "p").with_topic(""),
        NewEvent::new("headers", "p").with_topic("t").with_headers(headers),
        NewEvent::new("large", vec![7; 100_000]).with_header("large", vec![8; 10_000]),
    ];
    for event in events {
        let id = room.commit(room.begin().append("s", event.clone())).await.event_id(0);
        let read = room.read("s").await;
        let Some(last) = read.last() else { panic!("{event:?} was appended") };
        assert_eq!(Some(last.id), id);
        assert_eq!(last.event, Ok(event.with_id(last.id)));
    }
}

pub(super) async fn ids_only_grow(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.other_client().await;
    let appends = (0..20).map(|i| if i % 2 == 0 { &room } else { &other }.append_many("s", 10));
    let mut ids: Vec<EventId> = Vec::new();
    for batch in join_all(appends).await {
        assert!(batch.is_sorted_by(|a, b| a < b), "the events of one transaction are in order: {batch:?}");
        ids.extend(batch);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 200);
    assert_eq!(room.ids("s").await, ids);
}

pub(super) async fn an_id_is_greater_than_those_of_a_destroyed_stream(subject: Subject) {
    let room = Room::open(&subject).await;
    let event = || NewEvent::new("e", "");
    let mut last = EventId::ZERO;
    for round in 0..20 {
        let began = room.append_many("s", 3).await;
        assert!(began[0] > last, "{} does not follow {last} of the stream before", began[0]);
        let destroyed = if round % 2 == 0 {
            let again = room.begin().append("s", event()).destroy_stream("s").append("s", event()).append("s", event());
            let committed = room.commit(again).await;
            let ids = [0, 2, 3].map(|index| committed.event_id(index));
            assert!(ids.is_sorted_by(|a, b| a < b) && ids[0] > Some(began[2]), "{began:?}, then {ids:?}");
            room.commit(room.begin().destroy_stream("s")).await;
            ids[2].unwrap_or_default()
        } else {
            room.commit(room.begin().destroy_stream("s")).await;
            began[2]
        };
        last = destroyed;
    }
}

pub(super) async fn an_id_is_greater_than_those_of_deleted_events(subject: Subject) {
    let room = Room::open(&subject).await;
    let mut last = EventId::ZERO;
    for _ in 0..20 {
        let id = room.append("s", "e").await;
        assert!(id > last, "{id} after {last}");
        last = id;
        room.commit(room.begin().delete_events("s", vec![id])).await;
        let id = room.append("s", "e").await;
        assert!(id > last, "{id} after {last}");
        last = id;
        room.commit(room.begin().trim_stream("s", Trim::MaxLength { length: 0, approximate: false })).await;
        assert!(room.ids("s").await.is_empty());
    }
}

pub(super) async fn a_read_begins_after_an_id_and_ends_at_its_limit(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 10).await;
    let read = async |after, limit| {
        let entries = done(room.backend.stream_read(&room.stream("s"), after, limit, Duration::ZERO).await).entries;
        entries.into_iter().map(|entry| entry.id).collect::<Vec<_>>()
    };
    assert_eq!(read(EventId::ZERO, 100).await, ids);
    assert_eq!(read(EventId::ZERO, 3).await, ids[..3]);
    assert_eq!(read(ids[2], 4).await, ids[3..7]);
    assert_eq!(read(ids[8], 100).await, ids[9..]);
    assert_eq!(read(ids[9], 100).await, []);
    assert_eq!(read(EventId::MAX, 100).await, []);
    assert_eq!(read(EventId::ZERO, 0).await, ids[..1], "a limit of 0 acts as 1");
    let between = EventId::new(ids[0].millis - 1, u64::MAX);
    assert_eq!(read(between, 100).await, ids, "any id will do, also one that no event has");
}

pub(super) async fn a_read_says_whether_the_entry_before_it_still_stands(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 10).await;
    let read = async |stream, after, limit| {
        let read = done(room.backend.stream_read(&room.stream(stream), after, limit, Duration::ZERO).await);
        (read.stands, read.entries.into_iter().map(|entry| entry.id).collect::<Vec<_>>())
    };
    assert_eq!(read("s", ids[3], 3).await, (true, ids[4..7].to_vec()), "the limit counts what comes after it");
    assert_eq!(read("s", ids[0], 100).await, (true, ids[1..].to_vec()));
    assert_eq!(read("s", ids[9], 1).await, (true, vec![]));
    assert_eq!(read("s", EventId::ZERO, 3).await, (false, ids[..3].to_vec()), "there is no such entry");
    assert_eq!(read("s", EventId::MAX, 3).await, (false, vec![]));
    assert_eq!(read("none", ids[0], 3).await, (false, vec![]));
    room.commit(room.begin().trim_stream("s", Trim::MaxLength { length: 5, approximate: false })).await;
    assert_eq!(read("s", ids[4], 2).await, (false, ids[5..7].to_vec()), "it was trimmed");
    assert_eq!(read("s", ids[5], 2).await, (true, ids[6..8].to_vec()), "the oldest that stayed");
    room.commit(room.begin().delete_events("s", vec![ids[7]])).await;
    assert_eq!(read("s", ids[7], 2).await, (false, ids[8..].to_vec()), "it was deleted");
    room.commit(room.begin().destroy_stream("s")).await;
    assert_eq!(read("s", ids[8], 2).await, (false, vec![]));
}

pub(super) async fn a_stream_that_does_not_exist_is_like_an_empty_one(subject: Subject) {
    let room = Room::open(&subject).await;
    assert!(room.read("none").await.is_empty());
    assert_eq!(info(&room, "none").await, None);
    let ids = vec![EventId::new(1, 1)];
    let group = super::room::valid(crate::Group::new("g"));
    let nothing = room
        .begin()
        .trim_stream("none", Trim::MaxLength { length: 0, approximate: false })
        .delete_events("none", ids.clone())
        .ack("none", &group, ids)
        .destroy_stream("none")
        .expire_stream("none", Deadline::Renew(LONG));
    let committed = room.commit(nothing).await;
    assert_eq!((0..4).map(|i| committed.count(i)).collect::<Vec<_>>(), [Some(0); 4]);
    assert_eq!(info(&room, "none").await, None, "none of this creates the stream");
}

pub(super) async fn a_stream_describes_itself(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 5).await;
    let fresh = StreamInfo { length: 5, appended: 5, first: Some(ids[0]), last: ids[4], ..StreamInfo::default() };
    assert_eq!(info(&room, "s").await, Some(fresh));
    room.group("s", "g").await;
    room.commit(room.begin().delete_events("s", vec![ids[4]])).await;
    let deleted = StreamInfo { length: 4, max_deleted: ids[4], groups: 1, ..fresh };
    assert_eq!(info(&room, "s").await, Some(deleted));
    room.commit(room.begin().trim_stream("s", Trim::MaxLength { length: 0, approximate: false })).await;
    assert_eq!(info(&room, "s").await, Some(StreamInfo { length: 0, first: None, ..deleted }));
    room.commit(room.begin().destroy_stream("s")).await;
    assert_eq!(info(&room, "s").await, None);
}

pub(super) async fn a_stream_describes_itself_with_its_groups(subject: Subject) {
    let room = Room::open(&subject).await;
    let detail = async |stream| done(room.backend.stream_detail(&room.stream(stream)).await);
    assert_eq!(detail("none").await, None);
    let ids = room.append_many("s", 10).await;
    let Some(plain) = detail("s").await else { panic!("the stream exists") };
    assert_eq!((Some(plain.info), plain.groups), (info(&room, "s").await, vec![]));
    room.commit(room.begin().append("s", NewEvent::new("large", vec![7; 100_000]))).await;
    let [b, a] = [room.group("s", "b").await, room.group("s", "a").await];
    room.take("s", &b, "y", 2).await;
    room.take("s", &b, "x", 1).await;
    room.commit(room.begin().ack("s", &b, vec![ids[0]])).await;
    let Some(detailed) = detail("s").await else { panic!("the stream exists") };
    assert_eq!(Some(detailed.info), info(&room, "s").await);
    assert!(detailed.bytes > plain.bytes && detailed.bytes > 100_000, "{} after {}", detailed.bytes, plain.bytes);
    let names: Vec<_> = detailed.groups.iter().map(|(name, _)| name).collect();
    assert_eq!(names, [&a, &b]);
    let [(_, idle), (_, busy)] = &detailed.groups[..] else { panic!("{detailed:?}") };
    assert_eq!((idle.last_delivered, idle.pending, idle.lag, idle.oldest_pending), (EventId::ZERO, 0, Some(11), None));
    assert_eq!((busy.last_delivered, busy.pending, busy.lag), (ids[2], 2, Some(8)));
    let consumers: Vec<_> = busy.consumers.iter().map(|consumer| (consumer.name.as_str(), consumer.pending)).collect();
    assert_eq!(consumers, [("x", 1), ("y", 1)]);
    let Some(found) = done(room.backend.group_info(&room.stream("s"), &b).await) else { panic!("{b} exists") };
    assert_eq!([busy.oldest_pending, found.oldest_pending], [Some(ids[1]); 2]);
    room.commit(room.begin().ack("s", &b, ids.clone())).await;
    let found = done(room.backend.group_info(&room.stream("s"), &b).await);
    assert_eq!(found.map(|found| (found.pending, found.oldest_pending)), Some((0, None)));
}

pub(super) async fn an_exact_trim_leaves_exactly_the_newest(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 300).await;
    let trim = |trim| room.begin().trim_stream("s", trim);
    let length = |length| Trim::MaxLength { length, approximate: false };
    assert_eq!(room.commit(trim(length(290))).await.count(0), Some(10));
    assert_eq!(room.ids("s").await, ids[10..]);
    assert_eq!(room.commit(trim(length(1000))).await.count(0), Some(0));
    let before = |id| Trim::Before { id, approximate: false };
    assert_eq!(room.commit(trim(before(ids[150]))).await.count(0), Some(140));
    assert_eq!(room.ids("s").await, ids[150..]);
    assert_eq!(room.commit(trim(before(EventId::ZERO))).await.count(0), Some(0));
    let after =
        StreamInfo { length: 150, appended: 300, first: Some(ids[150]), last: ids[299], ..StreamInfo::default() };
    assert_eq!(info(&room, "s").await, Some(after));
    assert_eq!(room.commit(trim(before(EventId::MAX))).await.count(0), Some(150));
    assert!(room.ids("s").await.is_empty());
}

pub(super) async fn an_approximate_trim_never_drops_too_much(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 1000).await;
    let trims = [
        (Trim::MaxLength { length: 900, approximate: true }, 900),
        (Trim::Before { id: ids[500], approximate: true }, 500),
        (Trim::MaxLength { length: 10, approximate: true }, 10),
    ];
    for (trim, stay) in trims {
        let before = room.ids("s").await;
        let committed = room.commit(room.begin().trim_stream("s", trim)).await;
        let left = room.ids("s").await;
        assert!(left.len() >= stay, "{trim:?} left {}", left.len());
        assert_eq!(left, ids[ids.len() - left.len()..], "the newest stay");
        assert_eq!(committed.count(0), Some((before.len() - left.len()) as u64), "{trim:?}");
    }
}

pub(super) async fn a_trim_by_age_drops_what_is_older(subject: Subject) {
    let room = Room::open(&subject).await;
    let trim = |age, approximate| room.begin().trim_stream("s", Trim::OlderThan { age, approximate });
    assert_eq!(room.commit(trim(SHORT, false)).await.count(0), Some(0), "there is no stream");
    let old = room.append_many("s", 300).await;
    room.let_pass(MODERATE).await;
    let new = room.append_many("s", 200).await;
    for age in [LONG, Duration::MAX] {
        assert_eq!(room.commit(trim(age, false)).await.count(0), Some(0));
    }
    let dropped = room.commit(trim(MODERATE, true)).await.count(0).unwrap_or_default();
    assert!(dropped <= old.len() as u64, "an approximate trim never drops too much: {dropped}");
    assert_eq!(room.commit(trim(MODERATE, false)).await.count(0), Some(old.len() as u64 - dropped));
    assert_eq!(room.ids("s").await, new);
    room.let_pass(SHORT).await;
    let event = room.begin().append("s", NewEvent::new("e", "p"));
    let committed = room.commit(event.trim_stream("s", Trim::OlderThan { age: SHORT, approximate: false })).await;
    assert_eq!(committed.count(1), Some(200));
    assert_eq!(
        room.ids("s").await.first().copied(),
        committed.event_id(0),
        "the event of this transaction is the youngest"
    );
}

pub(super) async fn a_trim_of_what_was_consumed_waits_for_every_group(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 10).await;
    let trim = async || room.commit(room.begin().trim_stream("s", Trim::Consumed)).await.count(0);
    let ack = |group, ids: &[EventId]| room.begin().ack("s", group, ids.to_vec());
    assert_eq!(room.commit(room.begin().trim_stream("none", Trim::Consumed)).await.count(0), Some(0));
    assert_eq!(trim().await, Some(0), "without groups nothing was consumed");
    let group = room.group("s", "g").await;
    assert_eq!(trim().await, Some(0), "nothing was handed out");
    room.take("s", &group, "c", 5).await;
    assert_eq!(trim().await, Some(0), "the oldest is pending");
    room.commit(ack(&group, &[ids[0], ids[1], ids[3]])).await;
    assert_eq!(trim().await, Some(2), "up to the oldest pending event");
    assert_eq!(room.ids("s").await, ids[2..]);
    let other = room.group("s", "other").await;
    room.commit(ack(&group, &[ids[2], ids[4]])).await;
    assert_eq!(trim().await, Some(0), "the other group has read nothing");
    room.take("s", &other, "c", 2).await;
    room.commit(ack(&other, &ids)).await;
    assert_eq!(trim().await, Some(2), "up to the cursor that is furthest behind");
    assert_eq!(room.ids("s").await, ids[4..]);
    for group in [&group, &other] {
        room.take("s", group, "c", 100).await;
        room.commit(ack(group, &ids)).await;
    }
    let last = room.begin().append("s", NewEvent::new("e", "p")).trim_stream("s", Trim::Consumed);
    let committed = room.commit(last).await;
    assert_eq!(committed.count(1), Some(6));
    assert_eq!(room.ids("s").await.first().copied(), committed.event_id(0));
    for group in [&group, &other] {
        done(room.backend.group_destroy(&room.stream("s"), group).await);
    }
    let end = crate::GroupStart::After(EventId::MAX);
    done(room.backend.group_create(&room.stream("s"), &group, end).await);
    assert_eq!(trim().await, Some(1), "a cursor at the very end needs nothing");
}

pub(super) async fn single_events_are_deleted_and_counted(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 5).await;
    let delete = |ids| room.begin().delete_events("s", ids);
    let strangers = vec![ids[1], EventId::new(1, 1), EventId::MAX, ids[3], ids[1]];
    assert_eq!(room.commit(delete(strangers)).await.count(0), Some(2));
    assert_eq!(room.ids("s").await, [ids[0], ids[2], ids[4]]);
    assert_eq!(room.commit(delete(vec![ids[1]])).await.count(0), Some(0));
    assert_eq!(room.commit(delete(Vec::new())).await.count(0), Some(0));
}

pub(super) async fn a_destroyed_stream_is_gone_with_its_groups(subject: Subject) {
    let room = Room::open(&subject).await;
    room.append_many("s", 3).await;
    let group = room.group("s", "g").await;
    assert_eq!(room.commit(room.begin().destroy_stream("s")).await.count(0), Some(3));
    assert_eq!(info(&room, "s").await, None);
    assert_eq!(done(room.backend.group_info(&room.stream("s"), &group).await), None);
    room.append("s", "e").await;
    assert_eq!(info(&room, "s").await.map(|info| (info.length, info.appended, info.groups)), Some((1, 1, 0)));
}

pub(super) async fn a_stream_expires_by_itself(subject: Subject) {
    let room = Room::open(&subject).await;
    // Before or after the append that creates it: what counts is the state after all writes.
    let before = |t: Transaction| t.expire_stream("a", Deadline::IfUnset(SHORT)).append("a", NewEvent::new("e", "p"));
    let after = |t: Transaction| t.append("b", NewEvent::new("e", "p")).expire_stream("b", Deadline::Renew(SHORT));
    room.commit(after(before(room.begin()))).await;
    room.commit(room.begin().append("c", NewEvent::new("e", "p")).expire_stream("c", Deadline::IfUnset(MODERATE)))
        .await;
    // An absolute lifetime is not prolonged.
    room.commit(room.begin().append("c", NewEvent::new("e", "p")).expire_stream("c", Deadline::IfUnset(LONG))).await;
    for stream in ["a", "b", "c"] {
        eventually("the stream is gone", async || match info(&room, stream).await {
            None => Ok(()),
            Some(info) => Err((stream, info)),
        })
        .await;
        assert!(room.read(stream).await.is_empty());
        assert!(!room.holds(room.begin().expect_stream(stream)).await);
    }
}

pub(super) async fn the_expiry_of_a_stream_is_renewed_and_taken_back(subject: Subject) {
    let room = Room::open(&subject).await;
    for stream in ["renewed", "kept", "destroyed"] {
        let append = room.begin().append(stream, NewEvent::new("e", "p"));
        room.commit(append.expire_stream(stream, Deadline::Renew(MODERATE))).await;
    }
    room.commit(room.begin().expire_stream("renewed", Deadline::Renew(LONG))).await;
    room.commit(room.begin().expire_stream("kept", Deadline::Never)).await;
    room.commit(room.begin().destroy_stream("destroyed").append("destroyed", NewEvent::new("e", "p"))).await;
    room.let_pass(MODERATE * 5 / 4).await;
    for stream in ["renewed", "kept", "destroyed"] {
        assert!(info(&room, stream).await.is_some(), "{stream} is still there");
    }
}

pub(super) async fn all_clients_give_the_server_the_same_name(subject: Subject) {
    let room = Room::open(&subject).await;
    let run = done(room.backend.server_run(&room.scope).await);
    let other = room.other_client().await;
    room.append("s", "e").await;
    assert_eq!(done(other.backend.server_run(&room.scope).await), run, "nothing happened to the server");
    // A backend that cannot tell says so to everybody.
    assert!(run.is_none_or(|run| !run.is_empty()));
}

pub(super) async fn the_clock_of_the_backend_goes_on(subject: Subject) {
    let room = Room::open(&subject).await;
    let time = async || done(room.backend.server_time(&room.scope).await);
    let start = time().await;
    let id = room.append("s", "e").await;
    let end = time().await;
    assert!(start.0 <= id.millis && id.millis <= end.0, "event ids are read off it: {start:?} {id} {end:?}");
    room.let_pass(SHORT).await;
    let another = super::room::valid(Scope::new(format!("{}-other", room.scope)));
    assert!(done(room.backend.server_time(&another).await).0 > 0, "each scope has a clock");
}
