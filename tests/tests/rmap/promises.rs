//! What a map promises while nothing goes wrong, on every backend.

use std::time::Duration;

use pulse_core::{Binding, Deadline, LeaseId, Transaction};
use pulse_rmap::{ChangeKind, Error, Map, Update};
use tests::{Subject, eventually, on_every_backend, soon};

use super::{content, join, next, two};

on_every_backend!(
    a_set_on_one_client_is_seen_on_another,
    a_write_tells_what_the_key_had_before,
    every_change_arrives_once_in_order_with_what_was_before,
    joining_reads_a_map_of_many_pages,
    joining_while_others_write_misses_nothing,
    a_transaction_becomes_visible_at_once,
    a_map_that_was_destroyed_and_written_again_goes_on,
    an_expired_map_is_emptied_everywhere_and_goes_on,
    entries_vanish_with_their_lease,
    values_that_do_not_decode_are_skipped_and_readable_raw,
    any_string_but_the_empty_one_is_a_key,
    a_closed_map_stays_readable_and_refuses_writes,
    a_closed_map_can_still_be_cleared_and_destroyed,
    closing_the_client_closes_its_maps,
    maps_of_one_name_in_two_scopes_do_not_meet,
);

async fn a_set_on_one_client_is_seen_on_another(subject: Subject) {
    let (a, b) = two(&subject).await;
    let set = a.set("k", &7).await.unwrap();
    soon("the version", b.wait_for(set.version)).await.unwrap();
    assert_eq!(b.get("k").as_deref(), Some(&7));
    assert_eq!((b.len(), b.keys().len(), b.contains_key("k"), b.version()), (1, 1, true, Some(set.version)));
    let deleted = b.delete("k").await.unwrap();
    soon("the version", a.wait_for(deleted.version)).await.unwrap();
    assert!(a.get("k").is_none() && a.is_empty());
}

async fn a_write_tells_what_the_key_had_before(subject: Subject) {
    let (a, b) = two(&subject).await;
    let absent = a.delete("k").await.unwrap();
    assert_eq!((absent.version, absent.previous.existed()), (None, false));
    let first = a.set("k", &1).await.unwrap();
    assert_eq!((first.version.revision.0, first.previous.existed()), (1, false));
    let second = b.set("k", &2).await.unwrap();
    assert_eq!((second.version.revision.0, second.previous.value().unwrap()), (2, Some(1)));
    let deleted = a.delete("k").await.unwrap();
    assert_eq!(deleted.previous.value().unwrap(), Some(2));
    assert_eq!(deleted.version.unwrap().revision.0, 3);
}

async fn every_change_arrives_once_in_order_with_what_was_before(subject: Subject) {
    let (a, b) = two(&subject).await;
    let (snapshot, mut changes) = b.snapshot_and_subscribe();
    assert!(snapshot.is_empty());
    a.set("x", &1).await.unwrap();
    a.set("x", &2).await.unwrap();
    a.set("y", &3).await.unwrap();
    a.delete("x").await.unwrap();
    for expected in ["1 Set x 1 -", "2 Set x 2 1", "3 Set y 3 -", "4 Deleted x - 2"] {
        assert_eq!(next(&mut changes).await, expected);
    }
    b.close().await;
    assert!(changes.next().await.is_none());
}

async fn joining_reads_a_map_of_many_pages(subject: Subject) {
    let (client, scope) = (subject.client().await, subject.scope());
    let encoder = join(&client, &scope).await;
    for thousand in 0..5_u64 {
        let mut transaction = Transaction::new(&scope);
        for number in thousand * 1000..(thousand + 1) * 1000 {
            transaction = transaction.put("m", format!("key-{number}"), encoder.encode(&number).unwrap());
        }
        client.commit(transaction).await.unwrap();
    }
    let map = join(&subject.client().await, &scope).await;
    assert_eq!(map.len(), 5000);
    assert!((0..5000).all(|number| map.get(&format!("key-{number}")).as_deref() == Some(&number)));
}

async fn joining_while_others_write_misses_nothing(subject: Subject) {
    let (scope, writer) = (subject.scope(), subject.client().await);
    let source = join(&writer, &scope).await;
    let filling = (0..1500).fold(Transaction::new(&scope), |transaction, number: u64| {
        transaction.put("m", format!("old-{number}"), source.encode(&number).unwrap())
    });
    writer.commit(filling).await.unwrap();
    let writing = async {
        let mut last = None;
        for number in 0..300 {
            last = Some(source.set(format!("new-{}", number % 50), &number).await.unwrap().version);
            source.delete(format!("old-{number}")).await.unwrap();
            tokio::task::yield_now().await;
        }
        last
    };
    let client = subject.client().await;
    let joining = async {
        let mut maps = Vec::new();
        for _ in 0..10 {
            maps.push(join(&client, &scope).await);
        }
        maps
    };
    let (_, maps) = tokio::join!(writing, joining);
    let last = source.set("last", &0).await.unwrap().version;
    soon("the version", source.wait_for(last)).await.unwrap();
    for map in maps {
        soon("the version", map.wait_for(last)).await.unwrap();
        assert_eq!(content(&map.snapshot()), content(&source.snapshot()));
    }
}

