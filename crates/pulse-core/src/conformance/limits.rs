//! What makes no sense or is too large is refused before it does anything.

use std::time::Duration;

use bytes::Bytes;

use super::{
    Subject,
    room::{Room, bytes},
};
use crate::{Binding, Deadline, Duplicates, Error, LeaseId, Limits, MAX_NAME_LEN, NewEvent, Transaction};

async fn small(subject: &Subject) -> Room {
    let limits = Limits::default().with_key_bytes(10).with_value_bytes(100).with_event_bytes(100);
    let limits = limits.with_operations(5).with_transaction_bytes(300);
    let room = Room::with_limits(subject, limits).await;
    assert_eq!(room.backend.limits(), &limits, "the backend says which limits it was given");
    room
}

/// That none of them is carried out, even behind a write that would be.
async fn all_refused(room: &Room, bad: Vec<Transaction>, right: impl Fn(&Error) -> bool) {
    for transaction in bad {
        let shown = format!("{transaction:.200?}");
        let error = room.refused(transaction.put("m", "k", "v")).await;
        assert!(right(&error), "{shown} met {error:?}");
        assert!(!error.is_outcome_unknown() && !error.is_retryable(), "{error:?}");
    }
    assert_eq!(room.version("m").await, None, "nothing was written");
}

pub(super) async fn what_is_larger_than_the_limits_is_refused(subject: Subject) {
    let room = small(&subject).await;
    let value = |size: usize| Bytes::from(vec![7; size]);
    let begin = || room.begin();
    let bad = vec![
        begin().put("m", "k".repeat(11), "v"),
        begin().delete("m", "k".repeat(11)),
        begin().add("m", "k".repeat(11), 1),
        begin().expect_present("m", "k".repeat(11)),
        begin().put("m", "k", value(101)),
        begin().expect_equals("m", "k", value(101)),
        begin().list_append("m", "k", vec![value(60), value(60)], Duplicates::Keep),
        begin().append("s", NewEvent::new("name", value(97))),
        begin().append("s", NewEvent::new("name", "p").with_header("h".repeat(100), "")),
        begin().put("m", "a", value(90)).put("m", "b", value(90)).put("m", "c", value(90)).put("m", "d", value(90)),
        (0..5).fold(begin(), |t, _| t.delete("m", "k")),
    ];
    all_refused(&room, bad, |error| matches!(error, Error::LimitExceeded { size, limit, .. } if size > limit)).await;
}

pub(super) async fn what_just_fits_the_limits_is_accepted(subject: Subject) {
    let room = small(&subject).await;
    room.commit(room.begin().put("m", "k".repeat(10), vec![7; 100])).await;
    room.commit(room.begin().append("s", NewEvent::new("name", vec![7; 96]))).await;
    room.commit((0..5).fold(room.begin(), |t, i| t.put("m", format!("{i}"), "v"))).await;
}

pub(super) async fn a_list_does_not_grow_over_the_limit_of_a_value(subject: Subject) {
    let room = small(&subject).await;
    let append = || room.begin().list_append("m", "l", vec![bytes("0123456789")], Duplicates::Keep);
    let mut length = 0;
    let error = loop {
        match room.backend.commit(append()).await {
            Ok(_) => length += 1,
            Err(error) => break error,
        }
        assert!(length < 50, "a list of more than 500 bytes went through a limit of 100");
    };
    assert!(matches!(error, Error::LimitExceeded { .. } | Error::WrongValue { .. }), "{error:?}");
    assert_eq!(room.revision("m").await, length);
}

pub(super) async fn names_that_are_empty_or_too_long_are_refused(subject: Subject) {
    let room = Room::open(&subject).await;
    let begin = || room.begin();
    let bad = |name: &str| {
        vec![
            begin().put(name, "k", "v"),
            begin().delete(name, "k"),
            begin().clear(name),
            begin().destroy_map(name),
            begin().expire_map(name, Deadline::Never),
            begin().append(name, NewEvent::new("e", "p")),
            begin().destroy_stream(name),
            begin().delete_events(name, Vec::new()),
            begin().expect_absent(name, "k"),
            begin().expect_version(name, None),
            begin().expect_stream(name),
        ]
    };
    let invalid = |error: &Error| matches!(error, Error::InvalidName { .. });
    all_refused(&room, bad(""), invalid).await;
    all_refused(&room, bad(&"n".repeat(MAX_NAME_LEN + 1)), invalid).await;
    let long = "n".repeat(MAX_NAME_LEN);
    room.commit(room.begin().put(long.as_str(), "k", "v").append(long.as_str(), NewEvent::new("e", "p"))).await;
    assert_eq!(room.get(&long, "k").await, Some(bytes("v")));
}

pub(super) async fn requests_that_make_no_sense_are_refused(subject: Subject) {
    let room = Room::open(&subject).await;
    let begin = || room.begin();
    let (none, ages) = (Duration::from_micros(999), Duration::MAX);
    let bad = vec![
        begin().put("m", "", "v"),
        begin().expect_absent("m", ""),
        begin().grant_lease(LeaseId(1), none),
        begin().renew_lease(LeaseId(1), Duration::ZERO),
        begin().grant_lease(LeaseId(1), ages),
        begin().put_bound("m", "k", "v", Binding::Ttl(none)),
        begin().put_bound("m", "k", "v", Binding::Ttl(ages)),
        begin().expire_map("m", Deadline::IfUnset(none)),
        begin().expire_stream("s", Deadline::Renew(ages)),
    ];
    all_refused(&room, bad, |error| matches!(error, Error::InvalidRequest { .. })).await;
    assert!(room.holds(room.begin().expect_lease_expired(LeaseId(1))).await);
}

pub(super) async fn the_backend_names_its_target(subject: Subject) {
    let room = Room::open(&subject).await;
    assert!(!room.backend.target().is_empty());
}
