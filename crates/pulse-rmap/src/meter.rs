//! Counters and gauges through the `metrics` facade, each labelled with its `map`; nothing without the feature
//! `metrics`.
//!
//! | name | counts or shows |
//! |---|---|
//! | `pulse_rmap_changes_total` | changes of keys that the replica applied one by one |
//! | `pulse_rmap_resyncs_total` | how often it read the map again, by `cause` |
//! | `pulse_rmap_behind_revisions` | by how many revisions the replica was behind the backend when they were last compared |
//! | `pulse_rmap_lags_total` | how often a subscriber was too slow for its buffer |

use pulse_core::MapId;

/// The counters of one map.
pub(crate) struct Meter {
    #[cfg(feature = "metrics")]
    map: String,
    #[cfg(feature = "metrics")]
    changes: metrics::Counter,
    #[cfg(feature = "metrics")]
    lags: metrics::Counter,
    #[cfg(feature = "metrics")]
    behind: metrics::Gauge,
}

#[cfg(feature = "metrics")]
impl Meter {
    pub(crate) fn new(map: &MapId) -> Self {
        let map = map.to_string();
        Self {
            changes: metrics::counter!("pulse_rmap_changes_total", "map" => map.clone()),
            lags: metrics::counter!("pulse_rmap_lags_total", "map" => map.clone()),
            behind: metrics::gauge!("pulse_rmap_behind_revisions", "map" => map.clone()),
            map,
        }
    }

    pub(crate) fn changes(&self, count: usize) {
        self.changes.increment(count as u64);
    }

    pub(crate) fn lag(&self) {
        self.lags.increment(1);
    }

    pub(crate) fn behind(&self, revisions: u64) {
        self.behind.set(revisions as f64);
    }

    pub(crate) fn resync(&self, cause: &'static str) {
        metrics::counter!("pulse_rmap_resyncs_total", "map" => self.map.clone(), "cause" => cause).increment(1);
    }
}

#[cfg(not(feature = "metrics"))]
impl Meter {
    pub(crate) fn new(_: &MapId) -> Self {
        Self {}
    }

    pub(crate) fn changes(&self, _: usize) {}

    pub(crate) fn lag(&self) {}

    pub(crate) fn behind(&self, _: u64) {}

    pub(crate) fn resync(&self, _: &'static str) {}
}
