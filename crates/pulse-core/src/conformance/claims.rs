//! Taking over what others left pending.

use std::time::Duration;

use super::{
    Subject, eventually,
    room::{LONG, Room, SHORT, consumer, done, ids_of},
};
use crate::{Claimed, EventId, Group, PendingQuery, Trim};

/// A stream `s` whose events are all pending for consumer `a` of group `g`.
async fn pending(subject: &Subject, count: usize) -> (Room, Group, Vec<EventId>) {
    let room = Room::open(subject).await;
    let ids = room.append_many("s", count).await;
    let group = room.group("s", "g").await;
    room.take("s", &group, "a", count).await;
    (room, group, ids)
}

async fn claim(room: &Room, group: &Group, name: &str, min_idle: Duration, limit: usize) -> Claimed {
    done(room.backend.group_claim(&room.stream("s"), group, &consumer(name), min_idle, limit).await)
}

async fn set_idle(room: &Room, group: &Group, name: &str, ids: &[EventId], idle: Duration) -> Vec<EventId> {
    done(room.backend.group_set_idle(&room.stream("s"), group, &consumer(name), ids, idle).await)
}

pub(super) async fn a_claim_takes_over_and_counts_the_delivery(subject: Subject) {
    let (room, group, ids) = pending(&subject, 3).await;
    for (name, deliveries) in [("b", 2), ("a", 3), ("a", 4)] {
        let claimed = claim(&room, &group, name, Duration::ZERO, 10).await;
        assert_eq!(ids_of(&claimed.deliveries), ids);
        assert!(claimed.deliveries.iter().all(|delivery| delivery.deliveries == deliveries), "{claimed:?}");
        assert!(claimed.deliveries.iter().all(|delivery| delivery.entry.event.is_ok()), "with the event: {claimed:?}");
        assert!(claimed.deleted.is_empty());
        let listed = done(room.backend.group_pending(&room.stream("s"), &group, PendingQuery::new(10)).await);
        let listed: Vec<_> = listed.iter().map(|p| (p.id, p.consumer.as_str(), p.deliveries)).collect();
        assert_eq!(listed, ids.iter().map(|id| (*id, name, deliveries)).collect::<Vec<_>>());
    }
}

pub(super) async fn a_claim_takes_the_oldest_up_to_its_limit(subject: Subject) {
    let (room, group, ids) = pending(&subject, 250).await;
    set_idle(&room, &group, "a", &ids, LONG * 2).await;
    assert_eq!(ids_of(&claim(&room, &group, "b", LONG, 3).await.deliveries), ids[..3]);
    assert_eq!(ids_of(&claim(&room, &group, "b", LONG, 0).await.deliveries), ids[3..4], "a limit of 0 acts as 1");
    assert_eq!(ids_of(&claim(&room, &group, "c", LONG, 240).await.deliveries), ids[4..244]);
    assert_eq!(ids_of(&claim(&room, &group, "c", LONG, 240).await.deliveries), ids[244..]);
    assert!(claim(&room, &group, "c", LONG, 240).await.deliveries.is_empty());
}

pub(super) async fn a_claim_passes_over_what_is_not_idle_enough(subject: Subject) {
    let (room, group, ids) = pending(&subject, 300).await;
    assert_eq!(claim(&room, &group, "b", LONG, 10).await, Claimed::default());
    // The idle ones lie behind many that are not.
    set_idle(&room, &group, "a", &ids[290..], LONG * 2).await;
    assert_eq!(ids_of(&claim(&room, &group, "b", LONG, 4).await.deliveries), ids[290..294]);
}

pub(super) async fn an_event_becomes_idle_with_time(subject: Subject) {
    let (room, group, ids) = pending(&subject, 2).await;
    let claimed = eventually("the events are idle", async || {
        let claimed = claim(&room, &group, "b", SHORT, 10).await;
        if claimed.deliveries.is_empty() { Err(claimed) } else { Ok(claimed) }
    })
    .await;
    assert_eq!(ids_of(&claimed.deliveries), ids);
    assert!(claim(&room, &group, "c", LONG, 10).await.deliveries.is_empty(), "their idle time has started again");
}

pub(super) async fn of_racing_claims_one_gets_each_event(subject: Subject) {
    let (room, group, ids) = pending(&subject, 50).await;
    let other = room.other_client().await;
    set_idle(&room, &group, "a", &ids, LONG * 2).await;
    let claims = (0..10).map(|i| {
        let (room, group) = (if i % 2 == 0 { &room } else { &other }, &group);
        async move { claim(room, group, &format!("c{i}"), LONG, 8).await }
    });
    let mut claimed: Vec<EventId> =
        futures::future::join_all(claims).await.iter().flat_map(|claimed| ids_of(&claimed.deliveries)).collect();
    claimed.sort();
    assert_eq!(claimed, ids, "each event was claimed once");
}

