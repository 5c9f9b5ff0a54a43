//! Single keys of maps.

use bytes::Bytes;

use super::{
    Subject,
    room::{Content, LONG, Room, apply, bytes, done, next_commit},
};
use crate::{Binding, Change, Deadline, Found, LeaseId};

pub(super) async fn a_put_returns_what_was_there_before(subject: Subject) {
    let room = Room::open(&subject).await;
    assert_eq!(room.commit(room.begin().put("m", "k", "1")).await.previous(0), None);
    assert_eq!(room.commit(room.begin().put("m", "k", "2")).await.previous(0), Some(&bytes("1")));
    assert_eq!(room.get("m", "k").await, Some(bytes("2")));
}

pub(super) async fn a_delete_returns_what_it_removed(subject: Subject) {
    let room = Room::open(&subject).await;
    room.commit(room.begin().put("m", "k", "1").put("m", "l", "2")).await;
    assert_eq!(room.commit(room.begin().delete("m", "k")).await.previous(0), Some(&bytes("1")));
    assert_eq!(room.commit(room.begin().delete("m", "k")).await.previous(0), None);
    assert_eq!(room.commit(room.begin().delete("none", "k")).await.previous(0), None);
    assert_eq!(room.get("m", "k").await, None);
    assert_eq!(room.get("m", "l").await, Some(bytes("2")));
}

pub(super) async fn keys_and_values_are_kept_to_the_byte(subject: Subject) {
    let room = Room::open(&subject).await;
    let keys = ["k", " ", "\n", "\0", "a\0b", "ü", "日本", "{k}", "k:l", "%00", "*", "__proto__"];
    let long_key = "k".repeat(1000);
    let values = [
        Bytes::new(),
        Bytes::from_static(&[0]),
        Bytes::from_static(&[0xff, 0xfe, 0x00, 0x80]),
        bytes("plain"),
        bytes("-1"),
        bytes("1e5"),
        Bytes::from((0..=255).collect::<Vec<u8>>()),
    ];
    for value in values {
        let put =
            keys.iter().copied().chain([long_key.as_str()]).fold(room.begin(), |t, key| t.put("m", key, value.clone()));
        room.commit(put).await;
        let content = room.content("m").await;
        for key in keys.iter().copied().chain([long_key.as_str()]) {
            assert_eq!(room.get("m", key).await, Some(value.clone()), "{key:?}");
            assert_eq!(content.get(key), Some(&value), "{key:?}");
        }
        room.commit(room.begin().expect_equals("m", "\0", value)).await;
    }
    assert_eq!(room.content("m").await.len(), keys.len() + 1);
}

pub(super) async fn get_answers_in_the_order_of_the_keys(subject: Subject) {
    let room = Room::open(&subject).await;
    room.commit(room.begin().put("m", "a", "1").put("m", "b", "2")).await;
    let map = room.map("m");
    let got = done(room.backend.map_get(&map, &["b", "none", "a", "b"]).await);
    assert_eq!(got, [Some(bytes("2")), None, Some(bytes("1")), Some(bytes("2"))]);
    assert!(done(room.backend.map_get(&map, &[]).await).is_empty(), "no keys, no values");
    assert_eq!(done(room.backend.map_get(&room.map("none"), &["a", "b"]).await), [None, None]);
}

pub(super) async fn a_clear_deletes_all_keys_and_counts_them(subject: Subject) {
    let room = Room::open(&subject).await;
    room.commit(room.begin().put("m", "a", "1").put("m", "b", "2").put("other", "c", "3")).await;
    assert_eq!(room.commit(room.begin().clear("m")).await.count(0), Some(2));
    assert_eq!(room.commit(room.begin().clear("m")).await.count(0), Some(0));
    assert_eq!(room.commit(room.begin().clear("none")).await.count(0), Some(0));
    assert!(room.content("m").await.is_empty());
    assert_eq!(room.content("other").await.len(), 1, "other maps are left alone");
}

pub(super) async fn destroying_a_map_deletes_and_counts_its_keys(subject: Subject) {
    let room = Room::open(&subject).await;
    room.commit(room.begin().put("m", "a", "1").put("m", "b", "2").put("other", "c", "3")).await;
    assert_eq!(room.commit(room.begin().destroy_map("m")).await.count(0), Some(2));
    assert_eq!(room.commit(room.begin().destroy_map("m")).await.count(0), Some(0));
    assert!(room.content("m").await.is_empty());
    assert_eq!(room.version("m").await, None);
    assert_eq!(room.content("other").await.len(), 1, "other maps are left alone");
}

