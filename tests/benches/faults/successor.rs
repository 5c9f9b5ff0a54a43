//! A primary that another server succeeds.

use std::time::Duration;

use tests::{Fleet, scene::SCOPE};

use super::outage::{Activity, Outage, WITHIN, rounds};
use crate::harness::{Bench, Row};

/// How long the nodes of the cluster take to find one of them dead.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn a_primary_behind_sentinel_is_killed(bench: &Bench) -> Vec<Row> {
    let fleets = Fleet::of_sentinels;
    each_round(bench, fleets, Fleet::kill_primary).await.rows("a primary behind Sentinel is killed", WITHIN)
}

pub(super) async fn a_primary_behind_sentinel_hangs(bench: &Bench) -> Vec<Row> {
    let hang = |fleet: &mut Fleet| fleet.primary().pause();
    each_round(bench, Fleet::of_sentinels, hang).await.rows("a primary behind Sentinel hangs", WITHIN)
}

pub(super) async fn a_primary_of_a_cluster_is_killed(bench: &Bench) -> Vec<Row> {
    each_round(bench, cluster, Fleet::kill_primary).await.rows("a primary of a cluster is killed", WITHIN)
}

pub(super) async fn a_primary_of_a_cluster_hangs(bench: &Bench) -> Vec<Row> {
    let hang = |fleet: &mut Fleet| fleet.primary().pause();
    each_round(bench, cluster, hang).await.rows("a primary of a cluster hangs", WITHIN)
}

fn cluster() -> Fleet {
    Fleet::of_cluster(SCOPE, NODE_TIMEOUT)
}

/// Harms the primary of one fleet after the other.
async fn each_round(bench: &Bench, start: impl Fn() -> Fleet, harm: impl Fn(&mut Fleet)) -> Outage {
    let mut outage = Outage::default();
    for _ in 0..rounds(bench) {
        let mut fleet = tokio::task::block_in_place(&start);
        let activity = Activity::begin(&fleet.url()).await;
        let successor = fleet.successor().port();
        tokio::task::block_in_place(|| fleet.primary().wait_until_replicated());
        harm(&mut fleet);
        outage.push(&activity.resumes(successor).await);
    }
    outage
}