pub(super) async fn deleted_events_leave_the_pending_list_by_a_claim(subject: Subject) {
    let (room, group, ids) = pending(&subject, 6).await;
    room.commit(room.begin().delete_events("s", vec![ids[1], ids[4]])).await;
    room.commit(room.begin().trim_stream("s", Trim::Before { id: ids[1], approximate: false })).await;
    let claimed = claim(&room, &group, "b", Duration::ZERO, 10).await;
    assert_eq!(ids_of(&claimed.deliveries), [ids[2], ids[3], ids[5]]);
    let mut deleted = claimed.deleted;
    deleted.sort();
    assert_eq!(deleted, [ids[0], ids[1], ids[4]]);
    let left = done(room.backend.group_pending(&room.stream("s"), &group, PendingQuery::new(10)).await);
    assert_eq!(left.iter().map(|pending| pending.id).collect::<Vec<_>>(), [ids[2], ids[3], ids[5]]);
    let info = done(room.backend.group_info(&room.stream("s"), &group).await);
    assert_eq!(info.map(|info| info.pending), Some(3));
}

pub(super) async fn setting_the_idle_time_touches_only_ones_own(subject: Subject) {
    let (room, group, mut ids) = pending(&subject, 2).await;
    ids.extend(room.append_many("s", 2).await);
    room.take("s", &group, "b", 2).await;
    let strangers = [ids[0], ids[2], EventId::MAX, EventId::new(1, 1)];
    assert_eq!(set_idle(&room, &group, "a", &strangers, LONG * 2).await, [ids[0]]);
    assert_eq!(set_idle(&room, &group, "none", &ids, LONG * 2).await, []);
    assert_eq!(set_idle(&room, &group, "a", &[], LONG * 2).await, []);
    let claimed = claim(&room, &group, "c", LONG, 10).await;
    assert_eq!(ids_of(&claimed.deliveries), [ids[0]], "a long idle time offers it to the next claim");
    assert_eq!(claimed.deliveries[0].deliveries, 2, "and is no delivery by itself");
}

pub(super) async fn no_idle_time_is_too_long(subject: Subject) {
    let (room, group, ids) = pending(&subject, 2).await;
    // Longer than any clock has run, and the longest that can be said.
    for (id, idle) in [(ids[0], Duration::from_secs(100 * 366 * 86_400)), (ids[1], Duration::MAX)] {
        assert_eq!(set_idle(&room, &group, "a", &[id], idle).await, [id]);
        assert_eq!(ids_of(&claim(&room, &group, "b", LONG, 10).await.deliveries), [id], "idle for {idle:?}");
    }
    assert_eq!(claim(&room, &group, "b", Duration::MAX, 10).await, Claimed::default());
}

pub(super) async fn an_idle_time_of_zero_keeps_an_event(subject: Subject) {
    let (room, group, ids) = pending(&subject, 3).await;
    set_idle(&room, &group, "a", &ids, LONG * 2).await;
    assert_eq!(set_idle(&room, &group, "a", &ids[1..2], Duration::ZERO).await, ids[1..2]);
    assert_eq!(ids_of(&claim(&room, &group, "b", LONG, 10).await.deliveries), [ids[0], ids[2]]);
}

pub(super) async fn an_acknowledgement_counts_whoever_holds_the_event(subject: Subject) {
    let (room, group, ids) = pending(&subject, 2).await;
    claim(&room, &group, "b", Duration::ZERO, 10).await;
    assert_eq!(room.commit(room.begin().ack("s", &group, ids.clone())).await.count(0), Some(2));
    assert!(claim(&room, &group, "b", Duration::ZERO, 10).await.deliveries.is_empty());
}

pub(super) async fn a_claim_makes_its_consumer_exist(subject: Subject) {
    let (room, group, _) = pending(&subject, 1).await;
    claim(&room, &group, "b", Duration::ZERO, 10).await;
    let Some(info) = done(room.backend.group_info(&room.stream("s"), &group).await) else { panic!("it exists") };
    let consumers: Vec<_> = info.consumers.iter().map(|c| (c.name.as_str(), c.pending)).collect();
    assert_eq!(consumers, [("a", 0), ("b", 1)]);
}
