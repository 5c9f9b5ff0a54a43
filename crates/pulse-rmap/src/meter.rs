//! Counters through the `metrics` facade, each labelled with its `map`; nothing without the feature `metrics`.
//!
//! | name | counts |
//! |---|---|
//! | `pulse_rmap_changes_total` | changes of keys that the replica applied one by one |
//! | `pulse_rmap_resyncs_total` | how often it read the map again, by `cause` |
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
}

#[cfg(feature = "metrics")]
impl Meter {
    pub(crate) fn new(map: &MapId) -> Self {
        let map = map.to_string();
        Self {
            changes: metrics::counter!("pulse_rmap_changes_total", "map" => map.clone()),
            lags: metrics::counter!("pulse_rmap_lags_total", "map" => map.clone()),
            map,
        }
    }

    pub(crate) fn changes(&self, count: usize) {
        self.changes.increment(count as u64);
    }

    pub(crate) fn lag(&self) {
        self.lags.increment(1);
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

    pub(crate) fn resync(&self, _: &'static str) {}
}
