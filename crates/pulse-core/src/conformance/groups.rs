//! Consumer groups: one cursor, each event handed out once, pending until acknowledged.

use std::time::Duration;

use super::{
    Subject,
    room::{Room, WAIT, consumer, done, ids_of, valid},
    soon,
};
use crate::{Acks, Error, EventId, Group, GroupInfo, GroupStart, NewEvent, PendingQuery, Trim};

async fn info(room: &Room, stream: &str, group: &Group) -> GroupInfo {
    match done(room.backend.group_info(&room.stream(stream), group).await) {
        Some(info) => info,
        None => panic!("{group} of {stream} exists"),
    }
}

async fn pending(room: &Room, stream: &str, group: &Group, query: PendingQuery) -> Vec<EventId> {
    let pending = done(room.backend.group_pending(&room.stream(stream), group, query).await);
    pending.into_iter().map(|pending| pending.id).collect()
}

pub(super) async fn a_group_starts_where_it_was_told(subject: Subject) {
    let room = Room::open(&subject).await;
    let stream = room.stream("s");
    let old = room.append_many("s", 4).await;
    let starts = [
        ("newest", GroupStart::Newest, &[][..]),
        ("oldest", GroupStart::Oldest, &old[..]),
        ("after", GroupStart::After(old[1]), &old[2..]),
        ("zero", GroupStart::After(EventId::ZERO), &old[..]),
    ];
    let mut groups = Vec::new();
    for (name, start, expected) in starts {
        let group = valid(Group::new(name));
        assert!(done(room.backend.group_create(&stream, &group, start).await), "{name} is new");
        groups.push((group, expected));
    }
    let new = room.append("s", "new").await;
    for (group, expected) in groups {
        let mut expected = expected.to_vec();
        expected.push(new);
        assert_eq!(ids_of(&room.take("s", &group, "c", 100).await), expected, "{group}");
    }
}

pub(super) async fn creating_a_group_creates_its_stream(subject: Subject) {
    let room = Room::open(&subject).await;
    for (name, start) in [("a", GroupStart::Newest), ("b", GroupStart::Oldest), ("c", GroupStart::After(EventId::ZERO))]
    {
        let group = valid(Group::new("g"));
        assert!(done(room.backend.group_create(&room.stream(name), &group, start).await));
        assert!(room.holds(room.begin().expect_stream(name).expect_shorter_than(name, 1)).await);
        let id = room.append(name, "e").await;
        assert_eq!(ids_of(&room.take(name, &group, "c", 10).await), [id]);
    }
}

pub(super) async fn creating_a_group_again_leaves_its_cursor_alone(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 4).await;
    let group = room.group("s", "g").await;
    room.take("s", &group, "c", 2).await;
    for start in [GroupStart::Oldest, GroupStart::Newest, GroupStart::After(ids[3])] {
        assert!(!done(room.backend.group_create(&room.stream("s"), &group, start).await), "it exists");
    }
    assert_eq!(ids_of(&room.take("s", &group, "c", 10).await), ids[2..]);
}

pub(super) async fn each_event_is_handed_out_once(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 10).await;
    let group = room.group("s", "g").await;
    let first = room.take("s", &group, "a", 3).await;
    assert_eq!(ids_of(&first), ids[..3]);
    assert!(first.iter().all(|delivery| delivery.deliveries == 1 && delivery.entry.event.is_ok()), "{first:?}");
    assert_eq!(ids_of(&room.take("s", &group, "b", 4).await), ids[3..7]);
    assert_eq!(ids_of(&room.take("s", &group, "a", 0).await), ids[7..8], "a limit of 0 acts as 1");
    assert_eq!(ids_of(&room.take("s", &group, "a", 100).await), ids[8..]);
    assert!(room.take("s", &group, "b", 100).await.is_empty());
    let other = room.group("s", "other").await;
    assert_eq!(ids_of(&room.take("s", &other, "a", 100).await), ids, "each group has its own cursor");
}

