//! Replicated maps across the backends.

#[cfg(feature = "standalone")]
mod faults;
mod following;
mod kinds;
#[cfg(feature = "standalone")]
mod load;
mod promises;
mod writing;

use std::collections::BTreeMap;

use pulse_core::{Client, Scope};
use pulse_rmap::{Changes, Map, Snapshot, Update};
use tests::{Subject, soon};

async fn join(client: &Client, scope: &Scope) -> Map<u64> {
    Map::builder("m").scope(scope.clone()).join(client).await.unwrap()
}

/// Two clients of one store, each with a replica of one new map.
async fn two(subject: &Subject) -> (Map<u64>, Map<u64>) {
    let scope = subject.scope();
    (join(&subject.client().await, &scope).await, join(&subject.client().await, &scope).await)
}

fn content(snapshot: &Snapshot<u64>) -> BTreeMap<String, u64> {
    snapshot.iter().map(|(key, value)| (key.to_string(), *value)).collect()
}

/// The next change, as text: revision, kind, key, value, previous value.
async fn next(changes: &mut Changes<u64>) -> String {
    match soon("a change", changes.next()).await {
        Some(Update::Change(change)) => {
            let revision = change.version.map_or(0, |version| version.revision.0);
            let number = |value: Option<&u64>| value.map_or("-".to_owned(), ToString::to_string);
            let (value, previous) = (number(change.value.as_deref()), number(change.previous.as_deref()));
            format!("{revision} {:?} {} {value} {previous}", change.kind, change.key)
        }
        Some(Update::Cleared(cleared)) => {
            format!("{} Cleared {}", cleared.version.map_or(0, |version| version.revision.0), cleared.keys)
        }
        other => panic!("expected a change, got {other:?}"),
    }
}

#[cfg(feature = "standalone")]
/// Applies changes until the map is as expected; fails if one does not continue what was known.
async fn fold_until(changes: &mut Changes<u64>, known: &mut BTreeMap<String, u64>, expected: &BTreeMap<String, u64>) {
    while known != expected {
        let update = soon("the changes that lead to the map", changes.next()).await;
        let Some(Update::Change(change)) = update else { continue };
        let before = match &change.value {
            Some(value) => known.insert(change.key.to_string(), **value),
            None => known.remove(&*change.key),
        };
        assert_eq!(before, change.previous.as_deref().copied(), "{change:?}");
        // A change that is repeated or out of order changes nothing, or puts an older value back.
        assert_ne!(before.as_ref(), change.value.as_deref(), "{change:?} changes nothing");
    }
}
