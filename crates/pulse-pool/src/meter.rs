//! Counters through the `metrics` facade (feature `metrics`); nothing at all without it. The label `pool` is the name of
//! the pool.
//!
//! | counter | counts |
//! |---|---|
//! | `pulse_pool_started_total` | jobs that this node began to run |
//! | `pulse_pool_rejected_total` | jobs that a handler of this node refused |
//! | `pulse_pool_handed_over_total` | jobs that this node gave away |
//! | `pulse_pool_taken_over_total` | jobs that this node took from nobody or from a dead owner |
//! | `pulse_pool_fenced_total` | times that this node was cut off and stopped all its jobs |

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Count {
    Started,
    Rejected,
    HandedOver,
    TakenOver,
    Fenced,
}

#[cfg(feature = "metrics")]
pub(crate) fn count(pool: &std::sync::Arc<str>, what: Count) {
    let pool = metrics::SharedString::from(pool.clone());
    let counter = match what {
        Count::Started => metrics::counter!("pulse_pool_started_total", "pool" => pool),
        Count::Rejected => metrics::counter!("pulse_pool_rejected_total", "pool" => pool),
        Count::HandedOver => metrics::counter!("pulse_pool_handed_over_total", "pool" => pool),
        Count::TakenOver => metrics::counter!("pulse_pool_taken_over_total", "pool" => pool),
        Count::Fenced => metrics::counter!("pulse_pool_fenced_total", "pool" => pool),
    };
    counter.increment(1);
}

#[cfg(not(feature = "metrics"))]
pub(crate) fn count(_: &std::sync::Arc<str>, _: Count) {}
