//! What trims take from consumer groups before it was handed out.

use std::time::Duration;

use futures::future::join_all;

use super::{
    Subject, eventually,
    room::{LONG, MODERATE, Room, SHORT, done, valid},
};
use crate::{Deadline, EventId, Group, GroupStart, Missed, NewEvent, Trim};

fn exactly(length: u64) -> Trim {
    Trim::MaxLength { length, approximate: false }
}

async fn missed(room: &Room, stream: &str, group: &Group) -> Option<Missed> {
    done(room.backend.group_missed(&room.stream(stream), group).await)
}

pub(super) async fn a_trim_records_what_each_group_had_not_been_handed(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.other_client().await;
    let ids = room.append_many("s", 10).await;
    let [behind, between, fine, done_with_all, late] = ["behind", "between", "fine", "all", "late"].map(|name| name);
    let behind = room.group("s", behind).await;
    let between = room.group("s", between).await;
    let fine = room.group("s", fine).await;
    let all = room.group("s", done_with_all).await;
    for (group, count) in [(&between, 3), (&fine, 6), (&all, 10)] {
        room.take("s", group, "c", count).await;
    }
    room.commit(room.begin().trim_stream("s", exactly(4))).await;
    let late = room.group("s", late).await;
    let record = |after, events| Some(Missed::new(after, ids[6], Some(events)));
    assert_eq!(missed(&room, "s", &behind).await, record(EventId::ZERO, 6));
    assert_eq!(missed(&other, "s", &between).await, record(ids[2], 3));
    for group in [&behind, &between, &fine, &all, &late, &valid(Group::new("none"))] {
        assert_eq!(missed(&room, "s", group).await, None, "{group}: nothing, or taken already");
        assert_eq!(missed(&room, "none", group).await, None);
    }
    room.commit(room.begin().delete_events("s", ids[6..8].to_vec())).await;
    assert_eq!(missed(&room, "s", &behind).await, None, "a deletion is deliberate");
    room.commit(room.begin().trim_stream("s", exactly(1))).await;
    assert_eq!(missed(&room, "s", &behind).await, Some(Missed::new(EventId::ZERO, ids[9], Some(1))), "one was left");
    assert_eq!(missed(&room, "s", &all).await, None);
}

pub(super) async fn trims_that_follow_each_other_make_one_record(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 12).await;
    let group = room.group("s", "g").await;
    room.take("s", &group, "c", 2).await;
    for length in [9, 8] {
        room.commit(room.begin().trim_stream("s", exactly(length))).await;
    }
    room.take("s", &group, "c", 1).await;
    room.commit(room.begin().trim_stream("s", exactly(6)).trim_stream("s", exactly(5))).await;
    let record = Missed::new(ids[1], ids[7], Some(2 + 2));
    assert_eq!(missed(&room, "s", &group).await, Some(record), "what was handed out in between does not count");
    assert_eq!(missed(&room, "s", &group).await, None);
    room.commit(room.begin().trim_stream("s", exactly(4))).await;
    assert_eq!(missed(&room, "s", &group).await, Some(Missed::new(ids[4], ids[8], Some(1))), "a new one");
}

pub(super) async fn every_kind_of_trim_records_on_every_way(subject: Subject) {
    let room = Room::open(&subject).await;
    for alone in [true, false] {
        for kind in ["length", "id", "age", "consumed", "approximate"] {
            let stream = format!("{kind}-{alone}");
            let ids = room.append_many(&stream, 400).await;
            let group = room.group(&stream, "g").await;
            room.take(&stream, &group, "c", 150).await;
            let trim = match kind {
                "length" => exactly(100),
                "id" => Trim::Before { id: ids[300], approximate: false },
                "age" => {
                    room.let_pass(SHORT).await;
                    Trim::OlderThan { age: Duration::ZERO, approximate: false }
                }
                "consumed" => Trim::Consumed,
                _ => Trim::MaxLength { length: 100, approximate: true },
            };
            let begin =
                if alone { room.begin() } else { room.begin().append(stream.as_str(), NewEvent::new("e", "p")) };
            let committed = room.commit(begin.trim_stream(stream.as_str(), trim)).await;
            let dropped = committed.count(usize::from(!alone)).unwrap_or_default();
            let left = room.ids(&stream).await;
            let first = left.first().copied();
            // What is appended beside a trim by age may be too old for it by a millisecond.
            let last = committed.event_id(0).unwrap_or(ids[399]);
            let expected = match (dropped.saturating_sub(150), first) {
                (0, _) => None,
                (events, Some(first)) => Some(Missed::new(ids[149], first, Some(events))),
                (events, None) => Some(Missed::new(ids[149], last.next().unwrap_or_default(), Some(events))),
            };
            assert_eq!(missed(&room, &stream, &group).await, expected, "{stream}: {dropped} dropped");
            assert!(expected.is_some() || kind == "consumed" || kind == "approximate", "{stream}");
        }
    }
}

