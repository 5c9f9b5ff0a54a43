//! Lists: values that are MessagePack arrays of byte strings.

use bytes::Bytes;

use super::{
    Subject,
    room::{LONG, Room, SHORT, bytes, next_commit},
};
use crate::{Binding, Change, Duplicates, Error, LeaseId, WriteResult};

fn items(texts: &[&'static str]) -> Vec<Bytes> {
    texts.iter().copied().map(bytes).collect()
}

fn list(texts: &[&'static str], changed: bool) -> WriteResult {
    WriteResult::List { items: items(texts), changed }
}

pub(super) async fn an_append_returns_the_list_after_it(subject: Subject) {
    let room = Room::open(&subject).await;
    let append = |texts| room.begin().list_append("m", "l", items(texts), Duplicates::Keep);
    assert_eq!(room.commit(append(&["a", "b"])).await.results, [list(&["a", "b"], true)]);
    assert_eq!(room.commit(append(&["a"])).await.results, [list(&["a", "b", "a"], true)]);
}

pub(super) async fn appending_unique_items_skips_what_the_list_has(subject: Subject) {
    let room = Room::open(&subject).await;
    let append = |texts| room.begin().list_append("m", "l", items(texts), Duplicates::Skip);
    assert_eq!(room.commit(append(&["a", "b", "a"])).await.results, [list(&["a", "b"], true)]);
    assert_eq!(room.commit(append(&["b", "c", "c"])).await.results, [list(&["a", "b", "c"], true)]);
    assert_eq!(room.commit(append(&["c", "a"])).await.results, [list(&["a", "b", "c"], false)]);
    assert_eq!(room.revision("m").await, 2, "the last append changed nothing");
}

pub(super) async fn appending_nothing_changes_nothing(subject: Subject) {
    let room = Room::open(&subject).await;
    for duplicates in [Duplicates::Keep, Duplicates::Skip] {
        let committed = room.commit(room.begin().list_append("m", "l", Vec::new(), duplicates)).await;
        assert_eq!(committed.results, [list(&[], false)]);
        assert_eq!(room.version("m").await, None);
    }
    room.commit(room.begin().list_append("m", "l", items(&["a"]), Duplicates::Keep)).await;
    let committed = room.commit(room.begin().list_append("m", "l", Vec::new(), Duplicates::Keep)).await;
    assert_eq!(committed.results, [list(&["a"], false)]);
    assert_eq!(room.revision("m").await, 1);
}

pub(super) async fn removing_takes_out_every_occurrence(subject: Subject) {
    let room = Room::open(&subject).await;
    let fill = room.begin().list_append("m", "l", items(&["a", "b", "a", "c", "b"]), Duplicates::Keep);
    room.commit(fill).await;
    let remove = |texts| room.begin().list_remove("m", "l", items(texts));
    assert_eq!(room.commit(remove(&["a", "c", "none"])).await.results, [list(&["b", "b"], true)]);
    assert_eq!(room.commit(remove(&["none"])).await.results, [list(&["b", "b"], false)]);
    assert_eq!(room.commit(remove(&[])).await.results, [list(&["b", "b"], false)]);
    assert_eq!(room.revision("m").await, 2);
}

pub(super) async fn a_list_left_empty_is_deleted_with_its_key(subject: Subject) {
    let room = Room::open(&subject).await;
    let mut feed = room.feed("m").await;
    room.commit(room.begin().list_append("m", "l", items(&["a", "a"]), Duplicates::Keep)).await;
    let remove = || room.begin().list_remove("m", "l", items(&["a"]));
    assert_eq!(room.commit(remove()).await.results, [list(&[], true)]);
    assert_eq!(room.get("m", "l").await, None);
    assert_eq!(room.commit(remove()).await.results, [list(&[], false)]);
    next_commit(&mut feed).await;
    assert_eq!(next_commit(&mut feed).await.changes, [Change::Deleted { key: "l".into() }]);
}

pub(super) async fn items_are_kept_to_the_byte(subject: Subject) {
    let room = Room::open(&subject).await;
    let long = Bytes::from(vec![7; 70_000]);
    let odd = vec![Bytes::new(), Bytes::from_static(&[0, 0xff]), bytes("a"), long, Bytes::from(vec![8; 300])];
    let many: Vec<Bytes> = (0..70_000_u32).map(|i| Bytes::from(i.to_le_bytes().to_vec())).collect();
    for items in [odd, many[..20].to_vec(), many] {
        let (first, last) = items.split_at(items.len() - 1);
        let start = room.begin().delete("m", "l").list_append("m", "l", first.to_vec(), Duplicates::Keep);
        room.commit(start).await;
        let committed = room.commit(room.begin().list_append("m", "l", last.to_vec(), Duplicates::Keep)).await;
        let whole = WriteResult::List { items, changed: true };
        assert!(committed.results == [whole], "the list comes back as it was appended");
    }
}

pub(super) async fn the_value_of_a_list_is_messagepack(subject: Subject) {
    let room = Room::open(&subject).await;
    let mut feed = room.feed("m").await;
    room.commit(room.begin().list_append("m", "l", items(&["a", "bc"]), Duplicates::Keep)).await;
    let value = Bytes::from_static(b"\x92\xc4\x01a\xc4\x02bc");
    assert_eq!(room.get("m", "l").await, Some(value.clone()));
    assert_eq!(next_commit(&mut feed).await.changes, [Change::Put { key: "l".into(), value: value.clone() }]);
    let copy = room.begin().put("m", "copy", value).list_append("m", "copy", items(&["d"]), Duplicates::Skip);
    assert_eq!(room.commit(copy).await.results[1], list(&["a", "bc", "d"], true));
}

pub(super) async fn a_value_that_is_no_list_is_refused(subject: Subject) {
    let room = Room::open(&subject).await;
    let wrong: [&'static [u8]; 6] = [b"", b"text", b"5", b"\x80", b"\x92\xc4\x01a", b"\x91\xc4\x01ab"];
    for value in wrong {
        room.commit(room.begin().put("m", "l", value)).await;
        let append = room.begin().list_append("m", "l", items(&["a"]), Duplicates::Keep);
        for transaction in [append, room.begin().list_remove("m", "l", items(&["a"]))] {
            let error = room.refused(transaction).await;
            let Error::WrongValue { map, key, .. } = &error else { panic!("{value:?} met {error:?}") };
            assert!(map.ends_with('m') && key == "l", "the error names the key: {error:?}");
        }
    }
    room.commit(room.begin().list_append("m", "list", items(&["a"]), Duplicates::Keep)).await;
    let error = room.refused(room.begin().add("m", "list", 1)).await;
    assert!(matches!(error, Error::WrongValue { .. }), "a list is no counter: {error:?}");
}

pub(super) async fn list_operations_keep_the_binding_of_the_key(subject: Subject) {
    let room = Room::open(&subject).await;
    let lease = LeaseId::random();
    let one = Bytes::from_static(b"\x91\xc4\x01a");
    let bind = room.begin().grant_lease(lease, LONG).put_bound("m", "leased", one.clone(), Binding::Lease(lease));
    room.commit(bind.put_bound("m", "mortal", one.clone(), Binding::Ttl(SHORT)).put("m", "permanent", one)).await;
    for key in ["leased", "mortal", "permanent"] {
        let append = room.begin().list_append("m", key, items(&["b"]), Duplicates::Keep);
        room.commit(append.list_remove("m", key, items(&["a"]))).await;
    }
    assert_eq!(room.commit(room.begin().drop_lease(lease)).await.count(0), Some(1));
    room.sweep_until("the mortal entry is gone", |swept| swept.entries == 1).await;
    let left: Vec<String> = room.content("m").await.into_keys().collect();
    assert_eq!(left, ["permanent"]);
}
