//! Leases, and the entries that are bound to them.

use super::{
    Subject,
    room::{LONG, MODERATE, Room, SHORT, bytes, next_commit},
};
use crate::{Binding, Error, LeaseId};

fn assert_lost(error: &Error, lease: LeaseId, room: &Room) {
    let Error::LeaseLost { scope, lease: named } = error else { panic!("expected a lost lease, got {error:?}") };
    assert_eq!((scope.as_str(), *named), (room.scope.as_str(), lease));
}

async fn keys(room: &Room, map: &str) -> Vec<String> {
    room.content(map).await.into_keys().collect()
}

pub(super) async fn a_lease_is_alive_until_its_time_has_passed(subject: Subject) {
    let room = Room::open(&subject).await;
    let (short, long) = (LeaseId::random(), LeaseId::random());
    assert!(!room.holds(room.begin().expect_lease_alive(long)).await, "it was not granted yet");
    room.commit(room.begin().grant_lease(short, SHORT).grant_lease(long, LONG)).await;
    assert!(room.holds(room.begin().expect_lease_alive(long)).await);
    room.outlive(short).await;
    assert!(!room.holds(room.begin().expect_lease_alive(short)).await, "it has expired, swept or not");
    assert!(room.holds(room.begin().expect_lease_alive(long)).await, "this one has not");
}

pub(super) async fn a_lease_does_not_expire_before_its_time(subject: Subject) {
    let room = Room::open(&subject).await;
    let lease = LeaseId::random();
    let ttl = SHORT * 3;
    let start = super::room::done(room.backend.server_time(&room.scope).await);
    room.commit(room.begin().grant_lease(lease, ttl)).await;
    room.outlive(lease).await;
    let lived = super::room::done(room.backend.server_time(&room.scope).await).since(start);
    assert!(lived >= ttl, "it was granted for {ttl:?} and lived {lived:?}");
}

pub(super) async fn leases_of_one_id_in_two_scopes_are_apart(subject: Subject) {
    let room = Room::open(&subject).await;
    let other = room.in_scope(&format!("{}-other", room.scope));
    let lease = LeaseId::random();
    room.commit(room.begin().grant_lease(lease, LONG)).await;
    assert!(other.holds(other.begin().expect_lease_expired(lease)).await);
    other.commit(other.begin().grant_lease(lease, LONG)).await;
    room.commit(room.begin().drop_lease(lease)).await;
    assert!(other.holds(other.begin().expect_lease_alive(lease)).await);
}

pub(super) async fn lease_ids_may_be_any_number(subject: Subject) {
    let room = Room::open(&subject).await;
    for id in [0, 1, (1 << 53) + 1, i64::MAX as u64, 1 << 63, u64::MAX] {
        let lease = LeaseId(id);
        room.commit(room.begin().grant_lease(lease, LONG).put_bound("m", "k", "v", Binding::Lease(lease))).await;
        assert!(room.holds(room.begin().expect_lease_alive(lease)).await);
        for near in [id.wrapping_sub(1), id.wrapping_add(1)] {
            assert!(room.holds(room.begin().expect_lease_expired(LeaseId(near))).await, "{near} is not {id}");
        }
        assert_eq!(room.commit(room.begin().drop_lease(lease)).await.count(0), Some(1));
        assert!(room.holds(room.begin().expect_lease_expired(lease)).await);
    }
}

pub(super) async fn a_renewal_moves_the_deadline(subject: Subject) {
    let room = Room::open(&subject).await;
    let (kept, shortened, granted_again) = (LeaseId::random(), LeaseId::random(), LeaseId::random());
    let ttl = MODERATE;
    room.commit(room.begin().grant_lease(kept, ttl).grant_lease(shortened, LONG).grant_lease(granted_again, ttl)).await;
    let renew = room.begin().renew_lease(kept, LONG).renew_lease(shortened, SHORT);
    room.commit(renew.grant_lease(granted_again, LONG)).await;
    room.outlive(shortened).await;
    room.let_pass(ttl).await;
    assert!(room.holds(room.begin().expect_lease_alive(kept)).await);
    assert!(room.holds(room.begin().expect_lease_alive(granted_again)).await, "a grant renews what is alive");
}

