//! Counters through the `metrics` facade (feature `metrics`); nothing at all without it.
//!
//! | counter | labels | counts |
//! |---|---|---|
//! | `pulse_core_commits_total` | `outcome`: `committed`, `conflict`, `unknown`, `failed` | commits through a client |
//! | `pulse_core_feed_gaps_total` | `cause` | places of a feed where commits may be missing |
//! | `pulse_core_swept_entries_total` | | entries that sweeps of this process deleted |

use crate::{Committed, Error, GapCause};

#[cfg(feature = "metrics")]
pub(crate) fn committed(result: &Result<Committed, Error>) {
    let outcome = match result {
        Ok(_) => "committed",
        Err(error) if error.is_conflict() => "conflict",
        Err(error) if error.is_outcome_unknown() => "unknown",
        Err(_) => "failed",
    };
    metrics::counter!("pulse_core_commits_total", "outcome" => outcome).increment(1);
}

#[cfg(feature = "metrics")]
pub(crate) fn gap(cause: &GapCause) {
    let cause = match cause {
        GapCause::Disconnected => "disconnected",
        GapCause::Resubscribed => "resubscribed",
        GapCause::Lagged => "lagged",
        GapCause::Discontinuity { .. } => "discontinuity",
        GapCause::Malformed { .. } => "malformed",
    };
    metrics::counter!("pulse_core_feed_gaps_total", "cause" => cause).increment(1);
}

#[cfg(feature = "metrics")]
pub(crate) fn swept(entries: u64) {
    metrics::counter!("pulse_core_swept_entries_total").increment(entries);
}

#[cfg(not(feature = "metrics"))]
pub(crate) fn committed(_: &Result<Committed, Error>) {}

#[cfg(not(feature = "metrics"))]
pub(crate) fn gap(_: &GapCause) {}

#[cfg(not(feature = "metrics"))]
pub(crate) fn swept(_: u64) {}