async fn a_transaction_becomes_visible_at_once(subject: Subject) {
    let (a, b) = two(&subject).await;
    let client = subject.client().await;
    let mut changed = b.changed();
    for round in 1..=50_u64 {
        let value = a.encode(&round).unwrap();
        let both = Transaction::new(a.id().scope()).put("m", "x", value.clone()).put("m", "y", value);
        client.commit(both).await.unwrap();
    }
    loop {
        soon("a change", changed.wait()).await.unwrap();
        let snapshot = b.snapshot();
        assert_eq!(snapshot.get("x"), snapshot.get("y"));
        if snapshot.get("x") == Some(&50) {
            break;
        }
    }
}

async fn a_map_that_was_destroyed_and_written_again_goes_on(subject: Subject) {
    let (a, b) = two(&subject).await;
    let mut changes = b.subscribe();
    let old = a.set("k", &1).await.unwrap().version;
    subject.client().await.commit(Transaction::new(a.id().scope()).destroy_map("m")).await.unwrap();
    let new = a.set("k", &2).await.unwrap();
    assert!(!new.previous.existed());
    soon("the version", b.wait_for(new.version)).await.unwrap();
    for expected in ["1 Set k 1 -", "0 Cleared 1", "0 Deleted k - 1", "1 Set k 2 -"] {
        assert_eq!(next(&mut changes).await, expected);
    }
    let gone = soon("the verdict", b.wait_for(old)).await;
    assert!(matches!(gone, Err(Error::VersionGone { .. })), "{gone:?}");
}

async fn an_expired_map_is_emptied_everywhere_and_goes_on(subject: Subject) {
    let (a, b) = two(&subject).await;
    let expiring = Transaction::new(a.id().scope())
        .put("m", "k", a.encode(&1).unwrap())
        .expire_map("m", Deadline::Renew(Duration::from_millis(200)));
    let client = subject.client().await;
    client.commit(expiring).await.unwrap();
    let mut changes = b.subscribe();
    for map in [&a, &b] {
        eventually("the map is empty", async || if map.is_empty() { Ok(()) } else { Err(content(&map.snapshot())) })
            .await;
    }
    let set = a.set("k", &2).await.unwrap();
    soon("the version", b.wait_for(set.version)).await.unwrap();
    assert_eq!(b.get("k").as_deref(), Some(&2));
    loop {
        match soon("the change", changes.next()).await {
            Some(Update::Change(change)) if change.kind == ChangeKind::Deleted => break,
            Some(Update::Change(_) | Update::Cleared(_)) => {}
            other => panic!("the deletion was not told: {other:?}"),
        }
    }
}

async fn entries_vanish_with_their_lease(subject: Subject) {
    let (a, b) = two(&subject).await;
    let lease = LeaseId::random();
    let bound = Transaction::new(a.id().scope())
        .grant_lease(lease, Duration::from_millis(200))
        .put_bound("m", "ephemeral", a.encode(&1).unwrap(), Binding::Lease(lease))
        .put("m", "lasting", a.encode(&2).unwrap());
    let client = subject.client().await;
    let version = client.commit(bound).await.unwrap().version("m");
    soon("the version", b.wait_for(version)).await.unwrap();
    eventually("the entry is gone", async || match b.get("ephemeral") {
        None => Ok(()),
        Some(value) => Err(value),
    })
    .await;
    assert_eq!(b.get("lasting").as_deref(), Some(&2));
}

async fn values_that_do_not_decode_are_skipped_and_readable_raw(subject: Subject) {
    let (a, b) = two(&subject).await;
    let mut changes = b.subscribe();
    a.set("k", &1).await.unwrap();
    let client = subject.client().await;
    let garbage = Transaction::new(a.id().scope()).put("m", "k", "no number").put("m", "other", "");
    client.commit(garbage).await.unwrap();
    let version = a.set("good", &2).await.unwrap().version;
    soon("the version", b.wait_for(version)).await.unwrap();
    assert_eq!((b.len(), b.unreadable(), b.get("k")), (1, 2, None));
    assert_eq!(b.get_raw("k").unwrap(), "no number");
    for expected in ["1 Set k 1 -", "2 Unreadable k - 1", "2 Unreadable other - -", "3 Set good 2 -"] {
        assert_eq!(next(&mut changes).await, expected);
    }
    let late = join(&client, a.id().scope()).await;
    assert_eq!((late.len(), late.unreadable()), (1, 2));
    let previous = a.set("k", &3).await.unwrap().previous;
    assert!(matches!(previous.value(), Err(Error::Decode { .. })) && previous.existed());
}

