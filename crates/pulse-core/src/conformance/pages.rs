//! Reading whole maps in pages.

use std::collections::BTreeSet;

use super::{
    Subject,
    room::{Room, done},
};
use crate::{Cursor, Error};

async fn filled(subject: &Subject, entries: usize) -> Room {
    let room = Room::open(subject).await;
    let fill = (0..entries).fold(room.begin(), |fill, i| fill.put("m", format!("key-{i}"), format!("value-{i}")));
    room.commit(fill).await;
    room
}

pub(super) async fn a_map_that_does_not_exist_has_one_empty_page(subject: Subject) {
    let room = Room::open(&subject).await;
    let page = done(room.backend.map_page(&room.map("none"), None, 10).await);
    assert!(page.entries.is_empty() && page.next.is_none() && page.skipped == 0, "{page:?}");
}

pub(super) async fn the_pages_hold_every_entry(subject: Subject) {
    let room = filled(&subject, 3000).await;
    let map = room.map("m");
    for limit in [1, 7, 100, 5000] {
        let mut keys = BTreeSet::new();
        let mut cursor: Option<Cursor> = None;
        loop {
            let page = done(room.backend.map_page(&map, cursor.as_ref(), limit).await);
            let size = page.entries.len();
            assert!(size <= 20 * limit + 200, "a page is about as large as asked for: {size} against {limit}");
            for (key, value) in page.entries {
                assert_eq!(key.strip_prefix("key-").map(|i| format!("value-{i}").into()), Some(value));
                keys.insert(key);
            }
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        assert_eq!(keys.len(), 3000);
    }
}

pub(super) async fn a_limit_of_zero_still_makes_progress(subject: Subject) {
    let room = filled(&subject, 5).await;
    let map = room.map("m");
    let mut keys = BTreeSet::new();
    let mut cursor = None;
    for _ in 0..100 {
        let page = done(room.backend.map_page(&map, cursor.as_ref(), 0).await);
        keys.extend(page.entries.into_iter().map(|(key, _)| key));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((keys.len(), cursor), (5, None));
}

pub(super) async fn a_key_that_stays_is_seen_while_others_come_and_go(subject: Subject) {
    let room = filled(&subject, 1000).await;
    let other = room.other_client().await;
    let map = room.map("m");
    let mut keys = BTreeSet::new();
    let mut cursor = None;
    let mut round = 0;
    loop {
        let page = done(room.backend.map_page(&map, cursor.as_ref(), 50).await);
        keys.extend(page.entries.into_iter().map(|(key, _)| key));
        let Some(next) = page.next else { break };
        cursor = Some(next);
        // Odd keys go and strangers come, so that the map both shrinks and grows under the reader.
        let churn = (0..40).fold(other.begin(), |churn, i| {
            churn.delete("m", format!("key-{}", (round * 80 + 2 * i + 1) % 1000)).put(
                "m",
                format!("new-{round}-{i}"),
                "v",
            )
        });
        other.commit(churn).await;
        round += 1;
        assert!(round < 1000, "the pass comes to its end although others write");
    }
    for i in (0..1000).step_by(2) {
        assert!(keys.contains(&*format!("key-{i}")), "key-{i} was there all the time");
    }
}

pub(super) async fn a_cursor_of_a_stranger_is_refused(subject: Subject) {
    let room = filled(&subject, 10).await;
    for text in ["", "no cursor", "-1", "99999999999999999999999999", "\0", "1;2"] {
        let result = room.backend.map_page(&room.map("m"), Some(&Cursor(text.into())), 10).await;
        assert!(matches!(result, Err(Error::InvalidRequest { .. })), "{text:?} met {result:?}");
    }
}
