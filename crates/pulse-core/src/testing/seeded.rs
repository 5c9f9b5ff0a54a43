//! Chance that follows from a seed.

use std::cell::RefCell;

use rand::{RngCore, SeedableRng, rngs::StdRng};

thread_local! {
    /// The dice of this thread, if it has any of its own.
    static DICE: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// While it lives, everything random that Pulse does on this thread follows from a seed: ids, jitter, back-off.
///
/// On a current-thread runtime with a paused clock, over one embedded backend, the same seed then gives the same run,
/// as long as the test itself leaves nothing to chance either (a `HashMap` that it iterates over, a `tokio::select!`
/// that is not `biased`).
///
/// ```
/// use pulse_core::{LeaseId, testing::Seeded};
///
/// let draw = || {
///     let _seeded = Seeded::new(7);
///     (LeaseId::random(), LeaseId::random())
/// };
/// assert_eq!(draw(), draw());
/// ```
#[derive(Debug)]
#[must_use = "chance is free again as soon as this is dropped"]
pub struct Seeded {
    before: Option<StdRng>,
    // What it does concerns one thread, so it must be dropped on that one.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Seeded {
    /// Seeds this thread.
    pub fn new(seed: u64) -> Self {
        let before = DICE.with(|dice| dice.borrow_mut().replace(StdRng::seed_from_u64(seed)));
        Self { before, _not_send: std::marker::PhantomData }
    }
}

impl Drop for Seeded {
    fn drop(&mut self) {
        let before = self.before.take();
        // A thread that ends has no dice any more.
        let _ = DICE.try_with(|dice| *dice.borrow_mut() = before);
    }
}

/// The next number of this thread's dice, if it has any.
pub(crate) fn seeded_number() -> Option<u64> {
    DICE.try_with(|dice| dice.borrow_mut().as_mut().map(RngCore::next_u64)).ok().flatten()
}
