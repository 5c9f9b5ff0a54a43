//! Transactions: all or nothing, in order, never seen half done.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;

use super::{
    Subject,
    room::{LONG, Room, bytes, done},
};
use crate::{Binding, Duplicates, Error, EventId, LeaseId, NewEvent, WriteResult};

pub(super) async fn an_empty_transaction_is_committed(subject: Subject) {
    let room = Room::open(&subject).await;
    let committed = room.commit(room.begin()).await;
    assert!(committed.results.is_empty() && committed.versions.is_empty(), "nothing was written: {committed:?}");
}

pub(super) async fn each_write_has_its_result_at_its_place(subject: Subject) {
    let room = Room::open(&subject).await;
    let lease = LeaseId::random();
    let transaction = room
        .begin()
        .put("m", "a", "1")
        .append("s", NewEvent::new("e", "p"))
        .add("m", "n", 5)
        .list_append("m", "l", vec![bytes("x")], Duplicates::Keep)
        .grant_lease(lease, LONG)
        .delete("m", "a")
        .clear("other");
    let committed = room.commit(transaction).await;
    let [put, append, add, list, grant, delete, clear] = committed.results.as_slice() else {
        panic!("seven writes have seven results: {committed:?}");
    };
    assert_eq!(*put, WriteResult::Previous(None));
    assert!(matches!(append, WriteResult::Event(id) if *id > EventId::ZERO), "{append:?}");
    assert_eq!(*add, WriteResult::Counter(5));
    assert_eq!(*list, WriteResult::List { items: vec![bytes("x")], changed: true });
    assert_eq!(*grant, WriteResult::Done);
    assert_eq!(*delete, WriteResult::Previous(Some(bytes("1"))));
    assert_eq!(*clear, WriteResult::Count(0));
}

pub(super) async fn what_is_replaced_is_left_out_where_nobody_asks(subject: Subject) {
    let room = Room::open(&subject).await;
    room.commit(room.begin().put("m", "a", "1").put("m", "b", "1").put("n", "c", "1").put("bound", "x", "1")).await;
    let bound = room.begin().put_bound("bound", "y", "1", Binding::Ttl(LONG)).without_previous();
    assert_eq!(room.commit(bound).await.results, [WriteResult::Done]);
    // Into one map, into several, of a key twice, with what is bound, and with what is no put.
    let ways = [
        room.begin().put("m", "a", "2"),
        room.begin().put("m", "a", "3").put("m", "b", "3"),
        room.begin().expect_equals("m", "a", "3").put("m", "a", "4").put("m", "d", "4").delete("n", "c"),
        room.begin().expect_present("n", "d").put("m", "a", "5").delete("n", "c").delete("n", "d"),
        room.begin().put("n", "e", "1").put("m", "a", "6").put("m", "a", "7"),
        room.begin().put("m", "e", "1").put("bound", "y", "2"),
        room.begin().delete("bound", "x").delete("bound", "y").put("m", "f", "1"),
    ];
    room.commit(room.begin().put("n", "d", "1")).await;
    for way in ways {
        let count = way.writes().len();
        let committed = room.commit(way.without_previous()).await;
        assert_eq!(committed.results, vec![WriteResult::Done; count]);
        assert!(committed.versions.iter().all(|(_, version)| version.is_some()), "{committed:?}");
    }
    let added = room.commit(room.begin().add("m", "n", 5).put("m", "a", "8").without_previous()).await;
    assert_eq!(added.results, [WriteResult::Counter(5), WriteResult::Done]);
    for (map, key, value) in [
        ("m", "a", Some("8")),
        ("m", "b", Some("3")),
        ("m", "d", Some("4")),
        ("m", "e", Some("1")),
        ("m", "f", Some("1")),
        ("n", "c", None),
        ("n", "d", None),
        ("n", "e", Some("1")),
        ("bound", "x", None),
        ("bound", "y", None),
    ] {
        assert_eq!(room.get(map, key).await, value.map(bytes), "{map} {key}");
    }
}

pub(super) async fn later_writes_see_what_earlier_ones_did(subject: Subject) {
    let room = Room::open(&subject).await;
    let transaction = room
        .begin()
        .put("m", "k", "1")
        .put("m", "k", "2")
        .add("m", "k", 40)
        .delete("m", "k")
        .delete("m", "k")
        .put("m", "k", "last")
        .clear("m")
        .put("m", "k", "kept");
    let committed = room.commit(transaction).await;
    assert_eq!(committed.previous(0), None);
    assert_eq!(committed.previous(1), Some(&bytes("1")));
    assert_eq!(committed.counter(2), Some(42));
    assert_eq!(committed.previous(3), Some(&bytes("42")));
    assert_eq!(committed.previous(4), None);
    assert_eq!(committed.count(6), Some(1));
    assert_eq!(room.get("m", "k").await, Some(bytes("kept")));
}

