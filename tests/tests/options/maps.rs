//! Options of replicated maps.

use std::time::Duration;

use pulse_core::{Error as CoreError, MAX_LIFETIME};
use pulse_rmap::{Client, Error, KeyFilter, Map, MapBuilder, Update};
use tests::{Subject, on_every_backend, soon};

use crate::{Expected, MILLISECOND, NANOSECOND};

on_every_backend!(
    an_option_of_a_map_works_or_is_refused_when_joining,
    lifetimes_of_single_writes_are_refused_alike,
    counters_take_what_64_bits_hold,
    filters_take_no_keys_and_all,
);

fn map(subject: &Subject) -> MapBuilder<u32> {
    Map::builder("ports").scope(subject.scope())
}

async fn use_it(client: &Client, builder: MapBuilder<u32>) -> Result<(), Error> {
    let map = builder.join(client).await?;
    let mut changes = map.subscribe();
    for port in 1..=3 {
        let set = map.set("http", &port).await?;
        match map.wait_for(set.version).await {
            // The least time may be over before anything is seen of it.
            Ok(_) | Err(Error::VersionGone { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    assert!(soon("a change", changes.next()).await.is_some());
    map.close().await;
    Ok(())
}

async fn an_option_of_a_map_works_or_is_refused_when_joining(subject: Subject) {
    use Expected::{Refused, Works};

    let client = subject.client().await;
    let begin = || map(&subject);
    let mut table = vec![
        (begin().change_buffer(0), Refused),
        (begin().change_buffer(1), Works),
        (begin().change_buffer(usize::MAX), Works),
    ];
    for (ttl, expected) in [
        (Duration::ZERO, Refused),
        (NANOSECOND, Refused),
        (MILLISECOND, Works),
        (MAX_LIFETIME, Works),
        (Duration::MAX, Refused),
    ] {
        table.push((begin().expires_after(ttl), expected));
        table.push((begin().expires_unless_written_for(ttl), expected));
    }
    for (builder, expected) in table {
        let shown = format!("{builder:?}");
        match (use_it(&client, builder).await, expected) {
            (Ok(()), Works) => {}
            (Err(Error::Map { source, .. }), Refused) if matches!(*source, CoreError::InvalidOption { .. }) => {}
            (other, _) => panic!("{shown} met {other:?}"),
        }
    }
    client.close().await;
}

async fn lifetimes_of_single_writes_are_refused_alike(subject: Subject) {
    let client = subject.client().await;
    let map = map(&subject).join(&client).await.unwrap();
    let is_invalid = |error: Error| match error {
        Error::Map { source, .. } | Error::Key { source, .. } => matches!(*source, CoreError::InvalidRequest { .. }),
        _ => false,
    };
    for ttl in [Duration::ZERO, NANOSECOND, Duration::MAX] {
        assert!(map.expire_after(ttl).await.is_err_and(is_invalid), "a map for {ttl:?}");
        assert!(map.set_bound("k", &1, ttl).await.is_err_and(is_invalid), "an entry for {ttl:?}");
    }
    for ttl in [MAX_LIFETIME, MILLISECOND] {
        map.expire_after(ttl).await.unwrap();
        map.set_bound("k", &1, ttl).await.unwrap();
    }
    map.expire_after(None).await.unwrap();
    map.close().await;
    client.close().await;
}

async fn counters_take_what_64_bits_hold(subject: Subject) {
    let client = subject.client().await;
    let counters = Map::counters("hits").scope(subject.scope()).join(&client).await.unwrap();
    for by in [0, i64::MIN, i64::MAX, 1, i64::MAX] {
        let counted = counters.increment("k", by).await;
        assert!(counted.is_ok(), "{by} met {counted:?}");
    }
    let over = counters.increment("k", i64::MAX).await;
    assert!(
        matches!(&over, Err(Error::Key { source, .. }) if matches!(**source, CoreError::WrongValue { .. })),
        "{over:?}"
    );
    counters.close().await;
    client.close().await;
}

async fn filters_take_no_keys_and_all(subject: Subject) {
    let client = subject.client().await;
    let map = map(&subject).join(&client).await.unwrap();
    let mut none = map.subscribe().only(KeyFilter::keys::<&str>([]));
    let mut all = map.subscribe().only(KeyFilter::prefix(""));
    let mut longer_than_keys = map.subscribe().only(KeyFilter::prefix("k".repeat(1 << 20)));
    let set = map.set("k", &1).await.unwrap();
    map.wait_for(set.version).await.unwrap();
    assert!(matches!(all.try_next(), Some(Update::Change(_))));
    assert!(none.try_next().is_none() && longer_than_keys.try_next().is_none());
    map.close().await;
    client.close().await;
}
