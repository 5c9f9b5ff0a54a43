//! A cluster that loses a primary, and one whose slots move.

use fred::util::redis_keyslot;
use pulse_core::{ClientBuilder, Scope};
use pulse_rmap::Map;
use tests::{Cluster, eventually, in_time};

use crate::life::{Life, TIMEOUT};

/// Scopes in the slots of the first owners 0, 1, 2, in turn.
fn scopes(cluster: &Cluster, count: usize) -> Vec<Scope> {
    let mut names = (0..).map(|number| format!("scope-{number}"));
    let owned_by = |owner: usize, name: &String| cluster.first_owner(redis_keyslot(name.as_bytes())) == owner;
    let found = (0..count).map(|index| names.find(|name| owned_by(index % 3, name)).unwrap());
    found.map(|name| Scope::new(name).unwrap()).collect()
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
        weights.set("before", &1).await.unwrap();
        let mut lives = Vec::new();
        for scope in scopes {
            lives.push(Life::begin(&client, scope).await);
        }
        for life in &lives {
            life.goes_on(100).await;
        }
        cluster.kill(0);
        for life in &lives {
            life.goes_on(300).await;
        }
        weights.set("after", &2).await.unwrap();
        eventually("both replicas have both", async || {
            let has =
                |map: &Map<u64>| map.get("before").as_deref() == Some(&1) && map.get("after").as_deref() == Some(&2);
            if has(&weights) && has(&elsewhere) { Ok(()) } else { Err((weights.len(), elsewhere.len())) }
        })
        .await;
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
