//! Deadlines follow tokio's clock: paused, they are met to the millisecond.

use super::*;
use crate::{Change, Swept};

const MILLI: Duration = Duration::from_millis(1);

async fn swept(memory: &Memory) -> Swept {
    memory.sweep(&scope()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_clock_stands_while_time_is_paused_and_moves_with_it() {
    let memory = Memory::default();
    let began = memory.server_time(&scope()).await.unwrap();
    assert_eq!(memory.another_client().server_time(&scope()).await.unwrap(), began);
    tokio::time::advance(TTL).await;
    let now = memory.server_time(&scope()).await.unwrap();
    assert_eq!(now.since(began), TTL);
}

#[tokio::test(start_paused = true)]
async fn a_lease_lives_up_to_its_last_millisecond_and_no_longer() {
    let memory = Memory::default();
    let lease = LeaseId::random();
    let alive = async || memory.commit(begin().expect_lease_alive(lease)).await.is_ok();
    memory.commit(begin().grant_lease(lease, TTL).put_bound("m", "k", "v", Binding::Lease(lease))).await.unwrap();
    tokio::time::advance(TTL - MILLI).await;
    assert!(alive().await);
    memory.commit(begin().renew_lease(lease, TTL)).await.unwrap();
    tokio::time::advance(TTL - MILLI).await;
    assert!(alive().await, "it was renewed");
    assert_eq!(swept(&memory).await.next_deadline, Some(MILLI));
    tokio::time::advance(MILLI).await;
    assert!(!alive().await, "dead before any sweep");
    assert!(has(&memory, "k").await, "its entries wait for the sweep");
    for dead in [
        begin().renew_lease(lease, TTL),
        begin().grant_lease(lease, TTL),
        begin().put_bound("m", "l", "v", Binding::Lease(lease)),
    ] {
        let refused = memory.commit(dead.put("m", "other", "v")).await;
        assert!(matches!(refused, Err(Error::LeaseLost { lease: of, .. }) if of == lease), "{refused:?}");
    }
    assert!(!has(&memory, "other").await, "all or nothing");
    let swept = swept(&memory).await;
    assert_eq!((swept.leases, swept.entries, swept.next_deadline), (vec![lease], 1, None));
    assert!(!has(&memory, "k").await);
    memory.commit(begin().grant_lease(lease, TTL)).await.expect("a lease that is forgotten may be granted anew");
}

#[tokio::test(start_paused = true)]
async fn everything_that_is_due_in_a_map_goes_in_one_commit() {
    let memory = Memory::default();
    let (one, two) = (LeaseId::random(), LeaseId::random());
    let fill = begin()
        .grant_lease(one, TTL)
        .grant_lease(two, TTL)
        .put_bound("m", "a", "v", Binding::Lease(one))
        .put_bound("m", "b", "v", Binding::Lease(two))
        .put_bound("m", "c", "v", Binding::Ttl(TTL))
        .put("m", "d", "v")
        .put_bound("n", "a", "v", Binding::Lease(one))
        .put("n", "b", "v")
        .expire_map("n", Deadline::Renew(TTL));
    memory.commit(fill).await.unwrap();
    let mut feed = memory.map_feed(&map()).await.unwrap();
    let expiring = scope().map("n").unwrap();
    let mut other = memory.map_feed(&expiring).await.unwrap();
    tokio::time::advance(TTL).await;
    let swept = swept(&memory).await;
    assert_eq!((swept.leases.len(), swept.entries, swept.next_deadline), (2, 5, None));
    let commit = next_commit(&mut feed).await;
    assert_eq!((commit.before.0, commit.after.0, commit.changes.len()), (1, 2, 3));
    assert_eq!(feed.try_next(), None);
    let commit = next_commit(&mut other).await;
    assert_eq!((commit.before.0, commit.changes.last()), (1, Some(&Change::Destroyed)));
    assert_eq!((other.try_next(), memory.map_version(&expiring).await.unwrap()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_lease_with_many_entries_is_swept_in_bounded_steps_and_stays_dead_meanwhile() {
    let memory = Memory::default();
    let lease = LeaseId::random();
    let fill = (0..3000).fold(begin().grant_lease(lease, TTL), |fill, i| {
        fill.put_bound("m", format!("{i}"), "v", Binding::Lease(lease))
    });
    memory.commit(fill).await.unwrap();
    tokio::time::advance(TTL).await;
    let mut steps = Vec::new();
    loop {
        let swept = swept(&memory).await;
        assert!(swept.entries <= 1024, "{swept:?}");
        steps.push(swept.entries);
        if swept.next_deadline.is_none() {
            assert_eq!(swept.leases, [lease], "reported when it is gone");
            break;
        }
        assert!(swept.leases.is_empty());
        let revived = memory.commit(begin().grant_lease(lease, TTL)).await;
        assert!(matches!(revived, Err(Error::LeaseLost { .. })));
    }
    assert_eq!(steps.iter().sum::<u64>(), 3000, "{steps:?}");
    assert_eq!(memory.map_version(&map()).await.unwrap().unwrap().revision.0, 1 + steps.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn an_expired_map_is_removed_by_one_change() {
    let memory = Memory::default();
    let fill = (0..4000).fold(begin(), |fill, i| fill.put("m", format!("{i}"), "v"));
    memory.commit(fill.expire_map("m", Deadline::IfUnset(TTL))).await.unwrap();
    let mut feed = memory.map_feed(&map()).await.unwrap();
    tokio::time::advance(TTL).await;
    assert_eq!(swept(&memory).await.entries, 4000);
    assert_eq!(next_commit(&mut feed).await.changes, [Change::Destroyed]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_stream_vanishes_unswept_and_its_memory_is_freed_in_passing() {
    let memory = Memory::default();
    for i in 0..20 {
        let expiring = begin().append(format!("{i}"), NewEvent::new("n", "p"));
        memory.commit(expiring.expire_stream(format!("{i}"), Deadline::Renew(TTL))).await.unwrap();
    }
    tokio::time::advance(TTL - MILLI).await;
    assert_eq!(memory.stream_info(&scope().stream("7").unwrap()).await.unwrap().map(|info| info.length), Some(1));
    tokio::time::advance(MILLI).await;
    assert_eq!(memory.stream_info(&scope().stream("7").unwrap()).await.unwrap(), None);
    let kept = || memory.store.read(&scope(), |scope, _| (scope.streams.len(), scope.stream_deadlines.len()));
    assert_eq!(kept(), (20, 20));
    memory.commit(put("k")).await.unwrap();
    let (streams, deadlines) = kept();
    assert!(streams < 20 && streams == deadlines, "a commit frees some");
    assert_eq!(swept(&memory).await, Swept::default(), "streams are no matter of sweeps for whoever looks");
    assert_eq!(kept(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_streams_deadline_follows_the_last_word() {
    let memory = Memory::default();
    let lives = async || memory.stream_info(&stream()).await.unwrap().is_some();
    memory.commit(append().expire_stream("e", Deadline::Renew(TTL))).await.unwrap();
    memory.commit(append().expire_stream("e", Deadline::IfUnset(TTL * 2))).await.unwrap();
    tokio::time::advance(TTL - MILLI).await;
    assert!(lives().await);
    memory.commit(begin().expire_stream("e", Deadline::Renew(TTL))).await.unwrap();
    tokio::time::advance(TTL - MILLI).await;
    assert!(lives().await);
    memory.commit(begin().expire_stream("e", Deadline::Never)).await.unwrap();
    tokio::time::advance(LONG).await;
    swept(&memory).await;
    assert!(lives().await);
    memory.commit(begin().expire_stream("e", Deadline::IfUnset(TTL))).await.unwrap();
    tokio::time::advance(TTL).await;
    assert!(!lives().await);
    // What is appended now begins another stream, without the old deadline and past the old ids.
    memory.commit(append()).await.unwrap();
    tokio::time::advance(TTL).await;
    swept(&memory).await;
    assert!(lives().await);
}

#[tokio::test(start_paused = true)]
async fn events_of_one_millisecond_are_told_apart_and_ids_carry_the_time() {
    let memory = Memory::default();
    let now = memory.server_time(&scope()).await.unwrap().0;
    assert_eq!(id_of_new_event(&memory).await, EventId::new(now, 0));
    assert_eq!(id_of_new_event(&memory).await, EventId::new(now, 1));
    tokio::time::advance(MILLI).await;
    assert_eq!(id_of_new_event(&memory).await, EventId::new(now + 1, 0));
    memory.commit(begin().destroy_stream("e")).await.unwrap();
    assert_eq!(id_of_new_event(&memory).await, EventId::new(now + 1, 1), "not even a new stream uses an id again");
}

#[tokio::test(start_paused = true)]
async fn idle_times_of_deliveries_and_consumers_are_exact() {
    let memory = Memory::default();
    let (name, late) = (consumer("c"), consumer("late"));
    memory.group_create(&stream(), &group(), GroupStart::Oldest).await.unwrap();
    let id = id_of_new_event(&memory).await;
    memory.group_read(&stream(), &group(), &name, 1, Duration::ZERO, Acks::Explicit).await.unwrap();
    tokio::time::advance(TTL).await;
    let pending = memory.group_pending(&stream(), &group(), PendingQuery::new(1)).await.unwrap();
    assert_eq!((pending[0].idle, pending[0].deliveries), (TTL, 1));
    let claim = async |min_idle| memory.group_claim(&stream(), &group(), &late, min_idle, 1).await.unwrap().deliveries;
    assert!(claim(TTL + MILLI).await.is_empty());
    let delivery = claim(TTL).await.remove(0);
    assert_eq!((delivery.entry.id, delivery.deliveries), (id, 2));
    let held = memory.group_set_idle(&stream(), &group(), &late, &[id], TTL * 5).await.unwrap();
    assert_eq!(held, [id]);
    let info = memory.group_info(&stream(), &group()).await.unwrap().unwrap();
    let consumers: Vec<_> = info.consumers.iter().map(|one| (one.name.as_str(), one.pending, one.idle)).collect();
    assert_eq!(consumers, [("c", 0, TTL), ("late", 1, Duration::ZERO)]);
    let pending = memory.group_pending(&stream(), &group(), PendingQuery::new(1)).await.unwrap();
    assert_eq!(pending[0].idle, TTL * 5);
}
