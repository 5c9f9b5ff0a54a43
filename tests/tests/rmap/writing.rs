//! The ways to write: under conditions, several at once, for a time.

use std::time::Duration;

use pulse_core::{EventId, NewEvent};
use pulse_rmap::{Error, Map, Session, Transaction};
use tests::{Subject, eventually, on_every_backend, soon};

use super::{content, join, two};

on_every_backend!(
    a_set_that_waits_is_readable_at_once,
    a_conditional_write_changes_nothing_on_conflict_and_tells_what_is_there,
    updates_of_many_lose_none,
    an_update_may_delete_and_may_meet_what_does_not_decode,
    an_update_works_where_the_replica_is_behind,
    a_batch_takes_effect_as_a_whole_or_not_at_all,
    a_batch_appends_its_event_only_if_it_is_committed,
    what_belongs_to_another_scope_is_refused_by_name,
    clearing_and_destroying_tell_how_much_went,
    a_condition_on_several_keys_guards_the_clearing,
    bound_entries_end_with_their_time_or_session_on_every_replica,
    a_counter_ends_with_the_binding_of_its_first_increment,
    a_key_that_is_set_if_absent_ends_with_its_session,
    a_lifetime_that_is_set_once_is_not_put_off_by_writes,
    a_lifetime_that_slides_is_put_off_by_each_write,
    an_error_in_encoding_sends_nothing,
);

async fn a_set_that_waits_is_readable_at_once(subject: Subject) {
    let (a, _) = two(&subject).await;
    for number in 0..50 {
        a.set_and_wait("k", &number).await.unwrap();
        assert_eq!(a.get("k").as_deref(), Some(&number));
    }
}

async fn a_conditional_write_changes_nothing_on_conflict_and_tells_what_is_there(subject: Subject) {
    let (a, b) = two(&subject).await;
    assert!(!a.set_if_absent("k", &1).await.unwrap().previous.existed());
    let found = |error: Error| {
        assert!(error.is_conflict() && !error.is_retryable() && !error.is_outcome_unknown(), "{error:?}");
        error.found().map(|raw| b.decode("k", raw).unwrap())
    };
    assert_eq!(found(b.set_if_absent("k", &2).await.unwrap_err()), Some(1));
    assert_eq!(found(b.compare_and_set("k", &2, &3).await.unwrap_err()), Some(1));
    assert_eq!(found(b.compare_and_set("absent", &2, &3).await.unwrap_err()), None);
    assert_eq!(found(b.compare_and_delete("k", &2).await.unwrap_err()), Some(1));
    assert_eq!(found(b.compare_and_delete("absent", &2).await.unwrap_err()), None);
    let set = b.compare_and_set("k", &1, &4).await.unwrap();
    assert_eq!((set.version.revision.0, set.previous.value().unwrap()), (2, Some(1)), "conflicts make no revisions");
    let deleted = a.compare_and_delete("k", &4).await.unwrap();
    soon("the version", b.wait_for(deleted.version)).await.unwrap();
    assert!(b.is_empty());
}

