//! When a job that failed is tried again, and when it is not.

use std::time::Duration;

use pulse_core::MAX_LIFETIME;

/// How often and after which pauses a job is tried again.
///
/// Pauses double from the shortest to the longest, and each is jittered between half of itself and all of it, so that
/// what failed together does not come back together. Attempts count on whichever node they were made, and so do those
/// that ended with the death of their node, or were taken over because it was cut off. One that its own node takes back
/// after it was cut off does not count, up to ten times for a job.
///
/// ```
/// use std::time::Duration;
/// use pulse_pool::RetryPolicy;
///
/// let policy = RetryPolicy::new().attempts(5).pauses(Duration::from_millis(100), Duration::from_secs(10));
/// # let _ = policy;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a policy does nothing by itself"]
pub struct RetryPolicy {
    attempts: u32,
    shortest: Duration,
    longest: Duration,
}

impl RetryPolicy {
    /// Ten attempts, with pauses from half a second to a minute.
    pub const fn new() -> Self {
        Self { attempts: 10, shortest: Duration::from_millis(500), longest: Duration::from_secs(60) }
    }

    /// Sets how often a job is tried at most; after that it is a [dead job](crate::DeadJob). At least once.
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = if attempts == 0 { 1 } else { attempts };
        self
    }

    /// Sets the pause after the first failure, and the longest. None is longer than a hundred years, whatever is said
    /// here, nor longer than the longest.
    pub const fn pauses(mut self, shortest: Duration, longest: Duration) -> Self {
        (self.shortest, self.longest) = (shortest, longest);
        self
    }

    /// Whether an attempt of that number, from 1, may be made.
    pub(crate) const fn allows(&self, attempt: u32) -> bool {
        attempt <= self.attempts
    }

    /// The pause after an attempt that failed, `None` if it was the last. `random` lies in 0..1.
    pub(crate) fn after(&self, attempt: u32, random: f64) -> Option<Duration> {
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
        let pause = self.shortest.saturating_mul(doubled).min(self.longest).min(MAX_LIFETIME);
        (attempt < self.attempts).then(|| pause.mul_f64(0.5 + random / 2.0))
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
        assert!(RetryPolicy::new().attempts(u32::MAX).after(u32::MAX - 1, 0.0).is_some());
        assert_eq!(RetryPolicy::new().pauses(5 * second, second).after(1, 1.0), Some(second));
        let endless = RetryPolicy::new().pauses(Duration::MAX, Duration::MAX);
        assert_eq!(endless.after(1, 1.0), Some(MAX_LIFETIME));
        assert_eq!(RetryPolicy::new().pauses(Duration::ZERO, Duration::ZERO).after(1, 1.0), Some(Duration::ZERO));
    }
}
