//! Kinds of values: bytes, text, counters, lists.

use bytes::Bytes;
use pulse_core::Scope;
use pulse_rmap::{Counter, Error, List, Map};
use tests::{Subject, on_every_backend, soon};

on_every_backend!(
    bytes_and_text_are_stored_as_they_are,
    counters_are_exact_whoever_counts,
    a_counter_refuses_what_leaves_its_range_or_is_no_counter,
    lists_grow_and_shrink_and_vanish_when_empty,
    a_raw_map_reads_the_values_of_any_other,
    values_of_no_bytes_and_of_many_megabytes_arrive,
);

async fn bytes_and_text_are_stored_as_they_are(subject: Subject) {
    let (client, scope) = (subject.client().await, subject.scope());
    let raw = Map::raw("raw").scope(scope.clone()).join(&client).await.unwrap();
    let text = Map::text("text").scope(scope.clone()).join(&client).await.unwrap();
    raw.set_and_wait("k", &Bytes::from_static(b"\xff\x00")).await.unwrap();
    text.set_and_wait("k", &"ключ".to_owned()).await.unwrap();
    assert_eq!((&raw.get("k").unwrap()[..], text.get("k").unwrap().as_str()), (&b"\xff\x00"[..], "ключ"));
    assert_eq!(
        (&raw.get_raw("k").unwrap()[..], &text.get_raw("k").unwrap()[..]),
        (&b"\xff\x00"[..], "ключ".as_bytes())
    );
    let other = Map::text("raw").scope(scope).join(&client).await.unwrap();
    assert_eq!((other.len(), other.unreadable()), (0, 1), "these bytes are no text");
}

async fn counters_are_exact_whoever_counts(subject: Subject) {
    let scope = subject.scope();
    let first = counters(&subject, &scope).await;
    let mut tasks = Vec::new();
    for by in [1, -2, 1 << 40, 7] {
        let map = counters(&subject, &scope).await;
        tasks.push(tokio::spawn(async move {
            for _ in 0..50 {
                map.increment("n", by).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let map = counters(&subject, &scope).await;
    drop(first);
    let expected: i64 = 50 * (1 - 2 + (1 << 40) + 7);
    assert_eq!(**map.get("n").unwrap(), expected);
    let counted = map.increment("n", 0).await.unwrap();
    soon("the version", map.wait_for(counted.version)).await.unwrap();
    assert_eq!(counted.value, expected);
    map.set_and_wait("n", &Counter(5)).await.unwrap();
    assert_eq!(map.increment("n", 1).await.unwrap().value, 6, "a counter that was set goes on from there");
}

async fn a_counter_refuses_what_leaves_its_range_or_is_no_counter(subject: Subject) {
    let (client, scope) = (subject.client().await, subject.scope());
    let map = counters(&subject, &scope).await;
    assert_eq!(map.increment("n", i64::MAX).await.unwrap().value, i64::MAX);
    let error = map.increment("n", 1).await.unwrap_err();
    assert!(matches!(error.backend_error(), Some(pulse_core::Error::WrongValue { .. })), "{error:?}");
    assert_eq!(map.increment("n", -1).await.unwrap().value, i64::MAX - 1, "exact to the last digit");
    let text = Map::text("n").scope(scope).join(&client).await.unwrap();
    text.set("word", &"seven".to_owned()).await.unwrap();
    let error = map.increment("word", 1).await.unwrap_err();
    assert!(matches!(&error, Error::Key { key, .. } if key == "word"), "{error:?}");
}

async fn lists_grow_and_shrink_and_vanish_when_empty(subject: Subject) {
    let (client, scope) = (subject.client().await, subject.scope());
    let map = Map::lists("lists").scope(scope).join(&client).await.unwrap();
    let texts = |list: &List| list.texts().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(texts(&map.append("l", ["a", "b", "a"]).await.unwrap().list), ["a", "b", "a"]);
    let same = map.append_unique("l", ["b", "a"]).await.unwrap();
    assert!(!same.changed && same.version.unwrap().revision.0 == 1, "no change, no revision");
    let grown = map.append_unique("l", ["c", "c", "a"]).await.unwrap();
    assert_eq!((texts(&grown.list), grown.changed), (vec!["a".into(), "b".into(), "a".into(), "c".into()], true));
    soon("the version", map.wait_for(grown.version)).await.unwrap();
    assert_eq!(texts(&map.get("l").unwrap()), ["a", "b", "a", "c"]);
    assert_eq!(texts(&map.remove_values("l", ["a", "never there"]).await.unwrap().list), ["b", "c"]);
    let emptied = map.remove_values("l", ["b", "c"]).await.unwrap();
    assert!(emptied.list.is_empty() && emptied.changed);
    soon("the version", map.wait_for(emptied.version)).await.unwrap();
    assert!(!map.contains_key("l"));
    assert!(!map.remove_values("l", ["b"]).await.unwrap().changed);
}

async fn a_raw_map_reads_the_values_of_any_other(subject: Subject) {
    let (client, scope) = (subject.client().await, subject.scope());
    let numbers: Map<Vec<u64>> = Map::builder("m").scope(scope.clone()).join(&client).await.unwrap();
    let set = numbers.set("k", &vec![1, 2]).await.unwrap();
    let raw = Map::raw("m").scope(scope).join(&client).await.unwrap();
    assert_eq!(raw.version(), Some(set.version));
    assert_eq!(**raw.get("k").unwrap(), numbers.encode(&vec![1, 2]).unwrap());
    assert_eq!(numbers.decode("k", &raw.get("k").unwrap()).unwrap(), [1, 2]);
}

async fn values_of_no_bytes_and_of_many_megabytes_arrive(subject: Subject) {
    let (client, scope) = (subject.client().await, subject.scope());
    let writer = Map::raw("m").scope(scope.clone()).join(&client).await.unwrap();
    let reader = Map::raw("m").scope(scope.clone()).join(&subject.client().await).await.unwrap();
    for size in [0, 1, 5 << 20, 20 << 20] {
        let value = Bytes::from(vec![7; size]);
        let set = writer.set("k", &value).await.unwrap();
        soon("the version", reader.wait_for(set.version)).await.unwrap();
        assert!(**reader.get("k").unwrap() == value, "{size} bytes");
    }
    let late = Map::raw("m").scope(scope).join(&subject.client().await).await.unwrap();
    assert_eq!(late.get("k").unwrap().len(), 20 << 20);
}

async fn counters(subject: &Subject, scope: &Scope) -> Map<Counter> {
    Map::counters("n").scope(scope.clone()).join(&subject.client().await).await.unwrap()
}
