//! What a connection was asked and what it answered, counted so that a silent connection is noticed.
//!
//! Sending a command costs a few uncontended atomic operations here and never a look at the clock: the task that
//! watches the connection ([`super::endpoint`]) samples the counters and keeps the time. A sampler that has nothing to
//! watch sleeps, and the first command after that wakes it.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Requests from this size on are given extra time, because the link has to carry them first.
const LARGE: usize = 64 << 10;

/// The slowest link on which a large request or answer does not look like silence, in bytes per second.
const SLOWEST: u64 = 1 << 20;

/// How long the slowest link takes for so many bytes.
pub(crate) fn time_to_carry(bytes: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / SLOWEST)
}

/// The counters of one connection.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Commands whose answers are awaited.
    awaited: AtomicUsize,
    /// Answers that arrived.
    answered: AtomicU64,
    /// Whether an answer is owed that no caller waits for any more.
    abandoned: AtomicBool,
    /// The bytes of the large requests among those that are awaited.
    large: AtomicU64,
    /// Whether the sampler is awake.
    sampled: AtomicBool,
    wake: Notify,
}

impl Traffic {
    /// Counts a command of that size that is about to be sent.
    pub(crate) fn sent(&self, size: usize) -> Owed<'_> {
        // In the same order as the sampler's own look, so that one of the two sees the other.
        self.awaited.fetch_add(1, Ordering::SeqCst);
        let large = if size >= LARGE { size as u64 } else { 0 };
        if large > 0 {
            self.large.fetch_add(large, Ordering::Relaxed);
        }
        if !self.sampled.load(Ordering::SeqCst) && !self.sampled.swap(true, Ordering::SeqCst) {
            self.wake.notify_one();
        }
        Owed { traffic: self, large, answered: false }
    }

    /// Counts a message that came without being asked for: a sign of life.
    pub(crate) fn heard(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether an answer is awaited.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed) > 0
    }

    /// Whether an answer is owed, awaited or not.
    fn is_owing(&self) -> bool {
        self.is_awaited() || self.abandoned.load(Ordering::Relaxed)
    }

    fn answers(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// How much longer than others the requests on their way may take for their size alone.
    pub(crate) fn allowance(&self) -> Duration {
        time_to_carry(self.large.load(Ordering::Relaxed))
    }

    /// Says that everything that was owed before has been answered.
    pub(crate) fn settle(&self) {
        self.abandoned.store(false, Ordering::Relaxed);
    }

    /// Waits for the next command, if none is on its way. For the one sampler.
    pub(crate) async fn next(&self) {
        self.sampled.store(false, Ordering::SeqCst);
        if self.awaited.load(Ordering::SeqCst) > 0 {
            self.sampled.store(true, Ordering::SeqCst);
            return;
        }
        self.wake.notified().await;
    }
}

/// A command whose answer is awaited. Dropped without an answer, it leaves a debt that only a later answer settles.
#[derive(Debug)]
pub(crate) struct Owed<'a> {
    traffic: &'a Traffic,
    large: u64,
    answered: bool,
}

impl Owed<'_> {
    /// The answer is there.
    pub(crate) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        if self.answered {
            self.traffic.answered.fetch_add(1, Ordering::Relaxed);
        } else {
            self.traffic.abandoned.store(true, Ordering::Relaxed);
        }
        self.traffic.awaited.fetch_sub(1, Ordering::Relaxed);
        if self.large > 0 {
            self.traffic.large.fetch_sub(self.large, Ordering::Relaxed);
        }
    }
}

/// Judges the samples: since when a connection that owes an answer has been silent.
#[derive(Debug)]
pub(crate) struct Silence {
    answers: u64,
    /// Whether the last sample found an answer owed.
    owing: bool,
    /// When an answer was last seen to have arrived, or the first one was seen to be owed.
    heard: Instant,
    /// When anything was last going on.
    active: Instant,
}

impl Silence {
    pub(crate) fn new(now: Instant) -> Self {
        Self { answers: 0, owing: false, heard: now, active: now }
    }

    /// Takes a sample: for how long an answer has been owed without any that arrived. `None` if none is owed.
    pub(crate) fn sample(&mut self, traffic: &Traffic, now: Instant) -> Option<Duration> {
        let (owing, answers) = (traffic.is_owing(), traffic.answers());
        let heard = answers != std::mem::replace(&mut self.answers, answers);
        if owing || heard {
            self.active = now;
        }
        // Between samples the sampler may have slept, so what is owed counts from the first sample that finds it.
        if heard || !std::mem::replace(&mut self.owing, owing) {
            self.heard = now;
        }
        owing.then(|| now.saturating_duration_since(self.heard))
    }

    /// For how long nothing has been going on at all.
    pub(crate) fn idle(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.active)
    }
}

