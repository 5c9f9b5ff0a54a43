//! Entries and maps with a lifetime of their own.

use super::{
    Subject,
    room::{LONG, Room, SHORT, bytes, next_commit},
};
use crate::{Binding, Change, Deadline, Revision};

pub(super) async fn an_entry_lives_for_its_time(subject: Subject) {
    let room = Room::open(&subject).await;
    let put =
        room.begin().put_bound("m", "short", "1", Binding::Ttl(SHORT)).put_bound("m", "long", "2", Binding::Ttl(LONG));
    room.commit(put.put("m", "permanent", "3")).await;
    room.sweep_until("the short entry is swept", |swept| swept.entries == 1).await;
    let keys: Vec<String> = room.content("m").await.into_keys().collect();
    assert_eq!(keys, ["long", "permanent"]);
    assert_eq!(room.revision("m").await, 2);
}

pub(super) async fn an_entry_is_present_until_it_is_swept(subject: Subject) {
    let room = Room::open(&subject).await;
    room.commit(room.begin().put_bound("m", "k", "1", Binding::Ttl(SHORT))).await;
    room.let_pass(SHORT * 2).await;
    assert_eq!(room.get("m", "k").await, Some(bytes("1")));
    assert!(room.holds(room.begin().expect_equals("m", "k", "1")).await);
    assert_eq!(room.commit(room.begin().add("m", "k", 1)).await.counter(0), Some(2));
    assert_eq!(room.sweep().await.entries, 1);
    assert_eq!(room.get("m", "k").await, None);
}

pub(super) async fn each_put_sets_the_lifetime_anew(subject: Subject) {
    let room = Room::open(&subject).await;
    let put = |ttl| room.begin().put_bound("m", "k", "v", Binding::Ttl(ttl));
    room.commit(put(SHORT)).await;
    room.commit(put(LONG)).await;
    room.let_pass(SHORT * 2).await;
    assert_eq!(room.sweep().await.entries, 0);
    room.commit(put(SHORT)).await;
    room.sweep_until("the entry is swept", |swept| swept.entries == 1).await;
}

pub(super) async fn an_expired_map_is_removed_and_begins_another_life(subject: Subject) {
    let room = Room::open(&subject).await;
    let fill = room.begin().put("m", "a", "1").put("m", "b", "2").expire_map("m", Deadline::IfUnset(SHORT));
    let version = room.commit(fill).await.version("m");
    let mut feed = room.feed("m").await;
    room.sweep_until("the map is removed", |swept| swept.entries == 2).await;
    assert!(room.content("m").await.is_empty());
    let commit = next_commit(&mut feed).await;
    assert_eq!((Some(commit.incarnation), commit.before), (version.map(|v| v.incarnation), Revision(1)));
    assert_eq!((&commit.changes[..], commit.version()), (&[Change::Destroyed][..], None));
    assert_eq!(room.version("m").await, None);
    // The deadline is forgotten: what is written now stays, unless it is given another.
    room.commit(room.begin().put("m", "c", "3")).await;
    room.let_pass(SHORT * 2).await;
    assert_eq!(room.sweep().await.entries, 0);
    room.commit(room.begin().expire_map("m", Deadline::IfUnset(SHORT))).await;
    room.sweep_until("the map is removed again", |swept| swept.entries == 1).await;
    // Also one without entries goes.
    room.commit(room.begin().put("m", "d", "4").delete("m", "d").expire_map("m", Deadline::Renew(SHORT))).await;
    let mut last = room.version("m").await;
    room.let_pass(SHORT * 2).await;
    while last.is_some() {
        room.sweep().await;
        last = room.version("m").await;
    }
}

pub(super) async fn a_maps_deadline_is_set_once_or_renewed_or_taken_back(subject: Subject) {
    let room = Room::open(&subject).await;
    for map in ["absolute", "renewed", "kept", "cleared", "destroyed"] {
        room.commit(room.begin().put(map, "k", "v").expire_map(map, Deadline::Renew(SHORT * 3))).await;
    }
    let change = room
        .begin()
        .expire_map("absolute", Deadline::IfUnset(LONG))
        .expire_map("renewed", Deadline::Renew(LONG))
        .expire_map("kept", Deadline::Never)
        .clear("cleared")
        .put("cleared", "k", "v")
        .destroy_map("destroyed")
        .put("destroyed", "k", "v");
    room.commit(change).await;
    room.let_pass(SHORT * 4).await;
    // Clearing a map keeps its deadline, destroying it does not.
    room.sweep_until("two maps are removed", |swept| swept.entries == 2).await;
    for (map, entries) in [("absolute", 0), ("renewed", 1), ("kept", 1), ("cleared", 0), ("destroyed", 1)] {
        assert_eq!(room.content(map).await.len(), entries, "{map}");
    }
}

pub(super) async fn a_maps_deadline_counts_after_all_other_writes(subject: Subject) {
    let room = Room::open(&subject).await;
    let set = room
        .begin()
        .expire_map("created after", Deadline::IfUnset(SHORT))
        .put("created after", "k", "v")
        .expire_map("none", Deadline::IfUnset(SHORT));
    room.commit(set).await;
    assert_eq!(room.version("none").await, None);
    room.commit(room.begin().put("none", "k", "v")).await;
    room.sweep_until("the map is cleared", |swept| swept.entries == 1).await;
    room.let_pass(SHORT * 2).await;
    assert_eq!(room.sweep().await.entries, 0);
    assert_eq!(room.content("none").await.len(), 1, "a deadline for a map that was not there is forgotten");
}
