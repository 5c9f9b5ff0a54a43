//! Expectations: each one that holds lets the transaction through, each one that fails says what was found.

use super::{
    Subject,
    room::{LONG, Room, SHORT, bytes},
};
use crate::{Error, Expectation, Found, Incarnation, LeaseId, NewEvent, Revision, Transaction, Version};

/// A room with a map of one entry, a stream of one event, a live lease; and the map's version and the lease.
async fn furnished(subject: &Subject) -> (Room, Version, LeaseId) {
    let room = Room::open(subject).await;
    let lease = LeaseId::random();
    let furniture = room.begin().put("m", "k", "v").append("s", NewEvent::new("e", "p")).grant_lease(lease, LONG);
    let committed = room.commit(furniture).await;
    let Some(version) = committed.version("m") else { panic!("the map was just created: {committed:?}") };
    (room, version, lease)
}

pub(super) async fn every_kind_that_holds_lets_the_transaction_through(subject: Subject) {
    let (room, version, lease) = furnished(&subject).await;
    let all = room
        .begin()
        .expect_equals("m", "k", "v")
        .expect_absent("m", "none")
        .expect_absent("none", "k")
        .expect_present("m", "k")
        .expect_version("m", Some(version))
        .expect_version("none", None)
        .expect_fewer_than("m", 2)
        .expect_fewer_than("none", 1)
        .expect_lease_alive(lease)
        .expect_lease_expired(LeaseId::random())
        .expect_stream("s")
        .expect_shorter_than("s", 2)
        .expect_shorter_than("none", 1);
    let committed = room.commit(all.put("m", "done", "yes")).await;
    assert_eq!(committed.results.len(), 1, "only writes have results");
    assert_eq!(room.get("m", "done").await, Some(bytes("yes")));
}

pub(super) async fn every_kind_that_fails_says_what_was_found_and_changes_nothing(subject: Subject) {
    let (room, version, lease) = furnished(&subject).await;
    let (other_life, other_time) = (
        Version { incarnation: Incarnation(!version.incarnation.0), ..version },
        Version { revision: Revision(version.revision.0 + 1), ..version },
    );
    let value = || Found::Value(Some(bytes("v")));
    let begin = || room.begin();
    let failing: Vec<(Transaction, Found)> = vec![
        (begin().expect_equals("m", "k", "w"), value()),
        (begin().expect_equals("m", "k", ""), value()),
        (begin().expect_equals("m", "none", "v"), Found::Value(None)),
        (begin().expect_equals("none", "k", "v"), Found::Value(None)),
        (begin().expect_absent("m", "k"), value()),
        (begin().expect_present("m", "none"), Found::Value(None)),
        (begin().expect_present("none", "k"), Found::Value(None)),
        (begin().expect_version("m", None), Found::Version(Some(version))),
        (begin().expect_version("m", Some(other_life)), Found::Version(Some(version))),
        (begin().expect_version("m", Some(other_time)), Found::Version(Some(version))),
        (begin().expect_version("none", Some(version)), Found::Version(None)),
        (begin().expect_fewer_than("m", 1), Found::Count(1)),
        (begin().expect_fewer_than("m", 0), Found::Count(1)),
        (begin().expect_fewer_than("none", 0), Found::Count(0)),
        (begin().expect_lease_alive(LeaseId::random()), Found::LeaseExpired),
        (begin().expect_lease_expired(lease), Found::LeaseAlive),
        (begin().expect_stream("none"), Found::NoStream),
        (begin().expect_shorter_than("s", 1), Found::Count(1)),
        (begin().expect_shorter_than("none", 0), Found::Count(0)),
    ];
    let nothing = begin().expect_fewer_than("none", 0).delete("none", "k");
    let error = room.refused(nothing).await;
    assert_eq!(error.failed_expectation().map(|failed| failed.found.clone()), Some(Found::Count(0)));
    for (transaction, found) in failing {
        let expected = transaction.expectations()[0].clone();
        let transaction = transaction.put("m", "k", "changed").append("s", NewEvent::new("e", "p"));
        let error = room.refused(transaction).await;
        let Some(failed) = error.failed_expectation() else { panic!("{expected:?} met {error:?}") };
        assert_eq!((failed.index, &failed.expected, &failed.found), (0, &expected, &found));
        let Error::ExpectationFailed { scope, .. } = &error else { panic!("{error:?}") };
        assert_eq!(scope, room.scope.as_str(), "the error names the scope");
    }
    assert_eq!(room.version("m").await, Some(version));
    assert_eq!(room.get("m", "k").await, Some(bytes("v")));
    assert_eq!(room.ids("s").await.len(), 1);
}

pub(super) async fn the_first_that_fails_is_named(subject: Subject) {
    let (room, _, _) = furnished(&subject).await;
    let transaction = room
        .begin()
        .expect_present("m", "k")
        .expect_stream("s")
        .expect_absent("m", "k")
        .expect_stream("none")
        .delete("m", "k");
    let error = room.refused(transaction).await;
    let Some(failed) = error.failed_expectation() else { panic!("{error:?}") };
    assert_eq!(failed.index, 2);
    assert_eq!(failed.expected, Expectation::Absent { map: "m".into(), key: "k".into() });
}

pub(super) async fn all_are_judged_on_the_state_before_the_transaction(subject: Subject) {
    let (room, version, lease) = furnished(&subject).await;
    let fresh = LeaseId::random();
    let transaction = room
        .begin()
        .put("m", "new", "v")
        .delete("m", "k")
        .drop_lease(lease)
        .grant_lease(fresh, LONG)
        .destroy_stream("s")
        .expect_absent("m", "new")
        .expect_present("m", "k")
        .expect_version("m", Some(version))
        .expect_lease_alive(lease)
        .expect_lease_expired(fresh)
        .expect_stream("s");
    room.commit(transaction).await;
    let error = room.refused(room.begin().expect_stream("t").append("t", NewEvent::new("e", "p"))).await;
    assert!(error.is_conflict(), "{error:?}");
}

pub(super) async fn a_failed_one_wins_over_a_write_that_would_fail(subject: Subject) {
    let (room, _, _) = furnished(&subject).await;
    let error = room.refused(room.begin().add("m", "k", 1).expect_absent("m", "k")).await;
    assert!(error.is_conflict(), "{error:?}");
    let error = room.refused(room.begin().renew_lease(LeaseId::random(), LONG).expect_stream("none")).await;
    assert!(error.is_conflict(), "{error:?}");
}

pub(super) async fn an_empty_stream_exists(subject: Subject) {
    let (room, _, _) = furnished(&subject).await;
    let ids = room.ids("s").await;
    room.commit(room.begin().delete_events("s", ids)).await;
    assert!(room.holds(room.begin().expect_stream("s").expect_shorter_than("s", 1)).await);
    room.commit(room.begin().destroy_stream("s")).await;
    assert!(!room.holds(room.begin().expect_stream("s")).await);
}

pub(super) async fn an_entry_past_its_deadline_is_present_until_it_is_swept(subject: Subject) {
    let (room, _, _) = furnished(&subject).await;
    let lease = LeaseId::random();
    let bind = room.begin().grant_lease(lease, SHORT);
    room.commit(bind.put_bound("m", "bound", "v", crate::Binding::Lease(lease))).await;
    room.outlive(lease).await;
    room.commit(room.begin().expect_present("m", "bound").expect_fewer_than("m", 3).expect_lease_expired(lease)).await;
    room.sweep_until("the entry is swept", |swept| swept.entries == 1).await;
    room.commit(room.begin().expect_absent("m", "bound").expect_fewer_than("m", 2)).await;
}
