//! Revisions and incarnations: one step per commit that changes a map, another life after the map's end.

use super::{
    Subject,
    room::{LONG, Room, bytes, next_commit},
};
use crate::{Change, Deadline, Duplicates, Error, LeaseId, Revision, Version};

pub(super) async fn the_first_change_creates_the_map_at_revision_1(subject: Subject) {
    let room = Room::open(&subject).await;
    assert_eq!(room.version("m").await, None);
    let committed = room.commit(room.begin().put("m", "k", "v")).await;
    let Some(version) = committed.version("m") else { panic!("the map exists: {committed:?}") };
    assert_eq!(version.revision, Revision(1));
    assert_eq!(room.version("m").await, Some(version));
}

pub(super) async fn a_commit_raises_the_revision_by_one_whatever_it_changes(subject: Subject) {
    let room = Room::open(&subject).await;
    let first = room.commit(room.begin().put("m", "k", "v").put("n", "k", "v")).await;
    let many = room.begin().put("m", "a", "1").put("m", "a", "2").delete("m", "k").clear("m").put("m", "b", "3");
    let second = room.commit(many.add("n", "count", 1)).await;
    for map in ["m", "n"] {
        let (Some(first), Some(second)) = (first.version(map), second.version(map)) else {
            panic!("{map} exists in both: {first:?} {second:?}")
        };
        assert_eq!(second, Version { revision: Revision(2), ..first });
        assert_eq!(room.version(map).await, Some(second));
    }
}

pub(super) async fn writes_that_change_nothing_keep_the_revision(subject: Subject) {
    let room = Room::open(&subject).await;
    let list = room.begin().list_append("m", "l", vec![bytes("a")], Duplicates::Keep);
    let version = room.commit(list.put("empty", "k", "v").delete("empty", "k")).await;
    let nothing = room
        .begin()
        .delete("m", "none")
        .delete("empty", "k")
        .list_append("m", "l", vec![bytes("a")], Duplicates::Skip)
        .list_remove("m", "l", vec![bytes("none")])
        .list_remove("m", "none", vec![bytes("a")])
        .expire_map("m", Deadline::Renew(LONG))
        .expire_map("m", Deadline::Never)
        .delete("none", "k")
        .clear("none")
        .destroy_map("none")
        .expire_map("none", Deadline::Renew(LONG))
        .drop_lease(LeaseId::random());
    let committed = room.commit(nothing).await;
    assert_eq!(committed.version("m"), version.version("m"));
    assert_eq!(committed.version("empty"), version.version("empty"));
    assert_eq!(committed.version("none"), None);
    assert_eq!(room.version("none").await, None);
}

pub(super) async fn a_put_of_the_same_value_is_a_change_and_so_is_an_add_of_zero_and_a_clear_of_nothing(
    subject: Subject,
) {
    let room = Room::open(&subject).await;
    room.commit(room.begin().put("m", "k", "v").add("m", "n", 1)).await;
    room.commit(room.begin().put("m", "k", "v")).await;
    assert_eq!(room.revision("m").await, 2);
    room.commit(room.begin().add("m", "n", 0)).await;
    assert_eq!(room.revision("m").await, 3);
    room.commit(room.begin().clear("m")).await;
    let mut feed = room.feed("m").await;
    let committed = room.commit(room.begin().clear("m")).await;
    assert_eq!((committed.count(0), room.revision("m").await), (Some(0), 5));
    let commit = next_commit(&mut feed).await;
    assert_eq!((commit.after.0, &commit.changes[..]), (5, &[Change::Cleared][..]));
}

pub(super) async fn changes_that_cancel_out_are_changes(subject: Subject) {
    let room = Room::open(&subject).await;
    room.commit(room.begin().put("m", "a", "1")).await;
    room.commit(room.begin().put("m", "b", "2").delete("m", "b")).await;
    assert_eq!(room.revision("m").await, 2);
}

