//! How bad it is in one run: how many nodes there are, how slow and how unreliable their links, how long leases last.

use std::time::Duration;

use pulse_core::testing::{Chances, Faulty, FeedChances};
use rand::{Rng, rngs::StdRng};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// How many nodes there may be at once.
    pub(crate) nodes: usize,
    /// How many things happen.
    pub(crate) steps: usize,
    /// The longest time between two of them.
    pub(crate) pause: Duration,
    /// The lifetime of the nodes' leases.
    pub(crate) ttl: Duration,
    /// How many jobs may wait for their first start.
    pub(crate) max_queued: u64,
    /// Whether the server fails over and loses its last writes.
    pub(crate) fails_over: bool,
    /// The longest way from a node to the store, or back.
    delay: Duration,
    /// How often a call fails before it took effect, and how often after.
    failures: f64,
    /// How often a change never reaches a replica, without a sign.
    loss: f64,
}

impl Weather {
    pub(crate) fn draw(dice: &mut StdRng) -> Self {
        let millis = Duration::from_millis;
        Self {
            nodes: dice.random_range(2..=5),
            steps: dice.random_range(20..=45),
            pause: millis(dice.random_range(50..=900)),
            ttl: millis(dice.random_range(1_000..=3_000)),
            max_queued: dice.random_range(4..=12),
            fails_over: dice.random_bool(0.3),
            delay: millis(dice.random_range(0..=40)),
            failures: if dice.random_bool(0.7) { dice.random_range(0.0..0.05) } else { 0.0 },
            loss: if dice.random_bool(0.2) { 0.02 } else { 0.0 },
        }
    }

    /// The same with a server that fails over.
    pub(crate) fn with_failovers(self) -> Self {
        Self { fails_over: true, ..self }
    }

    /// Lets it come over a link.
    pub(crate) fn set_in(&self, link: &Faulty) {
        let delay = Duration::ZERO..=self.delay;
        let chances = Chances::none().with_delay(delay.clone());
        link.set_chances(chances.with_failures_before(self.failures).with_failures_after(self.failures));
        link.set_feed_chances(FeedChances::none().with_delay(delay).with_loss(self.loss));
    }

    /// Ends it for a link, whatever it is in.
    pub(crate) fn clear(link: &Faulty) {
        link.heal();
        link.resume();
        link.unmute();
        link.set_chances(Chances::none());
        link.set_feed_chances(FeedChances::none());
    }
}