pub(super) async fn what_is_handed_out_without_acknowledgement_is_never_pending(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 10).await;
    let (stream, group, name) = (room.stream("s"), room.group("s", "g").await, consumer("c"));
    let take =
        async |limit, acks| done(room.backend.group_read(&stream, &group, &name, limit, Duration::ZERO, acks).await);
    let first = take(4, Acks::None).await;
    assert_eq!(ids_of(&first), ids[..4]);
    assert!(first.iter().all(|delivery| delivery.deliveries == 1 && delivery.entry.event.is_ok()), "{first:?}");
    assert_eq!(pending(&room, "s", &group, PendingQuery::new(100)).await, []);
    assert_eq!(ids_of(&take(2, Acks::Explicit).await), ids[4..6], "the cursor is one and the same");
    assert_eq!(ids_of(&take(100, Acks::None).await), ids[6..]);
    assert!(take(100, Acks::None).await.is_empty());
    assert_eq!(pending(&room, "s", &group, PendingQuery::new(100)).await, ids[4..6]);
    let now = info(&room, "s", &group).await;
    assert_eq!((now.last_delivered, now.pending, now.lag), (ids[9], 2, Some(0)));
    assert_eq!(room.commit(room.begin().ack("s", &group, ids.clone())).await.count(0), Some(2));
    let none = valid(Group::new("none"));
    let answer = room.backend.group_read(&stream, &none, &name, 1, Duration::ZERO, Acks::None).await;
    assert!(matches!(answer, Err(Error::NoGroup { .. })), "{answer:?}");
}

pub(super) async fn a_waiting_consumer_that_does_not_acknowledge_gets_what_is_appended(subject: Subject) {
    let room = Room::open(&subject).await;
    let (stream, group, name) = (room.stream("s"), room.group("s", "g").await, consumer("c"));
    for _ in 0..5 {
        let read = room.backend.group_read(&stream, &group, &name, 10, WAIT, Acks::None);
        let (read, id) = tokio::join!(soon("the event", read), room.append("s", "e"));
        assert_eq!(ids_of(&done(read)), [id]);
    }
    assert_eq!(pending(&room, "s", &group, PendingQuery::new(100)).await, []);
}

pub(super) async fn the_cursor_passes_deleted_events(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 6).await;
    let group = room.group("s", "g").await;
    room.commit(room.begin().delete_events("s", vec![ids[0], ids[3]])).await;
    assert_eq!(ids_of(&room.take("s", &group, "c", 3).await), [ids[1], ids[2], ids[4]]);
    assert_eq!(ids_of(&room.take("s", &group, "c", 3).await), [ids[5]]);
}

pub(super) async fn an_event_is_pending_until_it_is_acknowledged(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 5).await;
    let group = room.group("s", "g").await;
    room.take("s", &group, "a", 3).await;
    room.take("s", &group, "b", 2).await;
    let all = || PendingQuery::new(100);
    assert_eq!(pending(&room, "s", &group, all()).await, ids);
    let ack = |ids: &[EventId]| room.begin().ack("s", &group, ids.to_vec());
    assert_eq!(room.commit(ack(&ids[1..3])).await.count(0), Some(2));
    assert_eq!(pending(&room, "s", &group, all()).await, [ids[0], ids[3], ids[4]]);
    let strangers = [ids[1], EventId::MAX, EventId::new(1, 1), ids[0], ids[0]];
    assert_eq!(room.commit(ack(&strangers)).await.count(0), Some(1), "only one of them was pending");
    assert_eq!(room.commit(ack(&[])).await.count(0), Some(0));
    assert_eq!(room.commit(ack(&ids)).await.count(0), Some(2));
    assert_eq!(pending(&room, "s", &group, all()).await, []);
    assert_eq!(room.ids("s").await, ids, "an acknowledged event stays in the stream");
    let claimed = room.backend.group_claim(&room.stream("s"), &group, &consumer("c"), Duration::ZERO, 100).await;
    assert!(done(claimed).deliveries.is_empty(), "and is never handed out again");
}

pub(super) async fn acknowledging_for_nobody_is_ignored(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 2).await;
    let group = room.group("s", "g").await;
    room.take("s", &group, "c", 10).await;
    let none = valid(Group::new("none"));
    let acks = room.begin().ack("s", &none, ids.clone()).ack("none", &group, ids.clone()).ack("s", &group, ids);
    let committed = room.commit(acks).await;
    assert_eq!([committed.count(0), committed.count(1), committed.count(2)], [Some(0), Some(0), Some(2)]);
    assert_eq!(done(room.backend.stream_info(&room.stream("none")).await), None);
}

