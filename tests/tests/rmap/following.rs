//! Subscriptions that follow a part of the map.

use pulse_rmap::{KeyFilter, Map, Update};
use tests::{Subject, on_every_backend, soon};

use super::{next, two};

on_every_backend!(
    subscribers_are_told_once_that_a_map_was_cleared,
    a_clear_of_an_empty_map_is_noticed_as_any_commit,
    a_filtered_subscription_hears_of_its_keys_alone,
    other_keys_take_no_room_in_a_filtered_buffer,
    a_filtered_subscriber_that_lags_gets_the_difference_of_its_keys,
);

async fn a_filtered_subscription_hears_of_its_keys_alone(subject: Subject) {
    let (a, b) = two(&subject).await;
    let mut prefixed = b.subscribe().only(KeyFilter::prefix("web/"));
    let mut one = b.subscribe().only(KeyFilter::key("db"));
    a.batch().set("web/1", &1).set("db", &2).set("other", &3).commit().await.unwrap();
    a.delete("other").await.unwrap();
    a.clear().await.unwrap();
    for expected in ["1 Set web/1 1 -", "3 Cleared 2", "3 Deleted web/1 - 1"] {
        assert_eq!(next(&mut prefixed).await, expected);
    }
    for expected in ["1 Set db 2 -", "3 Cleared 2", "3 Deleted db - 2"] {
        assert_eq!(next(&mut one).await, expected);
    }
    soon("the end", b.close()).await;
    assert!(prefixed.next().await.is_none() && one.next().await.is_none());
}

async fn other_keys_take_no_room_in_a_filtered_buffer(subject: Subject) {
    let map = small(&subject).await;
    let mut changes = map.subscribe().only(KeyFilter::key("mine"));
    map.set("mine", &0).await.unwrap();
    for number in 0..100 {
        map.set_and_wait("other", &number).await.unwrap();
    }
    map.set_and_wait("mine", &1).await.unwrap();
    assert_eq!(next(&mut changes).await, "1 Set mine 0 -");
    assert_eq!(next(&mut changes).await, "102 Set mine 1 0");
}

async fn a_filtered_subscriber_that_lags_gets_the_difference_of_its_keys(subject: Subject) {
    let map = small(&subject).await;
    let mut changes = map.subscribe().only(KeyFilter::keys(["x", "y"]));
    for number in 0..20 {
        let version = map.batch().set("x", &number).set("z", &number).commit().await.unwrap();
        // Each by itself: what arrives together always fits.
        soon("the version", map.wait_for(version)).await.unwrap();
    }
    map.set_and_wait("z", &99).await.unwrap();
    assert!(matches!(soon("word of it", changes.next()).await, Some(Update::Lagged)));
    assert_eq!(next(&mut changes).await, "21 Set x 19 -");
    map.set("y", &5).await.unwrap();
    assert_eq!(next(&mut changes).await, "22 Set y 5 -");
}

/// A map whose subscribers may fall behind by four changes.
async fn small(subject: &Subject) -> Map<u64> {
    let builder = Map::<u64>::builder("m").scope(subject.scope()).change_buffer(4);
    builder.join(&subject.client().await).await.unwrap()
}

async fn subscribers_are_told_once_that_a_map_was_cleared(subject: Subject) {
    let (a, b) = two(&subject).await;
    a.batch().set("x", &1).set("y", &2).commit().await.unwrap();
    soon("the version", b.wait_for(a.set("z", &3).await.unwrap().version)).await.unwrap();
    let (mut all, mut one) = (b.subscribe(), b.subscribe().only(KeyFilter::key("y")));
    let cleared = a.clear().await.unwrap();
    soon("the version", b.wait_for(cleared.version)).await.unwrap();
    assert_eq!(next(&mut all).await, "3 Cleared 3");
    let mut deleted = [next(&mut all).await, next(&mut all).await, next(&mut all).await];
    deleted.sort();
    assert_eq!(deleted, ["3 Deleted x - 1", "3 Deleted y - 2", "3 Deleted z - 3"]);
    assert_eq!([next(&mut one).await, next(&mut one).await], ["3 Cleared 3", "3 Deleted y - 2"]);
    // Within a transaction, what was set before the clear is told too.
    a.batch().set("x", &1).clear().set("y", &2).commit().await.unwrap();
    for expected in ["4 Set x 1 -", "4 Cleared 1", "4 Deleted x - 1", "4 Set y 2 -"] {
        assert_eq!(next(&mut all).await, expected);
    }
    a.destroy().await.unwrap();
    assert_eq!([next(&mut all).await, next(&mut all).await], ["0 Cleared 1", "0 Deleted y - 2"]);
}

async fn a_clear_of_an_empty_map_is_noticed_as_any_commit(subject: Subject) {
    let (a, b) = two(&subject).await;
    a.set("k", &1).await.unwrap();
    let emptied = a.delete("k").await.unwrap();
    soon("the version", b.wait_for(emptied.version)).await.unwrap();
    let (mut changed, mut changes) = (b.changed(), b.subscribe());
    let cleared = a.clear().await.unwrap();
    assert_eq!((cleared.keys, cleared.version.unwrap().revision.0), (0, 3));
    soon("word of it", changed.wait()).await.unwrap();
    assert_eq!(next(&mut changes).await, "3 Cleared 0");
    assert_eq!(b.version(), cleared.version);
}
