//! Sweeps: what has passed its deadline goes, once, as a change like any other.

use super::{
    Subject, eventually,
    room::{Content, LONG, Room, SHORT, apply, next_commit},
};
use crate::{Binding, Deadline, FeedItem, LeaseId, Swept};

pub(super) async fn a_scope_without_deadlines_has_nothing_to_sweep(subject: Subject) {
    let room = Room::open(&subject).await;
    assert_eq!(room.sweep().await, Swept::default());
    room.commit(room.begin().put("m", "k", "v")).await;
    assert_eq!(room.sweep().await, Swept::default());
}

pub(super) async fn a_sweep_says_when_the_next_deadline_comes(subject: Subject) {
    let room = Room::open(&subject).await;
    let next = async || room.sweep().await.next_deadline;
    let lease = LeaseId::random();
    room.commit(room.begin().put("m", "k", "v").expire_map("m", Deadline::Renew(LONG * 3))).await;
    for (deadline, set) in [
        (LONG * 3, room.begin()),
        (LONG * 2, room.begin().put_bound("m", "l", "v", Binding::Ttl(LONG * 2))),
        (LONG, room.begin().grant_lease(lease, LONG)),
    ] {
        room.commit(set).await;
        let next = next().await;
        assert!(next.is_some_and(|next| next <= deadline && next > deadline - LONG / 2), "{next:?} for {deadline:?}");
    }
    room.commit(room.begin().drop_lease(lease).put("m", "l", "v").destroy_map("m")).await;
    assert_eq!(next().await, None, "all deadlines were taken back");
}

pub(super) async fn an_expired_lease_is_swept_with_its_entries_in_all_maps(subject: Subject) {
    let room = Room::open(&subject).await;
    let (short, long) = (LeaseId::random(), LeaseId::random());
    let mut bind = room.begin().grant_lease(short, SHORT).grant_lease(long, LONG);
    for map in ["m", "n"] {
        for i in 0..3 {
            bind = bind.put_bound(map, format!("short-{i}"), "v", Binding::Lease(short));
        }
        bind = bind.put_bound(map, "long", "v", Binding::Lease(long)).put(map, "permanent", "v");
    }
    room.commit(bind).await;
    let mut feed = room.feed("m").await;
    let mut content = room.content("m").await;
    let swept = room.sweep_until("the lease is swept", |swept| swept.entries == 6).await;
    assert_eq!(swept.leases, [short]);
    for map in ["m", "n"] {
        let keys: Vec<String> = room.content(map).await.into_keys().collect();
        assert_eq!(keys, ["long", "permanent"]);
    }
    while content.len() > 2 {
        apply(&mut content, &next_commit(&mut feed).await);
    }
    assert_eq!(content, room.content("m").await);
    assert_eq!(room.sweep().await.entries, 0, "it was swept once");
    assert!(room.holds(room.begin().expect_lease_alive(long)).await);
}

pub(super) async fn many_entries_are_swept_in_bounded_steps(subject: Subject) {
    let room = Room::open(&subject).await;
    let lease = LeaseId::random();
    room.commit(room.begin().grant_lease(lease, LONG)).await;
    for part in 0..3 {
        let bind = (0..1000).fold(room.begin(), |bind, i| {
            let key = format!("{part}-{i}");
            bind.put_bound("leased", key.as_str(), "v", Binding::Lease(lease)).put_bound(
                "mortal",
                key,
                "v",
                Binding::Ttl(SHORT),
            )
        });
        room.commit(bind).await;
    }
    room.commit(room.begin().put("leased", "permanent", "v").put("mortal", "permanent", "v")).await;
    room.commit(room.begin().renew_lease(lease, SHORT)).await;
    let swept =
        room.sweep_until("everything is swept", |swept| swept.entries == 6000 && swept.next_deadline.is_none()).await;
    assert_eq!(swept.leases, [lease], "the lease is reported once");
    for map in ["leased", "mortal"] {
        let keys: Vec<String> = room.content(map).await.into_keys().collect();
        assert_eq!(keys, ["permanent"], "{map}");
    }
}

pub(super) async fn two_clients_that_sweep_do_the_work_once(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.other_client().await;
    let fill = (0..500).fold(room.begin(), |fill, i| fill.put_bound("m", format!("{i}"), "v", Binding::Ttl(SHORT)));
    room.commit(fill).await;
    let mut feed = room.feed("m").await;
    let mut total = 0;
    eventually("both have swept", async || {
        let (a, b, c, d) = tokio::join!(room.sweep(), other.sweep(), room.sweep(), other.sweep());
        total += a.entries + b.entries + c.entries + d.entries;
        if room.content("m").await.is_empty() { Ok(()) } else { Err(total) }
    })
    .await;
    assert_eq!(total, 500);
    let mut content: Content = (0..500).map(|i| (format!("{i}"), "v".into())).collect();
    while !content.is_empty() {
        apply(&mut content, &next_commit(&mut feed).await);
    }
    assert_eq!(feed.try_next(), None::<FeedItem>);
}
