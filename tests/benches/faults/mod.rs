//! How soon everything goes on after a fault. Each fault has servers of its own; the one of the other benchmarks has no
//! part in this.
//!
//! The yardstick is what the servers themselves need: the time from the fault until a connection that is made only to
//! ask may write again. A run takes less than three minutes as long as the goals are met.

mod link;
mod outage;
mod successor;

use crate::harness::{Bench, Table, scenarios};

pub(crate) async fn run(bench: &Bench, table: &mut Table) {
    scenarios! {
        bench, table;
        "black-hole" => link::connections_become_black_holes,
        "restart" => link::a_server_restarts,
        "sentinel-kill" => successor::a_primary_behind_sentinel_is_killed,
        "sentinel-hang" => successor::a_primary_behind_sentinel_hangs,
        "cluster-kill" => successor::a_primary_of_a_cluster_is_killed,
        "cluster-hang" => successor::a_primary_of_a_cluster_hangs,
    }
}
