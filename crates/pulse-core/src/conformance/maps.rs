//! Single keys of maps.

use bytes::Bytes;

use super::{
    Subject,
    room::{Room, bytes, done},
};

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