pub(super) async fn a_lease_that_is_gone_is_not_renewed(subject: Subject) {
    let room = Room::open(&subject).await;
    let (expired, dropped, never) = (LeaseId::random(), LeaseId::random(), LeaseId::random());
    room.commit(room.begin().grant_lease(expired, SHORT).grant_lease(dropped, LONG)).await;
    room.commit(room.begin().drop_lease(dropped)).await;
    room.outlive(expired).await;
    for lease in [expired, dropped, never] {
        let error = room.refused(room.begin().put("m", "k", "v").renew_lease(lease, LONG)).await;
        assert_lost(&error, lease, &room);
        let error = room.refused(room.begin().put("m", "k", "v").put_bound("m", "l", "v", Binding::Lease(lease))).await;
        assert_lost(&error, lease, &room);
    }
    let error = room.refused(room.begin().grant_lease(expired, LONG)).await;
    assert_lost(&error, expired, &room);
    room.sweep_until("the lease is swept", |swept| swept.leases == [expired]).await;
    let error = room.refused(room.begin().renew_lease(expired, LONG)).await;
    assert_lost(&error, expired, &room);
    assert_eq!(room.version("m").await, None, "nothing of this happened");
}

pub(super) async fn dropping_a_lease_deletes_what_is_bound_to_it(subject: Subject) {
    let room = Room::open(&subject).await;
    let (lease, other) = (LeaseId::random(), LeaseId::random());
    let bind = room
        .begin()
        .grant_lease(lease, LONG)
        .grant_lease(other, LONG)
        .put_bound("m", "a", "1", Binding::Lease(lease))
        .put_bound("m", "b", "2", Binding::Lease(lease))
        .put_bound("m", "other", "3", Binding::Lease(other))
        .put("m", "permanent", "4")
        .put_bound("n", "c", "5", Binding::Lease(lease));
    room.commit(bind).await;
    let (mut m, mut n) = (room.feed("m").await, room.feed("n").await);
    let committed = room.commit(room.begin().drop_lease(lease)).await;
    assert_eq!(committed.count(0), Some(3));
    assert!(committed.versions.is_empty(), "maps that no write names are not listed: {committed:?}");
    assert_eq!(keys(&room, "m").await, ["other", "permanent"]);
    assert!(keys(&room, "n").await.is_empty());
    assert_eq!(next_commit(&mut m).await.version(), room.version("m").await, "one commit of each map");
    assert_eq!(next_commit(&mut n).await.version(), room.version("n").await, "one commit of each map");
    assert_eq!((room.revision("m").await, room.revision("n").await), (2, 2));
    assert_eq!(room.commit(room.begin().drop_lease(lease)).await.count(0), Some(0));
    assert!(room.holds(room.begin().expect_lease_alive(other)).await);
}

pub(super) async fn what_a_transaction_writes_and_a_dropped_lease_deletes_is_one_commit(subject: Subject) {
    let room = Room::open(&subject).await;
    let lease = LeaseId::random();
    let bind = room.begin().grant_lease(lease, LONG).put_bound("m", "bound", "1", Binding::Lease(lease));
    room.commit(bind).await;
    let mut feed = room.feed("m").await;
    let committed = room.commit(room.begin().put("m", "before", "2").drop_lease(lease).put("m", "after", "3")).await;
    let commit = next_commit(&mut feed).await;
    assert_eq!(commit.changes.len(), 3, "{commit:?}");
    assert_eq!(commit.version(), committed.version("m"));
    assert_eq!(room.revision("m").await, 2);
}

pub(super) async fn an_expired_lease_can_still_be_dropped_with_its_entries(subject: Subject) {
    let room = Room::open(&subject).await;
    let lease = LeaseId::random();
    let bind = room.begin().grant_lease(lease, SHORT).put_bound("m", "bound", "1", Binding::Lease(lease));
    room.commit(bind).await;
    room.outlive(lease).await;
    assert_eq!(room.commit(room.begin().drop_lease(lease)).await.count(0), Some(1));
    assert_eq!(room.sweep().await, crate::Swept::default());
}