async fn updates_of_many_lose_none(subject: Subject) {
    const EACH: u64 = 25;
    let (client, scope) = (subject.client().await, subject.scope());
    let mut writers = Vec::new();
    for _ in 0..4 {
        let map = join(&subject.client().await, &scope).await;
        writers.push(tokio::spawn(async move {
            for _ in 0..EACH {
                map.update("k", |old| Some(old.unwrap_or(&0) + 1)).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let map = join(&client, &scope).await;
    assert_eq!(map.get("k").as_deref(), Some(&(4 * EACH)));
    assert_eq!(map.version().unwrap().revision.0, 4 * EACH);
}

async fn an_update_may_delete_and_may_meet_what_does_not_decode(subject: Subject) {
    let (a, b) = two(&subject).await;
    let nothing = a.update("k", |_| None).await.unwrap();
    assert_eq!((nothing.version, nothing.previous.existed(), nothing.value), (None, false, None));
    let set = a.update("k", |_| Some(5)).await.unwrap();
    assert_eq!(set.value, Some(5));
    let deleted = b.update("k", |_| None).await.unwrap();
    assert_eq!((deleted.previous.value().unwrap(), deleted.value), (Some(5), None));
    let client = subject.client().await;
    client.commit(Transaction::new(a.id().scope()).put("m", "k", "no number")).await.unwrap();
    let refused = b.update("k", |_| Some(1)).await;
    assert!(matches!(refused, Err(Error::Decode { .. })), "{refused:?}");
}

async fn an_update_works_where_the_replica_is_behind(subject: Subject) {
    let (a, b) = two(&subject).await;
    a.set_and_wait("k", &1).await.unwrap();
    soon("the end", b.close()).await;
    let stale = b;
    let late = join(&subject.client().await, a.id().scope()).await;
    for number in 2..20 {
        a.set("k", &number).await.unwrap();
        // `late` may or may not have seen it.
        late.update("k", |old| old.map(|old| old + 100)).await.unwrap();
    }
    assert!(matches!(stale.update("k", |_| Some(1)).await, Err(Error::Closed { .. })));
    soon("the version", async {
        while late.get("k").as_deref() != Some(&119) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn a_batch_takes_effect_as_a_whole_or_not_at_all(subject: Subject) {
    let (a, b) = two(&subject).await;
    let version = a.batch().set("x", &1).set("y", &2).set("z", &3).commit().await.unwrap();
    assert_eq!(version.unwrap().revision.0, 1, "one revision for all of it");
    let refused = b.batch().expect("x", &1).expect_absent("y").set("x", &9).delete("z").commit().await.unwrap_err();
    assert_eq!(refused.found().map(|raw| b.decode("y", raw).unwrap()), Some(2), "{refused:?}");
    let stale = b.batch().expect_version(version).expect_present("z").delete("y").set("x", &7).commit().await.unwrap();
    let refused = a.batch().expect_version(version).clear().commit().await.unwrap_err();
    assert!(refused.is_conflict() && refused.found().is_none(), "{refused:?}");
    soon("the version", a.wait_for(stale)).await.unwrap();
    assert_eq!(content(&a.snapshot()), [("x".to_owned(), 7), ("z".to_owned(), 3)].into());
    assert_eq!(a.snapshot().with_prefix("x").count(), 1);
}

async fn a_batch_appends_its_event_only_if_it_is_committed(subject: Subject) {
    let (a, _) = two(&subject).await;
    let stream = a.id().scope().stream("log").unwrap();
    let batch = || a.batch().expect_absent("k").set("k", &1).append_event(&stream, NewEvent::new("set", "k"));
    batch().commit().await.unwrap();
    assert!(batch().commit().await.is_err_and(|error| error.is_conflict()));
    let client = subject.client().await;
    let events = client.backend().stream_read(&stream, EventId::ZERO, 9, Duration::ZERO).await.unwrap().entries;
    assert_eq!(events.len(), 1);
}

async fn what_belongs_to_another_scope_is_refused_by_name(subject: Subject) {
    let client = subject.client().await;
    let (map, elsewhere) = (join(&client, &subject.scope()).await, subject.scope());
    let (log, here) = (elsewhere.stream("log").unwrap(), map.id().scope());
    let session = Session::open(&client, &elsewhere, Duration::from_secs(600)).await.unwrap();
    let (event, foreign) = (|| NewEvent::new("set", "k"), || Transaction::new(&elsewhere));
    let refusals = [
        map.batch().set("k", &1).append_event(&log, event()).commit().await.unwrap_err(),
        map.batch().set("k", &1).with(|_| foreign()).commit().await.unwrap_err(),
        map.batch().set_bound("k", &1, &session).commit().await.unwrap_err(),
        map.set_bound("k", &1, &session).await.unwrap_err(),
    ];
    for refused in refusals {
        assert!(matches!(refused.backend_error(), Some(pulse_core::Error::OtherScope { .. })), "{refused:?}");
        let message = refused.to_string();
        assert!(message.contains(here.as_str()) && message.contains(elsewhere.as_str()), "{message}");
        assert!(!refused.is_retryable() && !refused.is_outcome_unknown() && !refused.is_conflict());
    }
    assert_eq!(client.backend().map_version(map.id()).await.unwrap(), None, "nothing was written");
    let namesake = here.stream("log").unwrap();
    assert_eq!(client.backend().stream_info(&namesake).await.unwrap(), None, "nor to the stream of that name here");
}

async fn clearing_and_destroying_tell_how_much_went(subject: Subject) {
    let (a, b) = two(&subject).await;
    assert_eq!(a.clear().await.unwrap().keys, 0);
    assert_eq!((a.destroy().await.unwrap().keys, a.destroy().await.unwrap().version), (0, None));
    a.batch().set("x", &1).set("y", &2).commit().await.unwrap();
    let cleared = b.clear().await.unwrap();
    assert_eq!((cleared.keys, cleared.version.unwrap().revision.0), (2, 2));
    soon("the version", a.wait_for(cleared.version)).await.unwrap();
    assert!(a.is_empty());
    a.set("x", &1).await.unwrap();
    assert_eq!(b.destroy().await.unwrap().keys, 1);
    let again = a.set("x", &1).await.unwrap().version;
    assert_eq!(again.revision.0, 1, "another life of the map");
    assert_ne!(again.incarnation, cleared.version.unwrap().incarnation);
}

async fn a_condition_on_several_keys_guards_the_clearing(subject: Subject) {
    let (a, b) = two(&subject).await;
    a.batch().set("x", &1).set("y", &2).commit().await.unwrap();
    for conditions in [vec![("x", Some(&1)), ("y", Some(&1))], vec![("x", Some(&1)), ("y", None)]] {
        assert!(b.clear_if(conditions).await.unwrap_err().is_conflict());
    }
    assert_eq!(b.clear_if([("x", Some(&1)), ("y", Some(&2)), ("z", None)]).await.unwrap().keys, 2);
}

async fn bound_entries_end_with_their_time_or_session_on_every_replica(subject: Subject) {
    let (a, b) = two(&subject).await;
    let client = subject.client().await;
    let session = Session::open(&client, a.id().scope(), Duration::from_secs(5)).await.unwrap();
    a.set_bound("timed", &1, Duration::from_millis(150)).await.unwrap();
    a.set_bound("owned", &2, &session).await.unwrap();
    let batch = a.batch().set("lasting", &3).set_bound("owned too", &4, &session);
    let version = batch.commit().await.unwrap();
    soon("the version", b.wait_for(version)).await.unwrap();
    assert!(b.contains_key("owned") && b.contains_key("owned too"));
    eventually("the time is over", async || if b.contains_key("timed") { Err("still there") } else { Ok(()) }).await;
    assert!(b.contains_key("owned"), "a session that goes on");
    let lease = session.lease();
    session.close().await.unwrap();
    for map in [&a, &b] {
        eventually("only what lasts is left", async || if map.len() == 1 { Ok(()) } else { Err(map.keys()) }).await;
    }
    let late = a.set_bound("owned", &5, lease).await.unwrap_err();
    assert!(matches!(late.backend_error(), Some(pulse_core::Error::LeaseLost { .. })), "{late:?}");
}

async fn a_counter_ends_with_the_binding_of_its_first_increment(subject: Subject) {
    let (client, other, scope) = (subject.client().await, subject.client().await, subject.scope());
    let calls = Map::counters("calls").scope(scope.clone()).join(&client).await.unwrap();
    let elsewhere = Map::counters("calls").scope(scope.clone()).join(&other).await.unwrap();
    let session = Session::open(&client, &scope, Duration::from_secs(600)).await.unwrap();
    let window = Duration::from_secs(2);
    assert_eq!(calls.increment_bound("timed", 1, window).await.unwrap().value, 1);
    // Neither of these puts its end off.
    assert_eq!(elsewhere.increment_bound("timed", 1, Duration::from_secs(600)).await.unwrap().value, 2);
    calls.increment("timed", 1).await.unwrap();
    calls.increment_bound("owned", 1, &session).await.unwrap();
    calls.increment("kept", 1).await.unwrap();
    let last = calls.increment_bound("kept", 1, window).await.unwrap();
    soon("the increments", elsewhere.wait_for(last.version)).await.unwrap();
    eventually("the window is over", async || match elsewhere.get("timed") {
        None => Ok(()),
        Some(count) => Err(count),
    })
    .await;
    session.close().await.unwrap();
    eventually("the session's counter is gone", async || match elsewhere.get("owned") {
        None => Ok(()),
        Some(count) => Err(count),
    })
    .await;
    assert_eq!(elsewhere.get("kept").map(|count| **count), Some(2));
    assert_eq!(calls.increment_bound("timed", 1, window).await.unwrap().value, 1, "the next window begins");
}

async fn a_key_that_is_set_if_absent_ends_with_its_session(subject: Subject) {
    let (a, b) = two(&subject).await;
    let client = subject.client().await;
    let session = Session::open(&client, a.id().scope(), Duration::from_secs(600)).await.unwrap();
    assert!(!a.set_if_absent_bound("lock", &1, &session).await.unwrap().previous.existed());
    let refused = b.set_if_absent_bound("lock", &2, Duration::from_secs(600)).await.unwrap_err();
    assert_eq!(refused.found().map(|raw| b.decode("lock", raw).unwrap()), Some(1));
    session.close().await.unwrap();
    let taken = b.set_if_absent_bound("lock", &2, Duration::from_millis(100)).await.unwrap();
    soon("the lock", a.wait_for(taken.version)).await.unwrap();
    eventually("the time of the lock is over", async || match a.get("lock") {
        None => Ok(()),
        Some(owner) => Err(owner),
    })
    .await;
}

async fn a_lifetime_that_is_set_once_is_not_put_off_by_writes(subject: Subject) {
    let client = subject.client().await;
    let builder = || Map::<u64>::builder("m").scope(subject.scope());
    let map = builder().expires_after(Duration::from_millis(400)).join(&client).await.unwrap();
    let mut written = 0;
    let first = map.set("k", &written).await.unwrap().version;
    // It goes although somebody writes all the time.
    eventually("the map was emptied", async || {
        written += 1;
        let set = map.set(format!("k{}", written % 7), &written).await.unwrap();
        match map.wait_for(set.version).await {
            Ok(()) | Err(Error::VersionGone { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
        if map.contains_key("k") { Err(written) } else { Ok(()) }
    })
    .await;
    let next = map.set("k", &0).await.unwrap().version;
    assert_ne!(next.incarnation, first.incarnation, "removed, and begun anew");
}

async fn a_lifetime_that_slides_is_put_off_by_each_write(subject: Subject) {
    let client = subject.client().await;
    let builder = || Map::<u64>::builder("m").scope(subject.scope());
    let map = builder().expires_unless_written_for(Duration::from_secs(2)).join(&client).await.unwrap();
    map.set("k", &0).await.unwrap();
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        map.set_and_wait("other", &1).await.unwrap();
        assert!(map.contains_key("k"), "it went after {:?} although it was written to", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    map.expire_after(Duration::from_millis(1)).await.unwrap();
    eventually("the map was emptied", async || if map.is_empty() { Ok(()) } else { Err(map.keys()) }).await;
    map.set("k", &0).await.unwrap();
    map.expire_after(None).await.unwrap();
}

async fn an_error_in_encoding_sends_nothing(subject: Subject) {
    #[derive(Debug)]
    struct Unwritable;
    impl serde::Serialize for Unwritable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it cannot be written"))
        }
    }
    impl<'de> serde::Deserialize<'de> for Unwritable {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Err(serde::de::Error::custom("nor read"))
        }
    }
    let client = subject.client().await;
    let map = Map::<Unwritable>::builder("m").scope(subject.scope()).join(&client).await.unwrap();
    assert!(matches!(map.set("k", &Unwritable).await, Err(Error::Encode { .. })));
    let batch = map.batch().with(|transaction| transaction.put("m", "k", "1")).set("k", &Unwritable).delete("k");
    assert!(matches!(batch.commit().await, Err(Error::Encode { .. })));
    assert_eq!(client.backend().map_version(map.id()).await.unwrap(), None);
}
