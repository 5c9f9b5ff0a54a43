//! Change feeds: every commit once and in order, or a gap that says so.

use std::time::Duration;

use futures::future::join_all;

use super::{
    Subject,
    room::{Content, LONG, Room, apply, bytes, done, next_commit},
    soon,
};
use crate::{Binding, Change, Deadline, Duplicates, FeedItem, LeaseId, MapCommit, MapFeed, Revision, Version};

/// Reads a feed up to a version, and applies to the content what comes after `from`.
///
/// Returns false, with the rest unread, at a gap.
async fn catch_up(feed: &mut MapFeed, content: &mut Content, from: Option<Version>, to: Version) -> bool {
    if from.is_some_and(|from| from.includes(&to)) {
        return true;
    }
    loop {
        let commit = match soon("a commit of the feed", feed.next()).await {
            Some(FeedItem::Commit(commit)) => commit,
            Some(FeedItem::Gap(_)) => return false,
            None => panic!("the feed ended before {to}"),
        };
        let known = from.is_some_and(|from| from.incarnation == commit.incarnation && from.revision >= commit.after);
        if !known {
            apply(content, &commit);
        }
        if commit.version().is_some_and(|version| version.includes(&to)) {
            return true;
        }
    }
}

pub(super) async fn a_feed_tells_every_commit_with_absolute_values(subject: Subject) {
    let room = Room::open(&subject).await;
    let mut feed = room.feed("m").await;
    let put = |key: &str, value| Change::Put { key: key.into(), value: bytes(value) };
    let deleted = |key: &str| Change::Deleted { key: key.into() };
    let one = vec![bytes("a")];
    let steps = [
        (room.begin().put("m", "a", "1").put("m", "b", "2"), vec![put("a", "1"), put("b", "2")]),
        (room.begin().add("m", "n", 5).add("m", "n", -7), vec![put("n", "5"), put("n", "-2")]),
        (room.begin().list_append("m", "l", one, Duplicates::Keep), vec![put("l", "\u{91}")]),
        (room.begin().delete("m", "a").delete("m", "none").put("m", "a", "3"), vec![deleted("a"), put("a", "3")]),
        (room.begin().clear("m").put("m", "c", "4"), vec![Change::Cleared, put("c", "4")]),
        (room.begin().delete("m", "c"), vec![deleted("c")]),
        (room.begin().destroy_map("m"), vec![Change::Destroyed]),
    ];
    let mut incarnation = None;
    for (before, (transaction, changes)) in (0..).zip(steps) {
        let committed = room.commit(transaction).await;
        let commit = next_commit(&mut feed).await;
        assert_eq!((commit.before, commit.after), (Revision(before), Revision(before + 1)));
        assert_eq!(*incarnation.get_or_insert(commit.incarnation), commit.incarnation);
        assert_eq!(commit.version(), committed.version("m"));
        if before == 2 {
            // What a list looks like as a value is checked with the lists.
            assert!(matches!(commit.changes.as_slice(), [Change::Put { key, .. }] if &**key == "l"), "{commit:?}");
        } else {
            assert_eq!(commit.changes, changes);
        }
    }
}

pub(super) async fn a_feed_begins_before_its_map_exists_and_outlasts_it(subject: Subject) {
    let room = Room::open(&subject).await;
    let mut feed = room.feed("m").await;
    for _ in 0..3 {
        let committed = room.commit(room.begin().put("m", "k", "v")).await;
        let commit = next_commit(&mut feed).await;
        assert_eq!((commit.before, commit.version()), (Revision(0), committed.version("m")));
        room.commit(room.begin().destroy_map("m")).await;
        assert_eq!(next_commit(&mut feed).await.version(), None);
    }
}

pub(super) async fn a_feed_hears_nothing_from_before_it(subject: Subject) {
    let room = Room::open(&subject).await;
    for _ in 0..10 {
        room.commit(room.begin().put("m", "k", "old")).await;
    }
    let mut feed = room.feed("m").await;
    let committed = room.commit(room.begin().put("m", "k", "new")).await;
    assert_eq!(next_commit(&mut feed).await.version(), committed.version("m"));
}