pub(super) async fn puts_and_deletions_of_one_map_are_one_commit_in_their_order(subject: Subject) {
    for asks_for_previous in [true, false] {
        put_and_delete(&Room::open(&subject).await, asks_for_previous).await;
    }
}

async fn put_and_delete(room: &Room, asks_for_previous: bool) {
    let lease = LeaseId::random();
    room.commit(room.begin().grant_lease(lease, LONG)).await;
    let put = |key: &str, value| Change::Put { key: key.into(), value: bytes(value) };
    let deleted = |key: &str| Change::Deleted { key: key.into() };
    let bound = |binding| room.begin().put_bound("m", "t", "1", binding);
    let steps = [
        (room.begin().put("m", "a", "1").put("m", "b", "1"), vec![None, None], vec![put("a", "1"), put("b", "1")]),
        // A new key and one that is replaced, with deletions of a key that is there and of one that is not.
        (
            room.begin().put("m", "c", "1").put("m", "a", "2").delete("m", "b").delete("m", "none"),
            vec![None, Some("1"), Some("1"), None],
            vec![put("c", "1"), put("a", "2"), deleted("b")],
        ),
        // Nothing is deleted.
        (room.begin().put("m", "d", "1").delete("m", "b"), vec![None, None], vec![put("d", "1")]),
        // With every kind of comparison, of keys that are written and of one that is not.
        (
            room.begin()
                .expect_lease_alive(lease)
                .expect_absent("m", "e")
                .expect_equals("m", "a", "2")
                .expect_equals("m", "c", "1")
                .expect_present("m", "d")
                .expect_fewer_than("m", 4)
                .put("m", "e", "1")
                .put("m", "c", "2")
                .delete("m", "a"),
            vec![None, Some("1"), Some("2")],
            vec![put("e", "1"), put("c", "2"), deleted("a")],
        ),
        // In the other order, and of the same key.
        (room.begin().delete("m", "e").put("m", "a", "3"), vec![Some("1"), None], vec![deleted("e"), put("a", "3")]),
        (
            room.begin().put("m", "a", "4").delete("m", "a").delete("m", "a"),
            vec![Some("3"), Some("4"), None],
            vec![put("a", "4"), deleted("a")],
        ),
        // With what is bound to something.
        (bound(Binding::Ttl(LONG)).delete("m", "d"), vec![None, Some("1")], vec![put("t", "1"), deleted("d")]),
        (bound(Binding::Ttl(LONG)).delete("m", "c"), vec![Some("1"), Some("2")], vec![put("t", "1"), deleted("c")]),
        (room.begin().put("m", "u", "1").delete("m", "t"), vec![None, Some("1")], vec![put("u", "1"), deleted("t")]),
        (bound(Binding::Lease(lease)).delete("m", "u"), vec![None, Some("1")], vec![put("t", "1"), deleted("u")]),
        (
            room.begin().put_bound("m", "v", "1", Binding::Ttl(LONG)).delete("m", "t"),
            vec![None, Some("1")],
            vec![put("v", "1"), deleted("t")],
        ),
        // Several for a time, of which some are deleted and one is put for good, and then all are deleted.
        (
            ["w", "x", "y"]
                .iter()
                .fold(room.begin().put("m", "z", "1"), |all, key| all.put_bound("m", *key, "1", Binding::Ttl(LONG))),
            vec![None; 4],
            ["z", "w", "x", "y"].map(|key| put(key, "1")).to_vec(),
        ),
        (
            room.begin().put("m", "a", "5").put("m", "x", "2").delete("m", "v").delete("m", "z"),
            vec![None, Some("1"), Some("1"), Some("1")],
            vec![put("a", "5"), put("x", "2"), deleted("v"), deleted("z")],
        ),
        (
            room.begin().put_bound("m", "y", "2", Binding::Ttl(LONG)).delete("m", "w"),
            vec![Some("1"), Some("1")],
            vec![put("y", "2"), deleted("w")],
        ),
        (room.begin().put("m", "b", "5").delete("m", "y"), vec![None, Some("2")], vec![put("b", "5"), deleted("y")]),
    ];
    let mut feed = room.feed("m").await;
    let mut content = Content::new();
    for (step, (transaction, previous, changes)) in steps.into_iter().enumerate() {
        let transaction = if asks_for_previous { transaction } else { transaction.without_previous() };
        let committed = room.commit(transaction).await;
        for (at, previous) in previous.into_iter().enumerate() {
            let previous = previous.filter(|_| asks_for_previous).map(bytes);
            assert_eq!(committed.previous(at), previous.as_ref(), "write {at} of step {step}");
        }
        let commit = next_commit(&mut feed).await;
        assert_eq!(commit.changes, changes, "step {step}");
        assert_eq!(commit.version(), committed.version("m"), "step {step}");
        apply(&mut content, &commit);
        assert_eq!(room.content("m").await, content, "step {step}");
    }
    // What is gone has left no deadline behind, and what is put for good has none.
    room.commit(["t", "v", "w", "y"].iter().fold(room.begin(), |all, key| all.put("m", *key, "for good"))).await;
    room.commit(room.begin().drop_lease(lease)).await;
    let swept = done(room.backend.sweep(&room.scope).await);
    assert_eq!((swept.entries, swept.next_deadline), (0, None));
    assert_eq!(room.get("m", "t").await, Some(bytes("for good")));
}