/// How long a connection may be silent before it is doubted.
///
/// Grows when connections are replaced again and again, because then the link is slow rather than dead, and shrinks
/// when that stops.
#[derive(Debug)]
pub(crate) struct Patience {
    least: Duration,
    most: Duration,
    doublings: u32,
    replaced: Option<Instant>,
}

/// How long after a replacement the next one is taken for a sign of a slow link.
const CALM: Duration = Duration::from_secs(30);

/// No connection is doubted sooner, whatever was asked for.
const FLOOR: Duration = Duration::from_millis(20);

impl Patience {
    pub(crate) fn new(least: Duration, most: Duration) -> Self {
        let least = least.max(FLOOR);
        Self { least, most: most.max(least), doublings: 0, replaced: None }
    }

    /// The patience for a connection with that round trip, when the smallest lease in use wants no more than `bound`.
    pub(crate) fn for_link(&self, round_trip: Duration, bound: Duration) -> Duration {
        let patience = self.least.min(bound).max(FLOOR).saturating_mul(1 << self.doublings.min(8));
        patience.saturating_add(round_trip.saturating_mul(2)).min(self.most)
    }

    /// The longest that is ever waited.
    pub(crate) fn most(&self) -> Duration {
        self.most
    }

    /// Counts a replacement.
    pub(crate) fn replaced(&mut self, now: Instant) {
        let soon = self.replaced.is_some_and(|before| now.saturating_duration_since(before) < CALM);
        self.doublings = if soon { (self.doublings + 1).min(8) } else { 0 };
        self.replaced = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_while_an_answer_is_owed_and_from_the_last_one_that_came() {
        let (traffic, start) = (Traffic::default(), Instant::now());
        let mut silence = Silence::new(start);
        assert_eq!(silence.sample(&traffic, start + SECOND), None);
        let (first, second) = (traffic.sent(1), traffic.sent(1));
        assert_eq!(silence.sample(&traffic, start + 3 * SECOND), Some(Duration::ZERO));
        assert_eq!(silence.sample(&traffic, start + 4 * SECOND), Some(SECOND));
        first.answered();
        assert_eq!(silence.sample(&traffic, start + 5 * SECOND), Some(Duration::ZERO));
        assert_eq!(silence.sample(&traffic, start + 7 * SECOND), Some(2 * SECOND));
        second.answered();
        assert_eq!(silence.sample(&traffic, start + 8 * SECOND), None);
        assert_eq!(silence.idle(start + 9 * SECOND), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_no_caller_waits_for_is_owed_until_a_later_one_came() {
        let (traffic, start) = (Traffic::default(), Instant::now());
        let mut silence = Silence::new(start);
        drop(traffic.sent(1));
        assert_eq!(silence.sample(&traffic, start), Some(Duration::ZERO));
        assert_eq!(silence.sample(&traffic, start + SECOND), Some(SECOND));
        traffic.sent(1).answered();
        traffic.settle();
        assert_eq!(silence.sample(&traffic, start + 2 * SECOND), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_sampler_sleeps_until_a_command_is_sent() {
        let traffic = Traffic::default();
        let mut next = Box::pin(traffic.next());
        assert!(futures::poll!(&mut next).is_pending());
        let owed = traffic.sent(1);
        next.await;
        // As long as one is on its way, there is something to sample.
        traffic.next().await;
        owed.answered();
    }

    #[tokio::test(start_paused = true)]
    async fn large_requests_are_given_the_time_that_a_slow_link_takes_for_them() {
        let traffic = Traffic::default();
        let small = traffic.sent(LARGE - 1);
        assert_eq!(traffic.allowance(), Duration::ZERO);
        let large = traffic.sent(4 << 20);
        assert_eq!(traffic.allowance(), 4 * SECOND);
        drop((small, large));
        assert_eq!(traffic.allowance(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_grows_with_replacements_in_a_row_and_stays_within_its_bounds() {
        let start = Instant::now();
        let mut patience = Patience::new(SECOND / 2, 4 * SECOND);
        let on_fast_links = |patience: &Patience| patience.for_link(Duration::ZERO, SECOND);
        assert_eq!(on_fast_links(&patience), SECOND / 2);
        assert_eq!(patience.for_link(SECOND, SECOND / 4), SECOND * 9 / 4);
        patience.replaced(start);
        assert_eq!(on_fast_links(&patience), SECOND / 2);
        patience.replaced(start + SECOND);
        assert_eq!(on_fast_links(&patience), SECOND);
        for more in 2..20 {
            patience.replaced(start + more * SECOND);
        }
        assert_eq!(on_fast_links(&patience), 4 * SECOND);
        patience.replaced(start + 100 * SECOND);
        assert_eq!(on_fast_links(&patience), SECOND / 2);
    }
}