pub(super) async fn an_event_is_acknowledged_appended_and_recorded_in_one_transaction(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("in", 1).await;
    let group = room.group("in", "g").await;
    room.take("in", &group, "c", 1).await;
    let step = |expected: &'static str| {
        room.begin()
            .expect_equals("state", "k", expected)
            .ack("in", &group, ids.clone())
            .append("out", NewEvent::new("done", "p"))
            .put("state", "k", "after")
    };
    room.commit(room.begin().put("state", "k", "before")).await;
    assert!(room.refused(step("wrong")).await.is_conflict());
    assert_eq!(pending(&room, "in", &group, PendingQuery::new(10)).await, ids, "nothing happened");
    assert!(room.ids("out").await.is_empty());
    room.commit(step("before")).await;
    assert_eq!(pending(&room, "in", &group, PendingQuery::new(10)).await, []);
    assert_eq!(room.ids("out").await.len(), 1);
}

pub(super) async fn pending_events_are_listed_as_asked(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 6).await;
    let group = room.group("s", "g").await;
    for (name, limit) in [("a", 2), ("b", 2), ("a", 2)] {
        room.take("s", &group, name, limit).await;
    }
    let a = PendingQuery::new(100).of_consumer(consumer("a"));
    assert_eq!(pending(&room, "s", &group, a.clone()).await, [ids[0], ids[1], ids[4], ids[5]]);
    assert_eq!(pending(&room, "s", &group, a.after(ids[1])).await, [ids[4], ids[5]]);
    assert_eq!(pending(&room, "s", &group, PendingQuery::new(3)).await, ids[..3]);
    assert_eq!(pending(&room, "s", &group, PendingQuery::new(0)).await, ids[..1], "a limit of 0 acts as 1");
    assert_eq!(pending(&room, "s", &group, PendingQuery::new(2).after(ids[2])).await, ids[3..5]);
    assert_eq!(pending(&room, "s", &group, PendingQuery::new(9).after(ids[5])).await, []);
    assert_eq!(pending(&room, "s", &group, PendingQuery::new(9).after(EventId::MAX)).await, []);
    assert_eq!(pending(&room, "s", &group, PendingQuery::new(9).of_consumer(consumer("none"))).await, []);
    let hour = Duration::from_secs(3600);
    assert_eq!(pending(&room, "s", &group, PendingQuery::new(9).idle_for(hour)).await, []);
    let set = room.backend.group_set_idle(&room.stream("s"), &group, &consumer("b"), &ids, hour * 2).await;
    assert_eq!(done(set), ids[2..4]);
    let idle = PendingQuery::new(9).idle_for(hour);
    let listed = done(room.backend.group_pending(&room.stream("s"), &group, idle).await);
    assert_eq!(listed.iter().map(|pending| pending.id).collect::<Vec<_>>(), ids[2..4]);
    for pending in listed {
        assert_eq!((pending.consumer.as_str(), pending.deliveries), ("b", 1));
        assert!(pending.idle >= hour * 2 && pending.idle < hour * 3, "{:?}", pending.idle);
    }
}

pub(super) async fn a_group_describes_itself(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 5).await;
    let group = room.group("s", "g").await;
    let fresh = info(&room, "s", &group).await;
    assert_eq!((fresh.last_delivered, fresh.pending, fresh.lag), (EventId::ZERO, 0, Some(5)));
    assert!(fresh.consumers.is_empty());
    room.take("s", &group, "b", 2).await;
    room.take("s", &group, "a", 1).await;
    room.commit(room.begin().ack("s", &group, vec![ids[0]])).await;
    let now = info(&room, "s", &group).await;
    assert_eq!((now.last_delivered, now.pending, now.lag), (ids[2], 2, Some(2)));
    let consumers: Vec<_> = now.consumers.iter().map(|consumer| (consumer.name.as_str(), consumer.pending)).collect();
    assert_eq!(consumers, [("a", 1), ("b", 1)]);
    assert!(now.consumers.iter().all(|consumer| consumer.idle < Duration::from_secs(600)), "{now:?}");
    room.take("s", &group, "a", 100).await;
    assert_eq!(info(&room, "s", &group).await.lag, Some(0));
    let none = valid(Group::new("none"));
    assert_eq!(done(room.backend.group_info(&room.stream("s"), &none).await), None);
    assert_eq!(done(room.backend.group_info(&room.stream("none"), &group).await), None);
}

