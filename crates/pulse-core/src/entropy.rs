//! Where everything random in the Pulse crates comes from: ids, jitter, the seeds of hash functions.
//!
//! With the feature `testing` a thread can be given a seed ([`testing::Seeded`](crate::testing::Seeded)), so that a
//! test on a current-thread runtime with a paused clock can run the same way again. Without it these are plain random
//! numbers.
//!
//! For the crates of this workspace only, hence hidden: whoever needs random numbers takes the crate `rand`.

/// A number that nobody can guess.
#[must_use]
pub fn number() -> u64 {
    #[cfg(any(test, feature = "testing"))]
    if let Some(number) = crate::testing::seeded_number() {
        return number;
    }
    rand::random()
}

/// A number in 0..1.
#[must_use]
pub fn fraction() -> f64 {
    // The upper 53 bits are as many as a fraction holds.
    (number() >> 11) as f64 / (1_u64 << 53) as f64
}

/// A number below that, or 0.
pub fn below(count: usize) -> usize {
    ((fraction() * count as f64) as usize).min(count.saturating_sub(1))
}

/// The seed of a hash function that strangers must not be able to guess; with the feature `testing` always the same.
#[must_use]
pub fn hash_seed() -> u64 {
    if cfg!(any(test, feature = "testing")) { 0x9e37_79b9_7f4a_7c15 } else { number() }
}
