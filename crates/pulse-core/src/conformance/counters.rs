//! Counters: values that are decimal 64-bit integers.

use bytes::Bytes;

use super::{
    Subject,
    room::{LONG, Room, SHORT, bytes},
};
use crate::{Binding, Error, LeaseId};

pub(super) async fn an_absent_key_counts_from_zero(subject: Subject) {
    let room = Room::open(&subject).await;
    assert_eq!(room.commit(room.begin().add("m", "n", 5)).await.counter(0), Some(5));
    assert_eq!(room.commit(room.begin().add("m", "n", -7)).await.counter(0), Some(-2));
    assert_eq!(room.get("m", "n").await, Some(bytes("-2")), "the value is decimal ASCII");
    assert_eq!(room.commit(room.begin().add("m", "zero", 0)).await.counter(0), Some(0));
    assert_eq!(room.get("m", "zero").await, Some(bytes("0")));
}

pub(super) async fn a_decimal_value_counts_on(subject: Subject) {
    let room = Room::open(&subject).await;
    for (value, sum) in [("41", 42), ("-1", 0), ("0", 1), ("9007199254740993", 9_007_199_254_740_994)] {
        let committed = room.commit(room.begin().put("m", "n", value).add("m", "n", 1)).await;
        assert_eq!(committed.counter(1), Some(sum));
        assert_eq!(room.get("m", "n").await, Some(Bytes::from(sum.to_string())));
    }
}

pub(super) async fn a_counter_is_exact_over_64_bits(subject: Subject) {
    let room = Room::open(&subject).await;
    let start = (1_i64 << 53) - 2;
    room.commit(room.begin().add("m", "n", start)).await;
    for step in 1..=5 {
        assert_eq!(room.commit(room.begin().add("m", "n", 1)).await.counter(0), Some(start + step));
    }
    let committed = room.commit(room.begin().add("m", "high", i64::MAX - 1).add("m", "high", 1)).await;
    assert_eq!(committed.counter(1), Some(i64::MAX));
    let committed = room.commit(room.begin().add("m", "low", i64::MIN)).await;
    assert_eq!(committed.counter(0), Some(i64::MIN));
    let committed = room.commit(room.begin().add("m", "low", i64::MAX).add("m", "low", i64::MAX)).await;
    assert_eq!((committed.counter(0), committed.counter(1)), (Some(-1), Some(i64::MAX - 1)));
    assert_eq!(room.get("m", "high").await, Some(Bytes::from(i64::MAX.to_string())));
}

pub(super) async fn leaving_the_64_bit_range_is_refused(subject: Subject) {
    let room = Room::open(&subject).await;
    room.commit(room.begin().add("m", "high", i64::MAX).add("m", "low", i64::MIN)).await;
    for (key, delta) in [("high", 1), ("high", i64::MAX), ("low", -1), ("low", i64::MIN)] {
        let error = room.refused(room.begin().add("m", key, delta)).await;
        let Error::WrongValue { map, key: named, .. } = &error else { panic!("{error:?}") };
        assert!(map.ends_with('m') && named == key, "the error names the key: {error:?}");
    }
    assert_eq!(room.get("m", "high").await, Some(Bytes::from(i64::MAX.to_string())));
    assert_eq!(room.revision("m").await, 1);
}

pub(super) async fn a_value_that_is_no_counter_is_refused(subject: Subject) {
    let room = Room::open(&subject).await;
    let wrong =
        ["", "x", "1x", " 1", "1 ", "1.0", "1e3", "+1", "007", "-0", "-", "0x10", "9223372036854775808", "\u{0661}"];
    for value in wrong {
        room.commit(room.begin().put("m", "n", value)).await;
        let error = room.refused(room.begin().add("m", "n", 1)).await;
        assert!(matches!(error, Error::WrongValue { .. }), "{value:?} met {error:?}");
        assert_eq!(room.get("m", "n").await, Some(bytes(value)));
    }
}

pub(super) async fn adding_keeps_the_binding_of_the_key(subject: Subject) {
    let room = Room::open(&subject).await;
    let lease = LeaseId::random();
    let bind = room.begin().grant_lease(lease, LONG).put_bound("m", "leased", "1", Binding::Lease(lease));
    room.commit(bind.put_bound("m", "mortal", "1", Binding::Ttl(SHORT)).put("m", "permanent", "1")).await;
    let add = room.begin().add("m", "leased", 1).add("m", "mortal", 1).add("m", "permanent", 1);
    room.commit(add).await;
    assert_eq!(room.commit(room.begin().drop_lease(lease)).await.count(0), Some(1));
    room.sweep_until("the mortal entry is gone", |swept| swept.entries == 1).await;
    let left: Vec<String> = room.content("m").await.into_keys().collect();
    assert_eq!(left, ["permanent"]);
}

pub(super) async fn a_counter_that_begins_with_a_binding_ends_with_it(subject: Subject) {
    let room = Room::open(&subject).await;
    let lease = LeaseId::random();
    let begin = room.begin().grant_lease(lease, LONG).add_bound("m", "leased", 1, lease);
    let committed = room.commit(begin.add_bound("m", "timed", 5, SHORT).add("m", "permanent", 1)).await;
    assert_eq!((committed.counter(1), committed.counter(2)), (Some(1), Some(5)));
    // What is there keeps its binding, whatever is given.
    let more =
        room.begin().add_bound("m", "permanent", 1, lease).add_bound("m", "leased", 1, LONG).add("m", "timed", 1);
    let committed = room.commit(more).await;
    assert_eq!(committed.results.len(), 3);
    room.commit(room.begin().drop_lease(lease)).await;
    room.sweep_until("the time of the counter is over", |swept| swept.entries == 1).await;
    assert_eq!(room.content("m").await, [("permanent".to_owned(), bytes("2"))].into());
    // Within one transaction, what was deleted begins anew, and what was put is there.
    let again = room.begin().delete("m", "permanent").add_bound("m", "permanent", 3, SHORT);
    let committed = room.commit(again.put("m", "put", "1").add_bound("m", "put", 1, SHORT)).await;
    assert_eq!((committed.counter(1), committed.counter(3)), (Some(3), Some(2)));
    room.sweep_until("the new counter is over", |swept| swept.entries == 1).await;
    assert_eq!(room.content("m").await, [("put".to_owned(), bytes("2"))].into());
}

pub(super) async fn adding_for_a_lease_that_is_not_alive_is_refused(subject: Subject) {
    let room = Room::open(&subject).await;
    let lease = LeaseId::random();
    room.commit(room.begin().add("m", "there", 1)).await;
    for key in ["there", "absent"] {
        let error = room.refused(room.begin().add_bound("m", key, 1, lease)).await;
        assert!(matches!(error, Error::LeaseLost { lease: lost, .. } if lost == lease), "{error:?}");
    }
    assert_eq!(room.content("m").await, [("there".to_owned(), bytes("1"))].into());
}
