//! Why a replica reads its map again.

use std::fmt;

use pulse_core::{GapCause, Version};

use crate::replica::Broken;

/// Why what the replica has can no longer be vouched for.
#[derive(Debug, Clone)]
pub(super) enum Cause {
    /// The feed says that commits may be missing.
    Gap(GapCause),
    /// A commit is not the next one.
    Broken(Broken),
    /// The backend has another version than the feed has led to.
    Diverged { at: Option<Version>, server: Option<Version> },
    /// The feed ended.
    FeedEnded,
}

impl Cause {
    /// For counting.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Gap(GapCause::Disconnected | GapCause::Resubscribed) => "disconnected",
            Self::Gap(GapCause::Lagged) => "lagged",
            Self::Gap(GapCause::Malformed { .. }) => "malformed",
            Self::Gap(_) | Self::Broken(_) => "discontinuity",
            Self::Diverged { .. } => "diverged",
            Self::FeedEnded => "feed-ended",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |version: &Option<Version>| version.map_or_else(|| "no map".into(), |version| version.to_string());
        match self {
            Self::Gap(cause) => write!(f, "the feed reports a gap: {cause:?}"),
            Self::Broken(broken) => broken.fmt(f),
            Self::Diverged { at, server } => {
                write!(f, "the replica is at {}, the backend at {}", text(at), text(server))
            }
            Self::FeedEnded => f.write_str("the feed ended"),
        }
    }
}