pub(super) async fn a_feed_hears_only_its_own_map(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.in_scope(&format!("{}-other", room.scope));
    let mut feed = room.feed("m").await;
    room.commit(room.begin().put("n", "k", "v").put("m2", "k", "v")).await;
    other.commit(other.begin().put("m", "k", "v")).await;
    let committed = room.commit(room.begin().put("n", "k", "v").put("m", "k", "v")).await;
    assert_eq!(next_commit(&mut feed).await.version(), committed.version("m"));
    assert_eq!(feed.try_next(), None);
}

pub(super) async fn a_commit_that_changes_nothing_is_not_told(subject: Subject) {
    let room = Room::open(&subject).await;
    room.commit(room.begin().put("m", "k", "v")).await;
    let mut feed = room.feed("m").await;
    room.commit(room.begin().delete("m", "none").expire_map("m", Deadline::Renew(LONG))).await;
    room.refused(room.begin().expect_absent("m", "k").put("m", "k", "w")).await;
    room.refused(room.begin().put("m", "k", "w").add("m", "k", 1)).await;
    let committed = room.commit(room.begin().put("m", "k", "x")).await;
    let commit = next_commit(&mut feed).await;
    assert_eq!((commit.before, commit.version()), (Revision(1), committed.version("m")));
}

pub(super) async fn every_feed_of_every_client_hears_the_same(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.other_client().await;
    let mut feeds = vec![room.feed("m").await, room.feed("m").await, other.feed("m").await, other.feed("m").await];
    let writers = (0..8).map(|writer| {
        let room = if writer % 2 == 0 { &room } else { &other };
        async move {
            for i in 0..25 {
                room.commit(room.begin().put("m", format!("{writer}-{i}"), format!("{i}")).add("m", "n", 1)).await;
            }
        }
    });
    join_all(writers).await;
    let mut heard: Vec<Vec<MapCommit>> = Vec::new();
    for feed in &mut feeds {
        let mut commits = Vec::new();
        for before in 0..200 {
            let commit = next_commit(feed).await;
            assert_eq!((commit.before, commit.after), (Revision(before), Revision(before + 1)));
            commits.push(commit);
        }
        assert_eq!(feed.try_next(), None, "each commit comes once");
        heard.push(commits);
    }
    assert!(heard.iter().all(|commits| *commits == heard[0]), "all feeds tell the same");
    let mut folded = Content::new();
    heard[0].iter().for_each(|commit| apply(&mut folded, commit));
    assert_eq!(folded, room.content("m").await);
}

pub(super) async fn what_a_lease_and_a_sweep_delete_is_told(subject: Subject) {
    let room = Room::open(&subject).await;
    let lease = LeaseId::random();
    let bind = |key: &'static str| (key, Binding::Lease(lease));
    let put = [bind("a"), bind("b"), ("c", Binding::Ttl(super::room::SHORT))]
        .into_iter()
        .fold(room.begin().grant_lease(lease, LONG), |t, (key, binding)| t.put_bound("m", key, "v", binding));
    room.commit(put).await;
    let mut feed = room.feed("m").await;
    room.commit(room.begin().drop_lease(lease)).await;
    let commit = next_commit(&mut feed).await;
    let mut keys: Vec<&Change> = commit.changes.iter().collect();
    keys.sort_by_key(|change| format!("{change:?}"));
    assert_eq!(keys, [&Change::Deleted { key: "a".into() }, &Change::Deleted { key: "b".into() }]);
    room.sweep_until("the entry with a lifetime is swept", |swept| swept.entries == 1).await;
    let commit = next_commit(&mut feed).await;
    assert_eq!(commit.changes, [Change::Deleted { key: "c".into() }]);
    assert_eq!(commit.version(), room.version("m").await);
}