async fn any_string_but_the_empty_one_is_a_key(subject: Subject) {
    let (a, b) = two(&subject).await;
    let long = "k".repeat(64 << 10);
    let keys = ["{tag}", "a=b", " ", "new\nline", "\0", "ключ 🗝", long.as_str()];
    for (number, key) in (0..).zip(keys) {
        let version = a.set(key, &number).await.unwrap().version;
        soon("the version", b.wait_for(version)).await.unwrap();
        assert_eq!(b.get(key).as_deref(), Some(&number));
    }
    let empty = a.set("", &1).await;
    assert!(matches!(&empty, Err(Error::Key { .. })), "{empty:?}");
    let too_long = a.set("k".repeat((64 << 10) + 1), &1).await.unwrap_err();
    assert!(!too_long.is_retryable() && too_long.to_string().len() < 500, "{too_long}");
}

async fn a_closed_map_stays_readable_and_refuses_writes(subject: Subject) {
    let (a, b) = two(&subject).await;
    let version = a.set("k", &1).await.unwrap().version;
    soon("the version", a.wait_for(version)).await.unwrap();
    let clone = a.clone();
    soon("the end", a.close()).await;
    soon("the end", clone.close()).await;
    assert_eq!((a.get("k").as_deref(), a.is_closed(), a.is_synced()), (Some(&1), true, false));
    assert!(matches!(a.set("k", &2).await, Err(Error::Closed { .. })));
    assert!(matches!(a.delete("k").await, Err(Error::Closed { .. })));
    let later = b.set("k", &3).await.unwrap().version;
    assert!(a.wait_for(later).await.is_err_and(|error| error.is_closed()));
    assert!(a.wait_synced().await.is_err_and(|error| error.is_closed()));
    assert_eq!(clone.get("k").as_deref(), Some(&1));
}

async fn a_closed_map_can_still_be_cleared_and_destroyed(subject: Subject) {
    let (client, scope) = (subject.client().await, subject.scope());
    let (map, other) = (join(&client, &scope).await, join(&subject.client().await, &scope).await);
    map.set("k", &1).await.unwrap();
    soon("the end", map.close()).await;
    let refused = map.clear_if([("k", Some(&2))]).await.unwrap_err();
    assert!(refused.is_conflict(), "{refused:?}");
    assert_eq!(map.clear().await.unwrap().keys, 1);
    let set = other.set("k", &2).await.unwrap();
    soon("the version", other.wait_for(set.version)).await.unwrap();
    assert_eq!(map.destroy().await.unwrap().keys, 1);
    eventually("the map is gone", async || if other.version().is_none() { Ok(()) } else { Err(other.version()) }).await;
    assert!(map.set("k", &3).await.unwrap_err().is_closed(), "nothing else is written by a closed handle");
    soon("the end", client.close()).await;
    assert!(map.clear().await.unwrap_err().is_closed() && map.destroy().await.unwrap_err().is_closed());
}

async fn closing_the_client_closes_its_maps(subject: Subject) {
    let (client, scope) = (subject.client().await, subject.scope());
    let map = join(&client, &scope).await;
    let mut changes = map.subscribe();
    map.set("k", &1).await.unwrap();
    assert_eq!(next(&mut changes).await, "1 Set k 1 -");
    soon("the end", client.close()).await;
    assert!(soon("the end", changes.next()).await.is_none());
    assert!(map.is_closed() && map.get("k").is_some());
    assert!(map.set("k", &2).await.is_err_and(|error| error.is_closed()));
    let joined = Map::<u64>::builder("m").scope(scope).join(&client).await;
    assert!(joined.is_err_and(|error| error.is_closed()));
}

async fn maps_of_one_name_in_two_scopes_do_not_meet(subject: Subject) {
    let client = subject.client().await;
    let a = join(&client, &subject.scope()).await;
    let b = join(&client, &subject.scope()).await;
    let version = a.set("k", &1).await.unwrap().version;
    soon("the version", a.wait_for(version)).await.unwrap();
    let version = b.set("k", &2).await.unwrap().version;
    soon("the version", b.wait_for(version)).await.unwrap();
    assert_eq!((a.get("k").as_deref(), b.get("k").as_deref()), (Some(&1), Some(&2)));
}
