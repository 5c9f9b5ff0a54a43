//! How long to wait before trying again: exponential, capped, and jittered, so that a fleet that lost its server at
//! one moment does not come back at one moment.

use std::time::Duration;

/// Counts failures in a row and says how long to wait after each. Has no clock and draws no random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0 }
    }

    /// The pause after one more failure: between half of the exponential step and all of it, as `random`, from 0 to 1,
    /// says.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let pause = Self::pause(self.min, self.max, self.failures, random);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// The pause after one more failure than these.
    pub(crate) fn pause(min: Duration, max: Duration, failures: u32, random: f64) -> Duration {
        let step = min.saturating_mul(2_u32.saturating_pow(failures)).min(max);
        step.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// Begins again after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

impl Default for Backoff {
    /// From 50 ms to 5 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_begin_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let pauses: Vec<u128> = (0..7).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.next(1.0).as_millis(), 50);
    }

    #[test]
    fn jitter_spreads_over_half_of_the_step_and_never_reaches_zero() {
        let first = |random| Backoff::default().next(random).as_millis();
        assert_eq!((first(0.0), first(0.5), first(1.0)), (25, 37, 50));
    }

    #[test]
    fn failures_without_end_do_not_overflow() {
        let mut backoff = Backoff::default();
        for _ in 0..10_000 {
            assert!(backoff.next(1.0) <= Duration::from_secs(5));
        }
    }
}