pub(super) async fn a_copy_made_while_others_write_becomes_exact(subject: Subject) {
    let room = Room::open(&subject).await;
    let writer = room.other_client().await;
    let fill = (0..500).fold(room.begin(), |fill, i| fill.put("m", format!("{i}"), "start"));
    room.commit(fill).await;
    let write = async {
        for i in 0..200 {
            let (put, delete) = (format!("{}", (i * 7) % 600), format!("{}", (i * 13) % 500));
            writer.commit(writer.begin().put("m", put, format!("{i}")).delete("m", delete)).await;
        }
    };
    let copy = async {
        let mut copies = Vec::new();
        for _ in 0..4 {
            let mut feed = room.feed("m").await;
            let first = room.version("m").await;
            let mut content = room.content("m").await;
            let Some(second) = room.version("m").await else { panic!("the map exists") };
            assert!(catch_up(&mut feed, &mut content, first, second).await, "the feed should have no gap");
            // From here the copy is exact, and stays so.
            copies.push((feed, content, second));
        }
        copies
    };
    let ((), copies) = tokio::join!(write, copy);
    let Some(last) = room.version("m").await else { panic!("the map exists") };
    let truth = room.content("m").await;
    for (mut feed, mut content, at) in copies {
        assert!(catch_up(&mut feed, &mut content, Some(at), last).await, "the feed should have no gap");
        assert_eq!(content, truth);
    }
}

pub(super) async fn a_reader_that_sleeps_finds_every_commit_or_a_gap(subject: Subject) {
    let room = Room::open(&subject).await;
    let mut sleeper = room.feed("m").await;
    let mut awake = room.feed("m").await;
    let mut last = None;
    for round in 0..20 {
        let value = "v".repeat(50_000);
        let rounds = (0..16).map(|i| {
            let transaction = room.begin().put("m", format!("{round}-{i}"), value.clone());
            let room = &room;
            async move { room.commit(transaction).await }
        });
        for committed in join_all(rounds).await {
            last = last.max(committed.version("m").map(|version| version.revision));
        }
        for _ in 0..16 {
            next_commit(&mut awake).await;
        }
    }
    let mut at: Option<Revision> = Some(Revision(0));
    while at != last {
        match soon("the rest of the feed", sleeper.next()).await {
            Some(FeedItem::Commit(commit)) => {
                assert!(at.is_none_or(|at| at == commit.before), "a hole without a gap: {at:?}, then {commit:?}");
                at = Some(commit.after);
            }
            Some(FeedItem::Gap(_)) => at = None,
            None => panic!("the feed ended"),
        }
    }
}

pub(super) async fn dropping_a_feed_or_a_wait_for_it_disturbs_nobody(subject: Subject) {
    let room = Room::open(&subject).await;
    let mut kept = room.feed("m").await;
    for round in 0..20 {
        let mut dropped = room.feed("m").await;
        let wait = tokio::time::timeout(Duration::from_millis(1), kept.next());
        assert!(wait.await.is_err(), "nothing was committed yet");
        let committed = room.commit(room.begin().put("m", "k", format!("{round}"))).await;
        assert_eq!(next_commit(&mut dropped).await.version(), committed.version("m"));
        drop(dropped);
        assert_eq!(next_commit(&mut kept).await.version(), committed.version("m"));
    }
}

pub(super) async fn hundreds_of_feeds_are_served_side_by_side(subject: Subject) {
    let room = Room::open(&subject).await;
    let mut feeds = done(
        join_all((0..300).map(|i| {
            let map = room.map(&format!("m{i}"));
            let backend = room.backend.clone();
            async move { backend.map_feed(&map).await }
        }))
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>(),
    );
    let put = (0..300).fold(room.begin(), |put, i| put.put(format!("m{i}"), "k", format!("{i}")));
    room.commit(put).await;
    for (i, feed) in feeds.iter_mut().enumerate() {
        let commit = next_commit(feed).await;
        assert_eq!(commit.changes, [Change::Put { key: "k".into(), value: format!("{i}").into() }]);
    }
}