pub(super) async fn a_consumer_exists_from_its_first_event_on(subject: Subject) {
    let room = Room::open(&subject).await;
    let group = room.group("s", "g").await;
    room.take("s", &group, "c", 10).await;
    room.append("s", "e").await;
    room.take("s", &group, "c", 10).await;
    let consumers = info(&room, "s", &group).await.consumers;
    let consumers: Vec<_> = consumers.iter().map(|consumer| (consumer.name.as_str(), consumer.pending)).collect();
    assert_eq!(consumers, [("c", 1)]);
}

pub(super) async fn a_consumer_is_removed_only_without_pending_events(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 2).await;
    let (stream, group) = (room.stream("s"), room.group("s", "g").await);
    room.take("s", &group, "a", 1).await;
    room.take("s", &group, "b", 1).await;
    let remove = async |name| done(room.backend.group_remove_consumer(&stream, &group, &consumer(name)).await);
    assert!(!remove("a").await, "it has a pending event");
    assert_eq!(pending(&room, "s", &group, PendingQuery::new(9)).await, ids);
    room.commit(room.begin().ack("s", &group, vec![ids[0]])).await;
    assert!(remove("a").await);
    assert!(remove("a").await, "it is gone");
    assert!(remove("never").await, "it never was");
    let left = info(&room, "s", &group).await.consumers;
    assert_eq!(left.iter().map(|consumer| consumer.name.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(pending(&room, "s", &group, PendingQuery::new(9)).await, ids[1..]);
}

pub(super) async fn a_destroyed_group_is_gone_with_its_pending_events(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 2).await;
    let stream = room.stream("s");
    let group = room.group("s", "g").await;
    room.take("s", &group, "c", 10).await;
    assert!(done(room.backend.group_destroy(&stream, &group).await));
    assert!(!done(room.backend.group_destroy(&stream, &group).await), "it is gone");
    assert!(!done(room.backend.group_destroy(&room.stream("none"), &group).await), "its stream never was");
    assert_eq!(room.commit(room.begin().ack("s", &group, ids.clone())).await.count(0), Some(0));
    assert_eq!(room.ids("s").await, ids, "the events stay");
    room.group("s", "g").await;
    assert_eq!(pending(&room, "s", &group, PendingQuery::new(9)).await, []);
}

pub(super) async fn every_call_on_a_group_that_is_not_there_says_so(subject: Subject) {
    let room = Room::open(&subject).await;
    room.append("s", "e").await;
    room.group("s", "other").await;
    let (group, name, ids) = (valid(Group::new("none")), consumer("c"), [EventId::new(1, 1)]);
    for stream in [room.stream("s"), room.stream("none")] {
        let backend = &room.backend;
        let answers = [
            backend.group_read(&stream, &group, &name, 1, Duration::ZERO, Acks::Explicit).await.err(),
            backend.group_claim(&stream, &group, &name, Duration::ZERO, 1).await.err(),
            backend.group_set_idle(&stream, &group, &name, &ids, Duration::ZERO).await.err(),
            backend.group_pending(&stream, &group, PendingQuery::new(1)).await.err(),
            backend.group_remove_consumer(&stream, &group, &name).await.err(),
        ];
        for (call, answer) in answers.into_iter().enumerate() {
            let Some(Error::NoGroup { stream: named, group: also }) = &answer else {
                panic!("call {call}: {answer:?}")
            };
            assert_eq!((named, also), (&stream, &group));
        }
    }
    assert_eq!(done(room.backend.stream_info(&room.stream("none")).await), None, "none of this creates the stream");
}

pub(super) async fn groups_and_consumers_may_have_any_name(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 1).await;
    for name in [" ", "\n", "\0", "$", ">", "{g}", "日本", "GROUP", "*"] {
        let group = room.group("s", name).await;
        assert_eq!(ids_of(&room.take("s", &group, name, 10).await), ids, "{name:?}");
        assert_eq!(pending(&room, "s", &group, PendingQuery::new(9).of_consumer(consumer(name))).await, ids);
        assert_eq!(info(&room, "s", &group).await.consumers[0].name.as_str(), name);
        assert_eq!(room.commit(room.begin().ack("s", &group, ids.clone())).await.count(0), Some(1));
    }
}

pub(super) async fn trimmed_events_that_were_not_handed_out_never_come(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 10).await;
    let group = room.group("s", "g").await;
    room.take("s", &group, "c", 2).await;
    room.commit(room.begin().trim_stream("s", Trim::MaxLength { length: 3, approximate: false })).await;
    assert_eq!(ids_of(&room.take("s", &group, "c", 100).await), ids[7..]);
}