pub(super) async fn a_put_replaces_the_binding(subject: Subject) {
    let room = Room::open(&subject).await;
    let (first, second) = (LeaseId::random(), LeaseId::random());
    let leased = |lease| Binding::Lease(lease);
    let mut bind = room.begin().grant_lease(first, LONG).grant_lease(second, LONG);
    for key in ["permanent", "second", "mortal", "deleted", "cleared away"] {
        bind = bind.put_bound("m", key, "1", leased(first));
    }
    room.commit(bind.put_bound("m", "saved", "1", Binding::Ttl(SHORT)).put_bound("n", "k", "1", leased(first))).await;
    let rebind = room
        .begin()
        .put("m", "permanent", "2")
        .put_bound("m", "second", "2", leased(second))
        .put_bound("m", "mortal", "2", Binding::Ttl(SHORT))
        .put_bound("m", "saved", "2", Binding::Ttl(LONG))
        .delete("m", "deleted")
        .put("m", "deleted", "2")
        .delete("m", "cleared away")
        .destroy_map("n")
        .put("n", "k", "2");
    room.commit(rebind).await;
    assert_eq!(room.commit(room.begin().drop_lease(first)).await.count(0), Some(0), "nothing is bound to it any more");
    room.sweep_until("the mortal entry is swept", |swept| swept.entries == 1).await;
    assert_eq!(keys(&room, "m").await, ["deleted", "permanent", "saved", "second"]);
    assert_eq!(room.commit(room.begin().drop_lease(second)).await.count(0), Some(1));
    assert_eq!(keys(&room, "m").await, ["deleted", "permanent", "saved"]);
    assert_eq!(room.get("n", "k").await, Some(bytes("2")));
}

pub(super) async fn clearing_a_map_forgets_the_bindings(subject: Subject) {
    let room = Room::open(&subject).await;
    let lease = LeaseId::random();
    let bind = room.begin().grant_lease(lease, LONG).put_bound("m", "a", "1", Binding::Lease(lease));
    room.commit(bind.put_bound("m", "b", "1", Binding::Ttl(SHORT))).await;
    room.commit(room.begin().clear("m").put("m", "a", "2").put("m", "b", "2")).await;
    assert_eq!(room.commit(room.begin().drop_lease(lease)).await.count(0), Some(0));
    room.let_pass(SHORT * 2).await;
    assert_eq!(room.sweep().await.entries, 0);
    assert_eq!(keys(&room, "m").await, ["a", "b"]);
}

pub(super) async fn a_lease_granted_and_used_and_dropped_in_one_transaction(subject: Subject) {
    let room = Room::open(&subject).await;
    let lease = LeaseId::random();
    let whole = room
        .begin()
        .grant_lease(lease, LONG)
        .renew_lease(lease, LONG)
        .put_bound("m", "k", "v", Binding::Lease(lease))
        .drop_lease(lease)
        .put("m", "l", "w");
    assert_eq!(room.commit(whole).await.count(3), Some(1));
    assert_eq!(keys(&room, "m").await, ["l"]);
    let error =
        room.refused(room.begin().grant_lease(LeaseId(7), LONG).drop_lease(LeaseId(7)).renew_lease(LeaseId(7), LONG));
    assert_lost(&error.await, LeaseId(7), &room);
}

pub(super) async fn a_lease_lives_on_while_it_is_renewed(subject: Subject) {
    let room = Room::open(&subject).await;
    let lease = LeaseId::random();
    let ttl = MODERATE;
    room.commit(room.begin().grant_lease(lease, ttl).put_bound("m", "k", "v", Binding::Lease(lease))).await;
    for _ in 0..6 {
        room.let_pass(ttl / 5).await;
        room.commit(room.begin().renew_lease(lease, ttl)).await;
        assert_eq!(room.sweep().await.entries, 0);
    }
    assert_eq!(keys(&room, "m").await, ["k"]);
}
