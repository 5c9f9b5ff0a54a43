//! When a handler that failed is called again, and when it is not.

use std::time::Duration;

use crate::{backoff::Backoff, options::LONGEST};

/// How often and after which pauses an event is handled again.
///
/// Pauses double from the shortest to the longest, and each is jittered between half of itself and all of it, so that
/// what failed together does not come back together. The attempts of all instances count, and those that ended with a
/// crash.
///
/// ```
/// use std::time::Duration;
/// use pulse_streaming::RetryPolicy;
///
/// let policy = RetryPolicy::new().attempts(5).pauses(Duration::from_millis(100), Duration::from_secs(10));
/// # let _ = policy;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a policy does nothing by itself"]
pub struct RetryPolicy {
    attempts: u64,
    shortest: Duration,
    longest: Duration,
}

impl RetryPolicy {
    /// Ten attempts, with pauses from half a second to a minute.
    pub const fn new() -> Self {
        Self { attempts: 10, shortest: Duration::from_millis(500), longest: Duration::from_secs(60) }
    }

    /// Sets how often an event is handled at most; after that it is a dead letter. At least once.
    pub const fn attempts(mut self, attempts: u64) -> Self {
        self.attempts = if attempts == 0 { 1 } else { attempts };
        self
    }

    /// Sets the pause after the first failure, and the longest. None is longer than a year, whatever is said here, nor
    /// longer than the longest.
    pub const fn pauses(mut self, shortest: Duration, longest: Duration) -> Self {
        (self.shortest, self.longest) = (shortest, longest);
        self
    }

    /// The pause after an attempt that failed, `None` if it was the last. `random` lies in 0..1.
    pub(super) fn after(&self, attempt: u64, random: f64) -> Option<Duration> {
        let failures = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        (attempt < self.attempts).then(|| Backoff::pause(self.shortest, self.longest.min(LONGEST), failures, random))
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_end_with_the_last_attempt() {
        let second = Duration::from_secs(1);
        let policy = RetryPolicy::new().attempts(6).pauses(second, 5 * second);
        let pauses: Vec<_> = (1..=7).map(|attempt| policy.after(attempt, 1.0).map(|pause| pause.as_secs())).collect();
        assert_eq!(pauses, [Some(1), Some(2), Some(4), Some(5), Some(5), None, None]);
        assert_eq!(RetryPolicy::new().attempts(0).after(1, 0.5), None, "once at least, and then never again");
        assert!(RetryPolicy::new().attempts(u64::MAX).after(u64::MAX - 1, 0.0).is_some());
        let crossed = RetryPolicy::new().pauses(5 * second, second);
        assert_eq!(crossed.after(1, 1.0), Some(second));
        let endless = RetryPolicy::new().pauses(Duration::MAX, Duration::MAX);
        assert_eq!(endless.after(1, 1.0), Some(LONGEST));
        assert_eq!(RetryPolicy::new().pauses(Duration::ZERO, Duration::ZERO).after(1, 1.0), Some(Duration::ZERO));
    }
}
