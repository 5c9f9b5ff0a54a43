//! Publishing to subscribers, fast and slow.

use std::collections::BTreeMap;

use bytes::Bytes;
use pulse_core::{Change as Wire, Incarnation, MapCommit, Revision, Scope};

use super::*;
use crate::{KeyFilter, Update, codec::Codec, replica::Replica};

/// A replica that is fed by hand.
struct Source {
    replica: Replica<u64>,
    shared: Shared<u64>,
}

impl Source {
    fn new() -> Self {
        let map = Scope::new("s").unwrap().map("m").unwrap();
        let meter = Meter::new(&map);
        let replica = Replica::new(map, Codec::message_pack());
        Self { shared: Shared::new(replica.view(), meter), replica }
    }

    fn commit(&mut self, change: Wire) {
        let before = self.replica.version().map_or(Revision(0), |version| version.revision);
        let commit = MapCommit::new(Incarnation(1), before, Revision(before.0 + 1), vec![change]);
        self.replica.commit(commit).unwrap();
        let changes = self.replica.take_changes();
        self.shared.publish(self.replica.view(), Delta::Steps(changes));
    }

    fn put(&mut self, key: &str, value: u64) {
        let raw: Bytes = Codec::message_pack().encode(&value).unwrap();
        self.commit(Wire::Put { key: key.into(), value: raw });
    }
}

/// Takes what there is, folded over `content`; returns the number of changes and of lags.
fn drain(changes: &mut Changes<u64>, content: &mut BTreeMap<String, u64>) -> (usize, usize) {
    let (mut taken, mut lags, mut last) = (0, 0, 0);
    while let Some(update) = changes.try_next() {
        match update {
            Update::Change(change) => {
                taken += 1;
                let revision = change.version.unwrap().revision.0;
                assert!(revision >= last, "revision {revision} after {last}");
                last = revision;
                let before = match change.value {
                    Some(value) => content.insert(change.key.to_string(), *value),
                    None => content.remove(&*change.key),
                };
                assert_eq!(before, change.previous.as_deref().copied());
            }
            Update::Cleared(cleared) => assert_eq!(cleared.keys, content.len() as u64),
            Update::Lagged => lags += 1,
        }
    }
    (taken, lags)
}

fn plain(shared: &Shared<u64>) -> BTreeMap<String, u64> {
    shared.snapshot().iter().map(|(key, value)| (key.to_string(), *value)).collect()
}

#[test]
fn a_slow_subscriber_gets_one_lag_and_the_exact_difference_and_others_every_step() {
    let mut source = Source::new();
    source.put("gone", 1);
    let (start, mut slow) = source.shared.subscribe(4);
    let (_, mut fast) = source.shared.subscribe(1000);
    let mut slow_content: BTreeMap<_, _> = start.iter().map(|(key, value)| (key.to_string(), *value)).collect();
    let mut fast_content = slow_content.clone();
    for value in 0..100 {
        source.put(&format!("k{}", value % 3), value);
    }
    source.commit(Wire::Deleted { key: "gone".into() });
    assert_eq!(drain(&mut fast, &mut fast_content), (101, 0));
    assert_eq!(drain(&mut slow, &mut slow_content), (4, 1));
    assert_eq!(slow_content, plain(&source.shared));
    assert_eq!(fast_content, plain(&source.shared));
    source.put("k0", 7);
    assert_eq!(drain(&mut slow, &mut slow_content), (1, 0));
    assert_eq!(slow_content, plain(&source.shared));
}

#[test]
fn a_lag_in_the_middle_of_what_is_being_read_neither_loses_nor_repeats_a_change() {
    let mut source = Source::new();
    let (_, mut changes) = source.shared.subscribe(2);
    let mut content = BTreeMap::new();
    source.put("a", 1);
    source.put("b", 1);
    assert!(matches!(changes.try_next(), Some(Update::Change(change)) if &*change.key == "a"));
    content.insert("a".to_owned(), 1);
    for value in 2..10 {
        source.put("a", value);
    }
    assert_eq!(drain(&mut changes, &mut content), (2, 1));
    assert_eq!(content, plain(&source.shared));
}

#[test]
fn a_batch_larger_than_the_buffer_still_arrives_whole() {
    let mut source = Source::new();
    for value in 0..10 {
        source.put(&format!("k{value}"), value);
    }
    let (start, mut changes) = source.shared.subscribe(3);
    let mut content = start.iter().map(|(key, value)| (key.to_string(), *value)).collect();
    source.commit(Wire::Cleared);
    assert_eq!(drain(&mut changes, &mut content), (10, 0));
    assert!(content.is_empty());
}

#[tokio::test]
async fn closing_ends_a_subscription_after_what_it_still_holds_and_later_ones_at_once() {
    let mut source = Source::new();
    let (_, mut changes) = source.shared.subscribe(10);
    source.put("a", 1);
    source.shared.close();
    assert!(matches!(changes.next().await, Some(Update::Change(_))));
    assert!(changes.next().await.is_none());
    let (snapshot, mut late) = source.shared.subscribe(10);
    assert_eq!(snapshot.get("a"), Some(&1));
    assert!(late.next().await.is_none());
}

#[test]
fn a_snapshot_never_changes_under_the_reader() {
    let mut source = Source::new();
    source.put("a", 1);
    let snapshot = source.shared.snapshot();
    source.put("a", 2);
    source.commit(Wire::Cleared);
    assert_eq!((snapshot.get("a"), snapshot.len(), snapshot.version().unwrap().revision.0), (Some(&1), 1, 1));
}

#[test]
fn dropped_subscribers_are_forgotten() {
    let mut source = Source::new();
    for _ in 0..100 {
        drop(source.shared.subscribe(10));
    }
    assert!(source.shared.lock().len() <= 1);
    source.put("a", 1);
    assert_eq!(source.shared.lock().len(), 0);
}

#[test]
fn a_second_choice_of_keys_narrows_the_first() {
    let mut source = Source::new();
    let (_, changes) = source.shared.subscribe(10);
    let mut changes = changes.only(KeyFilter::prefix("a/")).only(KeyFilter::keys(["a/1", "b/1"]));
    for key in ["a/1", "a/2", "b/1", "b/2"] {
        source.put(key, 1);
    }
    assert_eq!(drain(&mut changes, &mut BTreeMap::new()), (1, 0));
    source.put("a/1", 2);
    assert!(matches!(changes.try_next(), Some(Update::Change(change)) if &*change.key == "a/1"));
}

#[test]
fn a_subscriber_that_has_taken_every_change_keeps_nothing_alive() {
    let mut source = Source::new();
    let (start, mut changes) = source.shared.subscribe(10);
    drop(start);
    source.put("a", 1);
    let first = Arc::downgrade(&source.shared.view.load_full());
    source.put("b", 1);
    source.put("c", 1);
    for _ in 0..3 {
        assert!(matches!(changes.try_next(), Some(Update::Change(_))));
    }
    assert!(first.upgrade().is_none(), "the view before the last change");
    let before_last = Arc::downgrade(&source.shared.view.load_full());
    source.put("d", 1);
    assert!(matches!(changes.try_next(), Some(Update::Change(_))));
    assert!(before_last.upgrade().is_none(), "it was replaced, and the change was taken");
}
