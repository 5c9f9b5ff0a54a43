//! Metrics through the `metrics` facade (feature `metrics`); nothing at all without it. The label `pool` of each is the
//! name of the pool.
//!
//! | counter | labels | counts |
//! |---|---|---|
//! | `pulse_pool_started_total` | | starts of jobs on this node that their handler accepted |
//! | `pulse_pool_rejected_total` | | jobs that a handler of this node refused |
//! | `pulse_pool_done_total` | | jobs of this node that ended by themselves |
//! | `pulse_pool_retries_total` | `reason`: `failed`, `requeued` | jobs of this node that are to be started again, because they failed or because they were put back |
//! | `pulse_pool_dead_total` | | jobs that this node gave up |
//! | `pulse_pool_moves_total` | `cause` | jobs that changed hands, counted by the node that made them |
//! | `pulse_pool_handed_over_total` | | jobs that this node gave away: the moves of the first two causes |
//! | `pulse_pool_taken_over_total` | | jobs that this node took: the moves of the other two |
//! | `pulse_pool_fenced_total` | | times that this node was cut off and stopped all its jobs |
//! | `pulse_pool_lost_total` | | jobs of this node whose records the backend has lost; see [`Node::lost_jobs`](crate::Node::lost_jobs) |
//!
//! The causes of a move: `membership`, handed over because workers came, went or changed; `drain`, because the worker
//! itself was removed, or its node closed; `death`, pulled because the owner's lease had run out; `waiting`, pulled
//! because nobody had it.
//!
//! | histogram | measures |
//! |---|---|
//! | `pulse_pool_queue_wait_seconds` | from the dispatch of a job, or the time that it was delayed to, until its first start begins, by the server's clock; again from the new time if that start puts it back |
//! | `pulse_pool_start_seconds` | how long the start of a handler took, whatever it came to |
//!
//! The gauge of jobs by state is [`standing`](crate::standing)'s.

#[cfg(feature = "metrics")]
use metrics::{Counter, Histogram, SharedString, counter, histogram};

/// Why a job changed hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Membership,
    Drain,
    Death,
    Waiting,
}

/// The counters and histograms of one pool.
#[derive(Clone)]
pub(crate) struct Meter {
    #[cfg(feature = "metrics")]
    all: std::sync::Arc<All>,
}

#[cfg(feature = "metrics")]
struct All {
    started: Counter,
    rejected: Counter,
    done: Counter,
    failed: Counter,
    requeued: Counter,
    dead: Counter,
    membership: Counter,
    drain: Counter,
    death: Counter,
    waiting: Counter,
    handed_over: Counter,
    taken_over: Counter,
    fenced: Counter,
    lost: Counter,
    queue_wait: Histogram,
    start: Histogram,
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),*) => {
        $($(#[$doc])* pub(crate) fn $name(&self) {
            #[cfg(feature = "metrics")]
            self.all.$name.increment(1);
        })*
    };
}

impl Meter {
    #[cfg(feature = "metrics")]
    pub(crate) fn new(pool: &std::sync::Arc<str>) -> Self {
        let pool = || SharedString::from(pool.clone());
        let retries = |reason| counter!("pulse_pool_retries_total", "pool" => pool(), "reason" => reason);
        let moves = |cause| counter!("pulse_pool_moves_total", "pool" => pool(), "cause" => cause);
        let all = All {
            started: counter!("pulse_pool_started_total", "pool" => pool()),
            rejected: counter!("pulse_pool_rejected_total", "pool" => pool()),
            done: counter!("pulse_pool_done_total", "pool" => pool()),
            failed: retries("failed"),
            requeued: retries("requeued"),
            dead: counter!("pulse_pool_dead_total", "pool" => pool()),
            membership: moves("membership"),
            drain: moves("drain"),
            death: moves("death"),
            waiting: moves("waiting"),
            handed_over: counter!("pulse_pool_handed_over_total", "pool" => pool()),
            taken_over: counter!("pulse_pool_taken_over_total", "pool" => pool()),
            fenced: counter!("pulse_pool_fenced_total", "pool" => pool()),
            lost: counter!("pulse_pool_lost_total", "pool" => pool()),
            queue_wait: histogram!("pulse_pool_queue_wait_seconds", "pool" => pool()),
            start: histogram!("pulse_pool_start_seconds", "pool" => pool()),
        };
        Self { all: std::sync::Arc::new(all) }
    }

    #[cfg(not(feature = "metrics"))]
    pub(crate) fn new(_: &std::sync::Arc<str>) -> Self {
        Self {}
    }

    counts!(
        started,
        rejected,
        done,
        dead,
        fenced,
        lost,
        /// A job of this node is to be started again because it failed.
        failed,
        /// A job of this node is to be started again because it was put back.
        requeued
    );

    #[cfg(feature = "metrics")]
    pub(crate) fn moved(&self, cause: Cause) {
        let (of_cause, of_direction) = match cause {
            Cause::Membership => (&self.all.membership, &self.all.handed_over),
            Cause::Drain => (&self.all.drain, &self.all.handed_over),
            Cause::Death => (&self.all.death, &self.all.taken_over),
            Cause::Waiting => (&self.all.waiting, &self.all.taken_over),
        };
        of_cause.increment(1);
        of_direction.increment(1);
    }

    #[cfg(not(feature = "metrics"))]
    pub(crate) fn moved(&self, _: Cause) {}

    /// How long a job has waited for its first start.
    #[cfg(feature = "metrics")]
    pub(crate) fn waited(&self, time: std::time::Duration) {
        self.all.queue_wait.record(time);
    }

    #[cfg(not(feature = "metrics"))]
    pub(crate) fn waited(&self, _: std::time::Duration) {}

    /// How long the start of a handler took.
    #[cfg(feature = "metrics")]
    pub(crate) fn start_took(&self, time: std::time::Duration) {
        self.all.start.record(time);
    }

    #[cfg(not(feature = "metrics"))]
    pub(crate) fn start_took(&self, _: std::time::Duration) {}
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meter")
    }
}