pub(super) async fn an_emptied_map_lives_on(subject: Subject) {
    let room = Room::open(&subject).await;
    let first = room.commit(room.begin().put("m", "a", "1").put("m", "b", "2")).await;
    room.commit(room.begin().delete("m", "a").delete("m", "b")).await;
    assert_eq!(room.revision("m").await, 2);
    room.commit(room.begin().put("m", "a", "1")).await;
    room.commit(room.begin().clear("m")).await;
    let last = room.commit(room.begin().put("m", "c", "3")).await;
    let (Some(first), Some(last)) = (first.version("m"), last.version("m")) else { panic!("{first:?} {last:?}") };
    assert_eq!(last, Version { revision: Revision(5), ..first });
    assert!(last.includes(&first));
}

pub(super) async fn a_destroyed_map_begins_another_life(subject: Subject) {
    let room = Room::open(&subject).await;
    let mut lives = Vec::new();
    for _ in 0..20 {
        let committed = room.commit(room.begin().put("m", "k", "v")).await;
        let Some(version) = committed.version("m") else { panic!("{committed:?}") };
        assert_eq!(version.revision, Revision(1));
        assert!(!lives.contains(&version.incarnation), "every life is told from the others");
        lives.push(version.incarnation);
        let destroyed = room.commit(room.begin().destroy_map("m")).await;
        assert_eq!(destroyed.version("m"), None);
        assert_eq!(room.version("m").await, None);
    }
    assert!(room.holds(room.begin().expect_version("m", None)).await);
}

pub(super) async fn a_map_may_end_and_begin_again_in_one_transaction(subject: Subject) {
    let room = Room::open(&subject).await;
    let mut feed = room.feed("m").await;
    let first = room.commit(room.begin().put("m", "a", "1").put("m", "b", "2")).await;
    let second = room.commit(room.begin().put("m", "c", "3").destroy_map("m").put("m", "a", "4")).await;
    assert_eq!(second.count(1), Some(3));
    assert_eq!(second.previous(2), None);
    let (Some(first), Some(second)) = (first.version("m"), second.version("m")) else { panic!("{first:?} {second:?}") };
    assert_ne!(first.incarnation, second.incarnation);
    assert_eq!(second.revision, Revision(1));
    let content: Vec<_> = room.content("m").await.into_iter().collect();
    assert_eq!(content, [("a".to_owned(), bytes("4"))]);

    next_commit(&mut feed).await;
    let end = next_commit(&mut feed).await;
    assert_eq!((end.incarnation, end.before, end.after), (first.incarnation, Revision(1), Revision(2)));
    assert_eq!(end.changes.last(), Some(&Change::Destroyed));
    let begin = next_commit(&mut feed).await;
    assert_eq!((begin.incarnation, begin.before, begin.after), (second.incarnation, Revision(0), Revision(1)));
    assert_eq!(begin.changes, [Change::Put { key: "a".into(), value: bytes("4") }]);
}

pub(super) async fn a_map_that_begins_and_ends_in_one_transaction_does_not_exist(subject: Subject) {
    let room = Room::open(&subject).await;
    let mut feed = room.feed("m").await;
    let committed = room.commit(room.begin().put("m", "a", "1").destroy_map("m")).await;
    assert_eq!((committed.count(1), committed.version("m")), (Some(1), None));
    assert_eq!(room.version("m").await, None);
    assert!(room.content("m").await.is_empty());
    let next = room.commit(room.begin().put("m", "b", "2")).await;
    // Whether the feed tells of the short life is left open; what follows it must be continuous.
    let mut commit = next_commit(&mut feed).await;
    if commit.changes.last() == Some(&Change::Destroyed) {
        commit = next_commit(&mut feed).await;
    }
    assert_eq!(commit.version(), next.version("m"));
}

pub(super) async fn a_stale_version_is_refused(subject: Subject) {
    let room = Room::open(&subject).await;
    let stale = room.commit(room.begin().put("m", "k", "v")).await.version("m");
    room.commit(room.begin().expect_version("m", stale).put("m", "k", "w")).await;
    let error = room.refused(room.begin().expect_version("m", stale).put("m", "k", "x")).await;
    assert!(error.is_conflict(), "{error:?}");
    room.commit(room.begin().destroy_map("m")).await;
    room.commit(room.begin().put("m", "k", "y")).await;
    let error = room.refused(room.begin().expect_version("m", stale).put("m", "k", "z")).await;
    assert!(matches!(error, Error::ExpectationFailed { .. }), "the same revision of another life: {error:?}");
}
