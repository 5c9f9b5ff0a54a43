//! Which instance a partition belongs to, and what an instance has to do about it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_64;

/// An instance of a partitioned sink, as long as its session lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct InstanceId(pub(super) u64);

/// The control map, as an instance saw it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) instances: BTreeSet<InstanceId>,
    /// Who holds each partition, `None` if that cannot be read.
    pub(super) owners: BTreeMap<u32, Option<InstanceId>>,
}

/// How far this instance is with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It reads it.
    Reading,
    /// It is about to give it up, and waits for what the user holds.
    Releasing,
    /// It is done with it.
    Drained,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Write this instance down among the instances.
    Announce,
    /// Become the owner of a partition that has none.
    Take(u32),
    /// Read a partition that it owns already.
    Read(u32),
    /// Begin to give it up.
    Release(u32),
    /// Say that it owns it no more.
    Disown(u32),
    /// Stop at once, because it does not own it.
    Abandon(u32),
}

/// The instance that a partition belongs to by rendezvous hashing: each draws a number from the hash of both, and the
/// greatest wins. An instance that comes takes only what it wins, and one that leaves moves only its own.
pub(super) fn winner(partition: u32, instances: &BTreeSet<InstanceId>) -> Option<InstanceId> {
    let draw = |instance: InstanceId| {
        let mut both = [0; 12];
        both[..4].copy_from_slice(&partition.to_le_bytes());
        both[4..].copy_from_slice(&instance.0.to_le_bytes());
        xxh3_64(&both)
    };
    instances.iter().copied().max_by_key(|instance| (draw(*instance), *instance))
}

/// What this instance has to do, given what it saw and what it holds. A leaving one takes nothing.
pub(super) fn steps(
    me: InstanceId,
    leaving: bool,
    view: &View,
    held: &BTreeMap<u32, Phase>,
    partitions: u32,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut instances = view.instances.clone();
    if leaving {
        instances.remove(&me);
    } else if instances.insert(me) {
        steps.push(Step::Announce);
    }
    for partition in 0..partitions {
        let is_free = !view.owners.contains_key(&partition);
        let is_mine = view.owners.get(&partition) == Some(&Some(me));
        let wanted = winner(partition, &instances) == Some(me);
        steps.extend(match held.get(&partition) {
            None if is_mine && wanted => Some(Step::Read(partition)),
            None if is_mine => Some(Step::Disown(partition)),
            None if is_free && wanted => Some(Step::Take(partition)),
            Some(Phase::Reading | Phase::Releasing) if !is_mine => Some(Step::Abandon(partition)),
            Some(Phase::Reading) if !wanted => Some(Step::Release(partition)),
            None | Some(Phase::Reading | Phase::Releasing) => None,
            Some(Phase::Drained) => Some(Step::Disown(partition)),
        });
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: InstanceId = InstanceId(1);
    const OTHER: InstanceId = InstanceId(2);

    fn instances(ids: impl IntoIterator<Item = u64>) -> BTreeSet<InstanceId> {
        ids.into_iter().map(InstanceId).collect()
    }

    /// A partition that the first instance wins against the second, and one that it loses.
    fn won_and_lost() -> (u32, u32) {
        let both = instances([1, 2]);
        let find = |who| (0..100).find(|p| winner(*p, &both) == Some(who)).expect("each wins some");
        (find(ME), find(OTHER))
    }

    fn steps_for(view: &View, partition: u32, phase: Option<Phase>) -> Vec<Step> {
        let held = phase.map(|phase| (partition, phase)).into_iter().collect();
        let concerns = |step: &Step| match step {
            Step::Announce => true,
            Step::Take(p) | Step::Read(p) | Step::Release(p) | Step::Disown(p) | Step::Abandon(p) => *p == partition,
        };
        steps(ME, false, view, &held, 100).into_iter().filter(concerns).collect()
    }

    #[test]
    fn an_instance_that_comes_takes_only_what_it_wins_and_one_that_leaves_moves_only_its_own() {
        let before = instances([10, 20, 30]);
        let after = instances([10, 20, 30, 40]);
        for partition in 0..1000 {
            let (old, new) = (winner(partition, &before), winner(partition, &after));
            assert!(new == old || new == Some(InstanceId(40)));
        }
        assert_eq!(winner(0, &BTreeSet::new()), None);
    }

    #[test]
    fn assignment_is_the_same_in_every_version() {
        // Instances of different versions share a sink during a rolling deploy: these values must never change.
        let three = instances([1, 2, 3]);
        let owners: Vec<u64> = (0..12).filter_map(|p| winner(p, &three)).map(|instance| instance.0).collect();
        assert_eq!(owners, [3, 2, 1, 3, 3, 2, 1, 2, 2, 1, 3, 1]);
    }

    #[test]
    fn a_partition_is_taken_only_while_nobody_owns_it() {
        let (won, lost) = won_and_lost();
        let mut view = View { instances: instances([1, 2]), owners: BTreeMap::new() };
        assert_eq!(steps_for(&view, won, None), [Step::Take(won)]);
        assert_eq!(steps_for(&view, lost, None), []);
        for somebody in [Some(OTHER), None] {
            view.owners.insert(won, somebody);
            assert_eq!(steps_for(&view, won, None), []);
        }
    }

    #[test]
    fn an_owner_gives_up_what_another_wins_and_says_so_only_when_it_is_done() {
        let (_, lost) = won_and_lost();
        let view = View { instances: instances([1, 2]), owners: [(lost, Some(ME))].into() };
        assert_eq!(steps_for(&view, lost, Some(Phase::Reading)), [Step::Release(lost)]);
        assert_eq!(steps_for(&view, lost, Some(Phase::Releasing)), []);
        assert_eq!(steps_for(&view, lost, Some(Phase::Drained)), [Step::Disown(lost)]);
        assert_eq!(steps_for(&view, lost, None), [Step::Disown(lost)], "it was taken, and then another one came");
    }

    #[test]
    fn who_finds_that_it_is_not_the_owner_stops_at_once_and_one_that_was_forgotten_announces_itself() {
        let (won, _) = won_and_lost();
        let view = View { instances: instances([2]), owners: BTreeMap::new() };
        assert_eq!(steps_for(&view, won, Some(Phase::Reading)), [Step::Announce, Step::Abandon(won)]);
        let view = View { instances: instances([1, 2]), owners: [(won, Some(ME))].into() };
        assert_eq!(steps_for(&view, won, None), [Step::Read(won)], "the answer to its taking was lost");
    }

    #[test]
    fn a_leaving_instance_gives_up_everything() {
        let (won, _) = won_and_lost();
        let view = View { instances: instances([1]), owners: [(won, Some(ME))].into() };
        let held = [(won, Phase::Reading)].into();
        assert_eq!(steps(ME, true, &view, &held, 100), [Step::Release(won)]);
    }
}