pub(super) async fn versions_are_listed_once_for_each_named_map_in_order_of_mention(subject: Subject) {
    let room = Room::open(&subject).await;
    let transaction = room.begin().put("b", "k", "v").delete("none", "k").put("a", "k", "v").put("b", "l", "v");
    let committed = room.commit(transaction).await;
    let names: Vec<&str> = committed.versions.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["b", "none", "a"]);
    assert_eq!(committed.version("none"), None, "it does not exist");
    for map in ["a", "b"] {
        assert!(committed.version(map).is_some(), "{map} exists");
        assert_eq!(committed.version(map), room.version(map).await);
    }
}

pub(super) async fn a_write_that_fails_undoes_the_whole_transaction(subject: Subject) {
    let room = Room::open(&subject).await;
    room.commit(room.begin().put("m", "text", "no number").put("m", "k", "old")).await;
    let version = room.version("m").await;
    let mut feed = room.feed("m").await;
    let lease = LeaseId::random();
    let transaction = room
        .begin()
        .put("m", "k", "new")
        .put("fresh", "k", "v")
        .delete("m", "text")
        .put("m", "text", "still no number")
        .append("s", NewEvent::new("e", "p"))
        .grant_lease(lease, LONG)
        .put_bound("m", "bound", "v", Binding::Lease(lease))
        .destroy_map("m")
        .put("m", "text", "no number either")
        .add("m", "text", 1);
    let error = room.refused(transaction).await;
    assert!(matches!(error, Error::WrongValue { .. }), "{error:?}");
    assert_eq!(room.version("m").await, version);
    assert_eq!(room.get("m", "k").await, Some(bytes("old")));
    assert_eq!(room.get("m", "bound").await, None);
    assert_eq!(room.version("fresh").await, None);
    assert_eq!(done(room.backend.stream_info(&room.stream("s")).await), None);
    assert!(room.holds(room.begin().expect_lease_expired(lease)).await, "the lease was never granted");
    room.commit(room.begin().put("m", "next", "v")).await;
    let commit = super::room::next_commit(&mut feed).await;
    assert_eq!(Some(commit.before), version.map(|version| version.revision), "the feed saw nothing of it");
}

pub(super) async fn of_racing_commits_that_expect_the_same_exactly_one_goes_through(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.other_client().await;
    for round in 0..5 {
        let key = format!("round-{round}");
        let racers = (0..16).map(|i| {
            let room = if i % 2 == 0 { &room } else { &other };
            let transaction = room.begin().expect_absent("m", key.as_str()).put("m", key.as_str(), format!("{i}"));
            async move { (i, room.backend.commit(transaction).await) }
        });
        let mut winners = Vec::new();
        for (i, result) in join_all(racers).await {
            match result {
                Ok(_) => winners.push(i),
                Err(error) => assert!(error.is_conflict(), "{error:?}"),
            }
        }
        let [winner] = winners.as_slice() else { panic!("one of 16 should have won, not {winners:?}") };
        assert_eq!(room.get("m", &key).await, Some(Bytes::from(format!("{winner}"))));
    }
    assert_eq!(room.revision("m").await, 5);
}

