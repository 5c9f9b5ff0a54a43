//! How often and how much goes wrong by itself.

use std::{ops::RangeInclusive, time::Duration};

use crate::MAX_LIFETIME;

/// What may happen to a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Chances {
    /// On the way there, and once more on the way back.
    pub(super) delay: RangeInclusive<Duration>,
    pub(super) fail_before: f64,
    pub(super) fail_after: f64,
}

impl Chances {
    /// No delays and no failures.
    #[must_use]
    pub fn none() -> Self {
        Self { delay: Duration::ZERO..=Duration::ZERO, fail_before: 0.0, fail_after: 0.0 }
    }

    /// Sets how long a call takes from the client to the store, and again from the store to the client. More than
    /// [`MAX_LIFETIME`] acts as that.
    #[must_use]
    pub fn with_delay(mut self, delay: RangeInclusive<Duration>) -> Self {
        self.delay = measurable(delay);
        self
    }

    /// Sets the probability that a call fails without an effect; its error says so.
    #[must_use]
    pub fn with_failures_before(mut self, probability: f64) -> Self {
        self.fail_before = probability;
        self
    }

    /// Sets the probability that a call fails after it took effect; its error says that this is unknown.
    #[must_use]
    pub fn with_failures_after(mut self, probability: f64) -> Self {
        self.fail_after = probability;
        self
    }
}

impl Default for Chances {
    fn default() -> Self {
        Self::none()
    }
}

/// What may happen to the items of feeds.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedChances {
    pub(super) delay: RangeInclusive<Duration>,
    pub(super) loss: f64,
}

impl FeedChances {
    /// No delays and no losses.
    #[must_use]
    pub fn none() -> Self {
        Self { delay: Duration::ZERO..=Duration::ZERO, loss: 0.0 }
    }

    /// Sets how long an item is under way. Items stay in order. More than [`MAX_LIFETIME`] acts as that.
    #[must_use]
    pub fn with_delay(mut self, delay: RangeInclusive<Duration>) -> Self {
        self.delay = measurable(delay);
        self
    }

    /// Sets the probability that a commit never arrives. The next one then shows as a discontinuity; if none follows,
    /// nothing shows, which is more than a backend may do, and which only comparing versions finds.
    #[must_use]
    pub fn with_loss(mut self, probability: f64) -> Self {
        self.loss = probability;
        self
    }
}

impl Default for FeedChances {
    fn default() -> Self {
        Self::none()
    }
}

/// Delays that can be added to any time.
fn measurable(delay: RangeInclusive<Duration>) -> RangeInclusive<Duration> {
    let (start, end) = delay.into_inner();
    start.min(MAX_LIFETIME)..=end.min(MAX_LIFETIME)
}

/// A duration in the range, at a fraction between 0 and 1 of its width.
pub(super) fn within(range: &RangeInclusive<Duration>, fraction: f64) -> Duration {
    *range.start() + range.end().saturating_sub(*range.start()).mul_f64(fraction)
}
