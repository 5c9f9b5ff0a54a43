//! Closing a client: an end for everything that hangs on it, and for nothing else.

use std::time::Duration;

use futures::future::join_all;

use super::{
    Subject,
    room::{Room, WAIT, bytes, consumer, done, next_commit, valid},
    soon,
};
use crate::{Acks, Error, EventId, Group, GroupStart, PendingQuery};

pub(super) async fn every_call_after_it_fails(subject: Subject) {
    let room = Room::open(&subject).await;
    let keeper = room.other_client().await;
    room.append("s", "e").await;
    let (map, stream, group, name) = (room.map("m"), room.stream("s"), room.group("s", "g").await, consumer("c"));
    let backend = &room.backend;
    soon("the client to close", backend.close()).await;
    let answers = [
        ("commit", backend.commit(room.begin().put("m", "k", "v")).await.err()),
        ("map_version", backend.map_version(&map).await.err()),
        ("map_page", backend.map_page(&map, None, 1).await.err()),
        ("map_get", backend.map_get(&map, &["k"]).await.err()),
        ("map_feed", backend.map_feed(&map).await.err()),
        ("stream_read", backend.stream_read(&stream, EventId::ZERO, 1, WAIT).await.err()),
        ("stream_info", backend.stream_info(&stream).await.err()),
        ("stream_detail", backend.stream_detail(&stream).await.err()),
        ("group_create", backend.group_create(&stream, &valid(Group::new("h")), GroupStart::Newest).await.err()),
        ("group_destroy", backend.group_destroy(&stream, &group).await.err()),
        ("group_read", backend.group_read(&stream, &group, &name, 1, WAIT, Acks::Explicit).await.err()),
        ("group_claim", backend.group_claim(&stream, &group, &name, Duration::ZERO, 1).await.err()),
        ("group_set_idle", backend.group_set_idle(&stream, &group, &name, &[EventId::MAX], WAIT).await.err()),
        ("group_pending", backend.group_pending(&stream, &group, PendingQuery::new(1)).await.err()),
        ("group_missed", backend.group_missed(&stream, &group).await.err()),
        ("group_info", backend.group_info(&stream, &group).await.err()),
        ("group_remove_consumer", backend.group_remove_consumer(&stream, &group, &name).await.err()),
        ("sweep", backend.sweep(&room.scope).await.err()),
        ("server_time", backend.server_time(&room.scope).await.err()),
    ];
    for (call, answer) in answers {
        assert!(matches!(answer, Some(Error::Closed)), "{call} met {answer:?}");
    }
    assert!(done(keeper.backend.group_info(&stream, &group).await).is_some(), "nothing of this happened");
    assert_eq!(keeper.version("m").await, None);
}

pub(super) async fn it_ends_the_waits(subject: Subject) {
    let room = Room::open(&subject).await;
    let (stream, group, name) = (room.stream("s"), room.group("s", "g").await, consumer("c"));
    let close = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        room.backend.close().await;
    };
    let (read, taken, ()) = soon("the waits to end", async {
        tokio::join!(
            room.backend.stream_read(&stream, EventId::ZERO, 1, WAIT * 4),
            room.backend.group_read(&stream, &group, &name, 1, WAIT * 4, Acks::Explicit),
            close
        )
    })
    .await;
    assert!(matches!(read, Err(Error::Closed)), "the read met {read:?}");
    assert!(matches!(taken, Err(Error::Closed)), "the read of the group met {taken:?}");
}

pub(super) async fn it_ends_the_feeds_after_what_they_hold(subject: Subject) {
    let room = Room::open(&subject).await;
    let mut feeds = vec![room.feed("m").await, room.feed("m").await, room.feed("n").await];
    room.commit(room.begin().put("m", "k", "v")).await;
    next_commit(&mut feeds[0]).await;
    room.backend.close().await;
    for feed in &mut feeds {
        let rest = async { while feed.next().await.is_some() {} };
        soon("the end of the feed", rest).await;
        assert_eq!(feed.next().await, None, "an ended feed stays so");
    }
}

pub(super) async fn it_may_be_done_twice(subject: Subject) {
    let room = Room::open(&subject).await;
    soon("the first close", room.backend.close()).await;
    soon("the second close", room.backend.close()).await;
    let fresh = Room::open(&subject).await;
    soon("closing at the same time", join_all((0..5).map(|_| fresh.backend.close()))).await;
}

pub(super) async fn it_leaves_other_clients_alone(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.other_client().await;
    room.commit(room.begin().put("m", "k", "v")).await;
    let mut feed = other.feed("m").await;
    let stream = other.stream("s");
    let wait = other.backend.stream_read(&stream, EventId::ZERO, 1, WAIT);
    let close = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        room.backend.close().await;
        other.append("s", "e").await
    };
    let (entries, id) = tokio::join!(soon("the event", wait), close);
    assert_eq!(done(entries).entries.into_iter().map(|entry| entry.id).collect::<Vec<_>>(), [id]);
    assert_eq!(other.get("m", "k").await, Some(bytes("v")), "the data stay");
    let committed = other.commit(other.begin().put("m", "k", "w")).await;
    assert_eq!(next_commit(&mut feed).await.version(), committed.version("m"));
}
