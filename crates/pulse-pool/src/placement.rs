//! Which worker a key belongs to: weighted rendezvous hashing.
//!
//! Every worker draws a number for every key, from the hash of both; the greatest draw, scaled by weight, wins the key.
//! Everybody who knows the same workers names the same winner, without talking. Adding a worker moves only the keys
//! that it wins, which are its share by weight; removing any worker moves only its own.
//!
//! Nothing here rounds: logarithms are fixed-point integers, so that nodes on different machines cannot disagree.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use crate::WorkerId;

/// The workers that jobs may be placed on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ring {
    /// The workers by weight. Among workers of one weight the greatest draw wins, so that logarithms are needed only to
    /// compare the winners of different weights. A weight of zero takes no jobs.
    by_weight: BTreeMap<u32, Vec<WorkerId>>,
}

impl Ring {
    pub(crate) fn new(workers: impl IntoIterator<Item = (WorkerId, u32)>) -> Self {
        let mut by_weight = BTreeMap::<u32, Vec<WorkerId>>::new();
        for (worker, weight) in workers {
            if weight > 0 {
                by_weight.entry(weight).or_default().push(worker);
            }
        }
        by_weight.values_mut().for_each(|workers| workers.sort_unstable());
        Self { by_weight }
    }

    /// The worker that a key belongs to, `None` if there is no worker.
    pub(crate) fn owner(&self, key: &str) -> Option<WorkerId> {
        let key = xxh3_64(key.as_bytes());
        let best_of = |(&weight, workers): (&u32, &Vec<WorkerId>)| {
            let (draw, worker) = workers.iter().map(|&worker| (draw(key, worker), worker)).max()?;
            Some(Candidate { worker, weight, draw })
        };
        let candidates = self.by_weight.iter().filter_map(best_of);
        let winner = candidates.reduce(|best, next| if next.beats(&best) { next } else { best });
        winner.map(|candidate| candidate.worker)
    }
}

/// The number that a worker draws for a key.
fn draw(key: u64, worker: WorkerId) -> u64 {
    let mut both = [0; 16];
    both[..8].copy_from_slice(&key.to_le_bytes());
    both[8..].copy_from_slice(&worker.0.to_le_bytes());
    xxh3_64(&both)
}

/// The best worker of one weight.
struct Candidate {
    worker: WorkerId,
    weight: u32,
    draw: u64,
}

impl Candidate {
    /// Compares `weight / -log2(draw / 2^64)`; the weights of the two differ.
    fn beats(&self, other: &Self) -> bool {
        let (a, b) = (u128::from(rarity(self.draw)), u128::from(rarity(other.draw)));
        (u128::from(self.weight) * b, self.worker) > (u128::from(other.weight) * a, other.worker)
    }
}

