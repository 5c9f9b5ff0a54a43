//! How long to wait before the next attempt to resync.

use std::time::Duration;

use tokio::time::Instant;

/// The longest first wait. Even the first one is jittered, because a server that comes back meets all its clients.
const FIRST: Duration = Duration::from_millis(20);
/// The longest wait.
const MAX: Duration = Duration::from_secs(2);
/// After that long without an attempt, the waits are short again.
const CALM: Duration = Duration::from_secs(10);

/// Exponential with full jitter.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
    last: Option<Instant>,
}

impl Backoff {
    /// The wait before the attempt that is due now; `random` lies in 0..1.
    pub(super) fn delay(&mut self, now: Instant, random: f64) -> Duration {
        if self.last.is_none_or(|last| now.saturating_duration_since(last) > CALM) {
            self.attempts = 0;
        }
        let longest = FIRST.saturating_mul(2_u32.saturating_pow(self.attempts)).min(MAX);
        self.attempts = self.attempts.saturating_add(1);
        self.last = Some(now);
        longest.mul_f64(random)
    }

    /// Makes the waits short again, because something has changed for the better.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_grow_up_to_a_bound_and_are_short_again_after_calm() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        assert_eq!(backoff.delay(start, 1.0), FIRST);
        assert_eq!(backoff.delay(start, 0.5), FIRST);
        assert_eq!(backoff.delay(start, 1.0), FIRST * 4);
        for _ in 0..100 {
            backoff.delay(start, 1.0);
        }
        assert_eq!(backoff.delay(start, 1.0), MAX);
        assert_eq!(backoff.delay(start + CALM * 2, 1.0), FIRST);
    }
}
