//! Many callers at the same moment: however a backend may gather their writes, each one stays what it is.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{FutureExt, future::join_all};

use super::{
    Subject,
    room::{Room, next_commit},
};
use crate::{Change, EventId, NewEvent, Revision};

/// How many callers, and how many writes each of them makes one after the other.
const CALLERS: usize = 48;
const ROUNDS: usize = 6;

/// What a caller was told of its put.
struct Told {
    revision: Revision,
    key: String,
    value: String,
    previous: Option<Bytes>,
}

pub(super) async fn simultaneous_puts_are_transactions_of_their_own(subject: Subject) {
    let room = Room::open(&subject).await;
    let mut feed = room.feed("m").await;
    let caller = async |caller: usize| {
        let mut told = Vec::new();
        for round in 0..ROUNDS {
            // Some have a key of their own, most share one.
            let key = format!("key-{}", if caller < 8 { caller } else { 100 + caller % 5 });
            let value = format!("{caller}-{round}");
            let committed = room.commit(room.begin().put("m", key.as_str(), value.clone())).await;
            let revision = committed.version("m").map_or(Revision(0), |version| version.revision);
            told.push(Told { revision, key, value, previous: committed.previous(0).cloned() });
        }
        told
    };
    let told: Vec<Vec<Told>> = join_all((0..CALLERS).map(caller)).await;
    for told in &told {
        assert!(told.is_sorted_by(|a, b| a.revision < b.revision), "a caller's own puts are in the order of its calls");
    }
    let by_revision: BTreeMap<Revision, Told> = told.into_iter().flatten().map(|told| (told.revision, told)).collect();
    let revisions: Vec<u64> = by_revision.keys().map(|revision| revision.0).collect();
    assert_eq!(revisions, (1..=(CALLERS * ROUNDS) as u64).collect::<Vec<_>>(), "one revision for each put");
    let mut content = BTreeMap::new();
    for told in by_revision.values() {
        let before = content.insert(told.key.clone(), Bytes::from(told.value.clone()));
        assert_eq!(told.previous, before, "the previous value of {} at {:?}", told.key, told.revision);
        let commit = next_commit(&mut feed).await;
        assert_eq!(commit.after, told.revision, "the feed tells each by itself, in order");
        let change = Change::Put { key: told.key.as_str().into(), value: told.value.clone().into() };
        assert_eq!(commit.changes, [change]);
    }
    assert_eq!(room.content("m").await, content);
}

pub(super) async fn simultaneous_puts_of_bound_and_unbound_keys_keep_their_bindings(subject: Subject) {
    let room = Room::open(&subject).await;
    let lease = crate::LeaseId::random();
    let bound = crate::Binding::Lease(lease);
    let grant = room.begin().grant_lease(lease, super::room::LONG);
    room.commit((0..8).fold(grant, |grant, i| grant.put_bound("m", format!("{i}"), "old", bound.clone()))).await;
    let put = |i: usize| room.commit(room.begin().put("m", format!("{i}"), "new"));
    join_all((4..CALLERS).map(put)).await;
    room.commit(room.begin().drop_lease(lease)).await;
    let left = room.content("m").await;
    assert_eq!(left.len(), CALLERS - 4, "a put takes the binding away, and no other one's: {left:?}");
    assert!(left.values().all(|value| value == "new"));
}

pub(super) async fn simultaneous_appends_are_each_there_once_and_in_order(subject: Subject) {
    let room = Room::open(&subject).await;
    let caller = async |caller: usize| {
        let mut told = Vec::new();
        for round in 0..ROUNDS {
            let event = NewEvent::new(format!("{caller}"), format!("{caller}-{round}")).with_topic("t");
            let committed = room.commit(room.begin().append("s", event)).await;
            told.push((committed.event_id(0), format!("{caller}-{round}")));
        }
        told
    };
    let told: Vec<Vec<(Option<EventId>, String)>> = join_all((0..CALLERS).map(caller)).await;
    for told in &told {
        assert!(told.is_sorted_by(|a, b| a.0 < b.0), "a caller's own events are in the order of its calls");
    }
    let told: BTreeSet<_> = told.into_iter().flatten().collect();
    let read = |entry: &crate::Entry| match &entry.event {
        Ok(event) => (Some(entry.id), String::from_utf8_lossy(&event.payload).into_owned()),
        Err(malformed) => panic!("{malformed:?}"),
    };
    let events: Vec<_> = room.read("s").await.iter().map(read).collect();
    assert_eq!(events, told.into_iter().collect::<Vec<_>>(), "each event once, under the id that its caller was told");
}

pub(super) async fn a_caller_that_gives_up_takes_nobody_along(subject: Subject) {
    let room = Room::open(&subject).await;
    room.commit(room.begin().put("m", "first", "v")).await;
    let caller = async |caller: usize| {
        let key = format!("{caller}");
        let put = room.commit(room.begin().put("m", key.as_str(), "v"));
        let append = room.commit(room.begin().append("s", NewEvent::new(key.as_str(), "p")));
        if caller.is_multiple_of(3) {
            // Begun, and dropped.
            let begun = async { futures::join!(put, append) };
            let _ = begun.now_or_never();
            return None;
        }
        let (_, appended) = futures::join!(put, append);
        Some((key, appended.event_id(0)))
    };
    let served: Vec<_> = join_all((0..CALLERS).map(caller)).await.into_iter().flatten().collect();
    let (content, ids) = (room.content("m").await, room.ids("s").await);
    for (key, id) in served {
        assert!(content.contains_key(&key), "the put of {key} is there");
        assert!(id.is_some_and(|id| ids.contains(&id)), "the event of {key} is there");
    }
    // And the way is free for those who come later.
    room.commit(room.begin().put("m", "last", "v")).await;
    room.append("s", "last").await;
}
