//! In which order jobs start where there is not enough room for all: the greater priority first, and among equals those
//! that were dispatched first, also within one millisecond.
//!
//! A record says in which millisecond its job was dispatched. Which of several of a node came first stands in the upper
//! bits of their [`DispatchId`]s.

use std::{
    cmp::Reverse,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::id::DispatchId;

/// How many bits of a [`DispatchId`] count the dispatches of one millisecond.
const COUNTING: u32 = 20;

/// How far a node's dispatches may be ahead of its clock, in milliseconds: when the clock was set back a little, or where
/// there were more of them than can be counted. If it was set back further, they follow it.
const AHEAD: u64 = 1000;

/// The place of a job in that order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) priority: Reverse<i32>,
    /// Since when it may run, and when it was dispatched, by the server's clock, in milliseconds.
    pub(crate) due: u64,
    pub(crate) at: u64,
    /// Which it was in that millisecond.
    pub(crate) nth: u64,
}

/// When a job was dispatched, by the server's clock, in milliseconds, and what its dispatch is recognised by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) at: u64,
    pub(crate) dispatch: DispatchId,
}

/// Stamps the dispatches of a node, each later than the one before.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    /// The millisecond of the latest, and which it was there.
    latest: AtomicU64,
}

impl Stamps {
    pub(crate) fn next(&self, now: u64) -> Stamp {
        let first = now << COUNTING;
        let after = |latest: u64| {
            let next = latest + 1;
            if next >> COUNTING > now + AHEAD { first } else { next.max(first) }
        };
        let latest = self.latest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |latest| Some(after(latest)));
        let stamp = after(latest.unwrap_or_else(|latest| latest));
        let random = pulse_core::entropy::number() >> COUNTING;
        let nth = stamp << (u64::BITS - COUNTING);
        // Never 0, which is no id.
        Stamp { at: stamp >> COUNTING, dispatch: DispatchId((nth | random).max(1)) }
    }
}

/// Which of the dispatches of a millisecond it was, as far as they are of one node.
pub(crate) fn nth(dispatch: DispatchId) -> u64 {
    dispatch.0 >> (u64::BITS - COUNTING)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(Stamp { at, dispatch }: Stamp) -> (u64, u64) {
        (at, nth(dispatch))
    }

    #[test]
    fn each_dispatch_is_later_than_the_one_before_also_when_the_clock_is_set_back() {
        let stamps = Stamps::default();
        let times = [7, 7, 7, 8, 8, 6, 6, 9, 9, 5_000_000, 4_999_999, 5_000_000];
        let places: Vec<_> = times.into_iter().map(|now| place(stamps.next(now))).collect();
        assert!(places.is_sorted_by(|one, next| one < next), "{places:?}");
        assert_eq!((places[0], places[1], places[11].0), ((7, 0), (7, 1), 5_000_000));
        assert_eq!(stamps.next(1_000_000).at, 1_000_000, "it follows a clock that was set back far");
    }

    #[test]
    fn more_than_can_be_counted_in_a_millisecond_go_into_the_next() {
        let stamps = Stamps::default();
        let count = 1 << COUNTING;
        let last = (0..=count).map(|_| place(stamps.next(7))).last();
        assert_eq!(last, Some((8, 0)));
    }
}
