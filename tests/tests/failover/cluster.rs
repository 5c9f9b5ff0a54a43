//! A cluster that loses a primary, and one whose slots move.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fred::util::redis_keyslot;
use pulse_core::{ClientBuilder, Scope};
use pulse_rmap::{Map, Update};
use tests::{Cluster, eventually, in_time};

use crate::life::{Life, TIMEOUT};

/// How soon after the cluster serves again replicas follow it again.
const WITHIN: Duration = Duration::from_secs(2);

/// Scopes in the slots of the first owners 0, 1, 2, in turn.
fn scopes(cluster: &Cluster, count: usize) -> Vec<Scope> {
    let mut names = (0..).map(|number| format!("scope-{number}"));
    let owned_by = |owner: usize, name: &String| cluster.first_owner(redis_keyslot(name.as_bytes())) == owner;
    let found = (0..count).map(|index| names.find(|name| owned_by(index % 3, name)).unwrap());
    found.map(|name| Scope::new(name).unwrap()).collect()
}

/// Writes until it is enough; what fails may be there or not.
async fn weigh(weights: Map<u64>, enough: Arc<AtomicBool>) {
    for number in 0.. {
        if weights.set(format!("k{}", number % 20), &number).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if enough.load(Ordering::Relaxed) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_primary_costs_time_and_nothing_else() {
    in_time(async {
        let mut cluster = Cluster::start(3, true);
        let client = ClientBuilder::new(cluster.url()).command_timeout(TIMEOUT).connect().await.unwrap();
        let scopes = scopes(&cluster, 6);
        let weights = Map::<u64>::builder("weights").scope(scopes[0].clone()).join(&client).await.unwrap();
        let other = ClientBuilder::new(cluster.url()).command_timeout(TIMEOUT).connect().await.unwrap();
        let elsewhere = Map::<u64>::builder("weights").scope(scopes[0].clone()).join(&other).await.unwrap();
        let mut changes = elsewhere.subscribe();
        let enough = Arc::<AtomicBool>::default();
        let writer = tokio::spawn(weigh(weights.clone(), enough.clone()));
        let mut lives = Vec::new();
        for scope in scopes {
            lives.push(Life::begin(&client, scope).await);
        }
        for life in &lives {
            life.goes_on(100).await;
        }
        cluster.kill(0);
        tokio::task::block_in_place(|| cluster.wait_for_successor(0));
        let at = elsewhere.version();
        let resumed = tokio::time::timeout(WITHIN, async {
            while elsewhere.version() == at || !elsewhere.is_synced() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        resumed.await.expect("the replica follows the new primary");
        for life in &lives {
            life.goes_on(300).await;
        }
        enough.store(true, Ordering::Relaxed);
        writer.await.unwrap();
        let page = client.backend().map_page(weights.id(), None, 1_000).await.unwrap();
        let decode = |(key, raw): (Arc<str>, Bytes)| (key.to_string(), weights.decode(&key, &raw).unwrap());
        let expected: BTreeMap<String, u64> = page.entries.into_iter().map(decode).collect();
        for map in [&weights, &elsewhere] {
            eventually("the replicas have what the server has", async || {
                let snapshot = map.snapshot();
                let content: BTreeMap<_, _> = snapshot.iter().map(|(key, weight)| (key.to_string(), *weight)).collect();
                if content == expected { Ok(()) } else { Err(content) }
            })
            .await;
        }
        // The changes tell exactly how it came about, whatever was read again meanwhile.
        let mut told = BTreeMap::new();
        while let Some(update) = changes.try_next() {
            let Update::Change(change) = update else { continue };
            let value = change.value.as_deref().copied().expect("nothing was deleted");
            assert_eq!(told.insert(change.key.to_string(), value), change.previous.as_deref().copied());
        }
        assert_eq!(told, expected);
        for (index, life) in lives.into_iter().enumerate() {
            let report = life.end().await;
            // The first owner of every third was killed.
            if index % 3 == 0 {
                assert!(report.gaps.disconnected > 0 && report.gaps.resubscribed > 0, "a feed was silent: {report:?}");
            }
        }
        weights.close().await;
        elsewhere.close().await;
        other.close().await;
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_moves_under_writers_feeds_and_readers() {
    in_time(async {
        let cluster = Cluster::start(3, false);
        let client = ClientBuilder::new(cluster.url()).command_timeout(TIMEOUT).connect().await.unwrap();
        let scope = scopes(&cluster, 1).remove(0);
        let slot = redis_keyslot(scope.as_str().as_bytes());
        let life = Life::begin(&client, scope).await;
        life.goes_on(100).await;
        // There and elsewhere, and back again.
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            cluster.begin_move(slot, from, to);
            // One key after the other, so that some are here and some are there while the writer writes.
            while cluster.move_keys(slot, from, to, 1) > 0 {}
            cluster.end_move(slot, from, to);
            life.goes_on(100).await;
        }
        let report = life.end().await;
        assert_eq!(report.unknown, 0, "a slot that moves leaves no doubt: {report:?}");
        client.close().await;
    })
    .await;
}