/// `-log2((draw + 1) / 2^64)` as a fixed-point number with 48 binary places: how rare it is to draw more than that.
fn rarity(draw: u64) -> u64 {
    const PLACES: u32 = 48;
    let Some(number) = draw.checked_add(1) else { return 0 };
    let whole = 63 - number.leading_zeros();
    // Between 1 and 2, with 63 binary places. Each squaring brings out the next binary place of its logarithm.
    let mut mantissa = number << number.leading_zeros();
    let mut logarithm = u64::from(whole);
    for _ in 0..PLACES {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        let carry = square >> 64 != 0;
        mantissa = u64::try_from(if carry { square >> 1 } else { square }).unwrap_or(u64::MAX);
        logarithm = (logarithm << 1) | u64::from(carry);
    }
    (64 << PLACES) - logarithm
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEYS: usize = 4000;

    fn key(index: usize) -> String {
        format!("tenant-{}/job-{index}", index % 7)
    }

    /// How many keys each worker owns.
    fn shares(ring: &Ring) -> BTreeMap<WorkerId, usize> {
        let mut shares = BTreeMap::new();
        for index in 0..KEYS {
            *shares.entry(ring.owner(&key(index)).expect("there is a worker")).or_default() += 1;
        }
        shares
    }

    fn workers() -> impl Strategy<Value = BTreeMap<WorkerId, u32>> {
        prop::collection::btree_map(any::<u64>().prop_map(WorkerId), 1..=8_u32, 2..10)
    }

    /// Six standard deviations of a binomial distribution, and a bit for small ones.
    fn tolerance(share: f64) -> f64 {
        6.0 * (KEYS as f64 * share * (1.0 - share)).sqrt() + 1.0
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn an_added_worker_moves_only_what_it_wins_and_about_its_share(
            workers in workers(), id in any::<u64>(), weight in 1..=8_u32,
        ) {
            let added = WorkerId(id);
            prop_assume!(!workers.contains_key(&added));
            let before = Ring::new(workers.clone());
            let after = Ring::new(workers.clone().into_iter().chain([(added, weight)]));
            let mut won = 0;
            for index in 0..KEYS {
                let (old, new) = (before.owner(&key(index)), after.owner(&key(index)));
                if new == Some(added) {
                    won += 1;
                } else {
                    prop_assert_eq!(old, new);
                }
            }
            let share = f64::from(weight) / f64::from(weight + workers.values().sum::<u32>());
            prop_assert!((f64::from(won) - share * KEYS as f64).abs() < tolerance(share), "won {won}, share {share}");
        }

        #[test]
        fn a_removed_worker_moves_only_its_own(workers in workers(), which in any::<prop::sample::Index>()) {
            let removed = *which.get(&workers.keys().copied().collect::<Vec<_>>());
            let before = Ring::new(workers.clone());
            let after = Ring::new(workers.into_iter().filter(|(worker, _)| *worker != removed));
            for index in 0..KEYS {
                let (old, new) = (before.owner(&key(index)), after.owner(&key(index)));
                prop_assert_ne!(new, Some(removed));
                if old != Some(removed) {
                    prop_assert_eq!(old, new);
                }
            }
        }

        #[test]
        fn everybody_owns_about_the_share_of_the_weight(workers in workers()) {
            let total: u32 = workers.values().sum();
            let shares = shares(&Ring::new(workers.clone()));
            for (worker, weight) in workers {
                let share = f64::from(weight) / f64::from(total);
                let owned = shares.get(&worker).copied().unwrap_or_default();
                let off = (owned as f64 - share * KEYS as f64).abs();
                prop_assert!(off < tolerance(share), "{worker} owns {owned}, share {share}");
            }
        }

        #[test]
        fn the_order_of_the_workers_does_not_matter(workers in workers()) {
            prop_assert_eq!(Ring::new(workers.clone()), Ring::new(workers.into_iter().rev()));
        }

        #[test]
        fn the_rarity_of_a_draw_is_its_logarithm(draw: u64) {
            let exact = 64.0 - ((draw as f64) + 1.0).log2();
            let ours = rarity(draw) as f64 / (1_u64 << 48) as f64;
            prop_assert!((exact - ours).abs() < 1e-9, "{exact} {ours}");
        }

        #[test]
        fn a_greater_draw_is_never_less_rare(a: u64, b: u64) {
            prop_assert_eq!(a.max(b), if rarity(a) < rarity(b) { a } else { a.max(b) });
            prop_assert!(rarity(a.max(b)) <= rarity(a.min(b)));
        }
    }

    #[test]
    fn nobody_owns_a_key_where_there_is_no_worker_or_none_with_weight() {
        assert_eq!(Ring::default().owner("a"), None);
        assert_eq!(Ring::new([(WorkerId(1), 0)]).owner("a"), None);
    }

    #[test]
    fn placement_is_the_same_in_every_version() {
        // Nodes of different versions share a pool during a rolling deploy: these values must never change.
        let ring = Ring::new([(WorkerId(1), 1), (WorkerId(2), 1), (WorkerId(3), 4)]);
        let owners: Vec<u64> = (0..12).filter_map(|index| ring.owner(&key(index))).map(|worker| worker.0).collect();
        assert_eq!(owners, [3, 3, 2, 1, 3, 3, 3, 1, 1, 3, 1, 3]);
    }
}