pub(super) async fn nobody_sees_half_a_commit(subject: Subject) {
    let room = Room::open(&subject).await;
    let reader = room.other_client().await;
    room.commit(room.begin().put("m", "a", "0").put("m", "b", "0")).await;
    let write = async {
        for i in 1..=100 {
            room.commit(room.begin().put("m", "a", format!("{i}")).put("m", "b", format!("{i}"))).await;
        }
    };
    let read = async {
        loop {
            let values = done(reader.backend.map_get(&reader.map("m"), &["a", "b"]).await);
            assert_eq!(values[0], values[1], "both keys are always written together");
            if values[0].as_deref() == Some(b"100") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::join!(write, read);
}

pub(super) async fn scopes_maps_and_streams_of_like_names_are_apart(subject: Subject) {
    let base: u64 = rand::random();
    let home = Room::open(&subject).await;
    // Each pair would be one and the same if names were only joined, or braces, colons or escapes taken for syntax.
    let pairs = [("", "a:b"), (":a", "b"), ("}", "m"), ("{", "m"), ("{a}", "m"), ("{a}{b}", "m"), ("%7D", "m")];
    let odd = [(" ", "m\n"), ("\n", "m "), ("\0", "\0"), ("ü", "日本"), ("%", "%25"), ("%25", "%"), ("m", "M")];
    let all: Vec<(String, &str)> =
        pairs.iter().chain(&odd).map(|(scope, name)| (format!("conformance-{base:016x}{scope}"), *name)).collect();
    for (i, (scope, name)) in all.iter().enumerate() {
        let room = home.in_scope(scope);
        let event = NewEvent::new(format!("event-{i}"), "p");
        room.commit(room.begin().put(*name, "k", format!("{i}")).append(*name, event)).await;
    }
    for (i, (scope, name)) in all.iter().enumerate() {
        let room = home.in_scope(scope);
        assert_eq!(room.get(name, "k").await, Some(Bytes::from(format!("{i}"))), "map {name:?} of {scope:?}");
        assert_eq!(room.revision(name).await, 1, "map {name:?} of {scope:?}");
        let events = room.read(name).await;
        let names: Vec<_> =
            events.iter().map(|entry| entry.event.as_ref().map(|event| event.name.to_string())).collect();
        assert_eq!(names, [Ok(format!("event-{i}"))], "stream {name:?} of {scope:?}");
    }
}

pub(super) async fn what_belongs_to_another_scope_is_refused_by_name(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.in_scope(&format!("{}-other", room.scope));
    let lease = LeaseId::random();
    other.commit(other.begin().grant_lease(lease, LONG)).await;
    let binding = || Binding::Session { lease, scope: other.scope.clone() };
    let foreign = [
        room.begin().put("m", "k", "v").within(&other.scope, "stream log").append("log", NewEvent::new("e", "p")),
        room.begin().put_bound("m", "k", "v", binding()),
    ];
    for (transaction, subject) in foreign.into_iter().zip(["stream log", &lease.to_string()]) {
        let refused = room.backend.commit(transaction).await.unwrap_err();
        assert!(matches!(refused, Error::OtherScope { .. }), "{refused:?}");
        let message = refused.to_string();
        assert!(message.contains(subject), "{message}");
        let scopes = [format!("{:?}", room.scope.as_str()), format!("{:?}", other.scope.as_str())];
        assert!(scopes.iter().all(|scope| message.contains(scope)), "{message}");
    }
    assert_eq!((room.get("m", "k").await, room.read("log").await.len()), (None, 0), "nothing was written");
    other.commit(other.begin().within(&other.scope, "map m").put_bound("m", "k", "v", binding())).await;
    other.commit(other.begin().drop_lease(lease)).await;
    assert_eq!(other.get("m", "k").await, None, "it was bound to the lease");
}

pub(super) async fn another_client_sees_what_was_committed(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.other_client().await;
    let committed = room.commit(room.begin().put("m", "k", "v").append("s", NewEvent::new("e", "p"))).await;
    assert_eq!(other.get("m", "k").await, Some(bytes("v")));
    assert_eq!(other.version("m").await, committed.version("m"));
    assert_eq!(other.ids("s").await, committed.event_id(1).into_iter().collect::<Vec<_>>());
}

pub(super) async fn a_transaction_holds_thousands_of_writes(subject: Subject) {
    let room = Room::open(&subject).await;
    let mut feed = room.feed("m").await;
    let fill = (0..4000).fold(room.begin(), |fill, i| fill.put("m", format!("key-{i}"), format!("{i}")));
    let committed = room.commit(fill).await;
    assert_eq!(committed.results.len(), 4000);
    assert_eq!(room.revision("m").await, 1);
    assert_eq!(super::room::next_commit(&mut feed).await.changes.len(), 4000);
    assert_eq!(room.content("m").await.len(), 4000);
}

pub(super) async fn a_transaction_holds_a_megabyte(subject: Subject) {
    let room = Room::open(&subject).await;
    let mut feed = room.feed("m").await;
    let value = Bytes::from((0..1 << 20).map(|i: u32| i.to_le_bytes()[0]).collect::<Vec<u8>>());
    room.commit(room.begin().put("m", "k", value.clone()).append("s", NewEvent::new("e", value.clone()))).await;
    assert!(room.get("m", "k").await == Some(value.clone()), "the value comes back as it was");
    let events = room.read("s").await;
    assert!(
        events.iter().all(|entry| entry.event.as_ref().is_ok_and(|event| event.payload == value)),
        "and the payload"
    );
    let commit = super::room::next_commit(&mut feed).await;
    assert!(commit.changes == [crate::Change::Put { key: "k".into(), value }], "and the change in the feed");
}