pub(super) async fn what_is_refused_of_puts_and_deletions_says_why_and_changes_nothing(subject: Subject) {
    let room = Room::open(&subject).await;
    room.commit(room.begin().put("m", "a", "1").put("m", "b", "1").put("n", "c", "1")).await;
    room.commit(room.begin().put_bound("d", "e", "1", Binding::Ttl(LONG)).expire_map("d", Deadline::Renew(LONG))).await;
    // Of maps without deadlines, and with one.
    for with_deadline in [false, true] {
        let write = || {
            let both = room.begin().put("m", "b", "2").put("n", "d", "2").delete("m", "a").delete("n", "c");
            let both = if with_deadline { both.put("d", "f", "2").delete("d", "e") } else { both };
            both.expect_present("m", "a")
        };
        let cases = [
            (write().expect_fewer_than("n", 1), Found::Count(1)),
            (write().expect_equals("n", "c", "2"), Found::Value(Some(bytes("1")))),
            (write().expect_absent("m", "b"), Found::Value(Some(bytes("1")))),
            (write().expect_equals("m", "none", "1"), Found::Value(None)),
            (write().expect_lease_alive(LeaseId::random()), Found::LeaseExpired),
        ];
        for (transaction, found) in cases {
            for transaction in [transaction.clone(), transaction.without_previous()] {
                let error = room.refused(transaction).await;
                let failed = error.failed_expectation().map(|failed| (failed.index, failed.found.clone()));
                assert_eq!(failed, Some((1, found.clone())), "with a deadline: {with_deadline}");
            }
        }
    }
    assert_eq!(room.content("m").await.len() + room.content("n").await.len() + room.content("d").await.len(), 4);
    assert_eq!(room.get("m", "b").await, Some(bytes("1")));
    // In a map that is not there, and in one that ends.
    let both = room.begin().put("m", "b", "2").put("n", "d", "2").delete("m", "a").delete("n", "c");
    let both = both.put("d", "f", "2").delete("d", "e").put("new", "g", "2").delete("new", "h").delete("none", "i");
    let committed = room.commit(both).await;
    assert_eq!(committed.previous(4), None);
    assert_eq!(committed.previous(5), Some(&bytes("1")));
    for (map, key) in [("m", "b"), ("n", "d"), ("d", "f"), ("new", "g")] {
        let content = room.content(map).await;
        assert_eq!(content.into_iter().collect::<Vec<_>>(), [(key.to_owned(), bytes("2"))], "{map}");
    }
}

pub(super) async fn writes_of_many_tasks_are_all_kept(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.other_client().await;
    let writers = (0..8).map(|writer| {
        let room = if writer % 2 == 0 { &room } else { &other };
        async move {
            for i in 0..25 {
                room.commit(room.begin().put("m", format!("{writer}-{i}"), "v").add("m", "count", 1)).await;
            }
        }
    });
    futures::future::join_all(writers).await;
    assert_eq!(room.content("m").await.len(), 201);
    assert_eq!(room.get("m", "count").await, Some(bytes("200")));
    assert_eq!(room.revision("m").await, 200);
}