pub(super) async fn an_emptied_stream_records_up_to_the_next_event(subject: Subject) {
    let room = Room::open(&subject).await;
    let ids = room.append_many("s", 5).await;
    let group = room.group("s", "g").await;
    room.take("s", &group, "c", 3).await;
    room.commit(room.begin().trim_stream("s", exactly(0))).await;
    let record = Missed::new(ids[2], ids[4].next().unwrap_or_default(), Some(2));
    assert_eq!(missed(&room, "s", &group).await, Some(record));
    room.append("s", "e").await;
    room.take("s", &group, "c", 3).await;
    room.commit(room.begin().trim_stream("s", exactly(0))).await;
    assert_eq!(missed(&room, "s", &group).await, None);
    let future = valid(Group::new("future"));
    done(room.backend.group_create(&room.stream("s"), &future, GroupStart::After(EventId::MAX)).await);
    room.append_many("s", 3).await;
    room.commit(room.begin().trim_stream("s", exactly(0))).await;
    assert_eq!(missed(&room, "s", &future).await, None, "it waits for none of them");
    assert!(missed(&room, "s", &group).await.is_some());
}

pub(super) async fn a_record_ends_with_its_group_and_its_stream(subject: Subject) {
    let room = Room::open(&subject).await;
    let lose = async || {
        room.append_many("s", 5).await;
        let group = room.group("s", "g").await;
        room.commit(room.begin().trim_stream("s", exactly(1))).await;
        group
    };
    let group = lose().await;
    done(room.backend.group_destroy(&room.stream("s"), &group).await);
    assert_eq!(missed(&room, "s", &group).await, None);
    room.group("s", "g").await;
    assert_eq!(missed(&room, "s", &group).await, None);
    room.commit(room.begin().destroy_stream("s")).await;
    lose().await;
    room.commit(room.begin().destroy_stream("s")).await;
    assert_eq!(missed(&room, "s", &group).await, None);
    room.group("s", "g").await;
    assert_eq!(missed(&room, "s", &group).await, None);
    for expiry in ["before", "after"] {
        room.commit(room.begin().destroy_stream("s")).await;
        room.append_many("s", 5).await;
        room.group("s", "g").await;
        let trim = || room.begin().trim_stream("s", exactly(1));
        let expire = || room.begin().expire_stream("s", Deadline::Renew(MODERATE));
        for step in if expiry == "before" { [expire(), trim()] } else { [trim(), expire()] } {
            room.commit(step).await;
        }
        eventually("the stream is gone", async || {
            let info = done(room.backend.stream_info(&room.stream("s")).await);
            if info.is_none() { Ok(()) } else { Err(info) }
        })
        .await;
        room.group("s", "g").await;
        assert_eq!(missed(&room, "s", &group).await, None, "the stream expired, set {expiry} the trim");
    }
    room.commit(room.begin().destroy_stream("s")).await;
    let group = lose().await;
    room.commit(room.begin().expire_stream("s", Deadline::Renew(MODERATE))).await;
    room.commit(room.begin().expire_stream("s", Deadline::Renew(LONG))).await;
    room.let_pass(MODERATE).await;
    assert!(missed(&room, "s", &group).await.is_some(), "the stream lived on");
}

pub(super) async fn of_racing_callers_one_gets_the_record(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.other_client().await;
    room.append_many("s", 5).await;
    let group = room.group("s", "g").await;
    room.commit(room.begin().trim_stream("s", exactly(1))).await;
    let takes = (0..20).map(|i| missed(if i % 2 == 0 { &room } else { &other }, "s", &group));
    assert_eq!(join_all(takes).await.into_iter().flatten().count(), 1);
}

pub(super) async fn a_group_that_is_trimmed_past_again_and_again_loses_count_of_nothing(subject: Subject) {
    let room = Room::open(&subject).await;
    let group = room.group("s", "g").await;
    let (mut handed, mut lost, mut appended) = (0, 0, 0);
    for round in 0..30 {
        let batch = (0..7).fold(room.begin(), |batch, i| batch.append("s", NewEvent::new(format!("e{i}"), "p")));
        appended += 7;
        room.commit(batch.trim_stream("s", exactly(10))).await;
        handed += room.take("s", &group, "c", round % 9).await.len() as u64;
        let info = done(room.backend.group_info(&room.stream("s"), &group).await);
        let cursor = info.as_ref().map(|info| info.last_delivered);
        let left = room.ids("s").await.into_iter().filter(|id| Some(*id) > cursor).count() as u64;
        assert_eq!(info.and_then(|info| info.lag), Some(left), "the lag in round {round}");
        if round % 4 == 0 {
            lost += missed(&room, "s", &group).await.map_or(0, |missed| missed.events.unwrap_or_default());
        }
    }
    handed += room.take("s", &group, "c", 100).await.len() as u64;
    lost += missed(&room, "s", &group).await.map_or(0, |missed| missed.events.unwrap_or_default());
    assert!(lost > 0);
    assert_eq!(handed + lost, appended);
}
