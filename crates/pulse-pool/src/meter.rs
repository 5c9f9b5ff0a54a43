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
//! | `pulse_pool_done_total` | jobs of this node that ended by themselves |
//! | `pulse_pool_put_back_total` | jobs of this node that failed, or were put back, and are started again |
//! | `pulse_pool_dead_total` | jobs that this node gave up |

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Count {
    Started,
    Rejected,
    HandedOver,
    TakenOver,
    Fenced,
    Done,
    PutBack,
    Dead,
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
        Count::Done => metrics::counter!("pulse_pool_done_total", "pool" => pool),
        Count::PutBack => metrics::counter!("pulse_pool_put_back_total", "pool" => pool),
        Count::Dead => metrics::counter!("pulse_pool_dead_total", "pool" => pool),
    };
    counter.increment(1);
}

#[cfg(not(feature = "metrics"))]
pub(crate) fn count(_: &std::sync::Arc<str>, _: Count) {}
