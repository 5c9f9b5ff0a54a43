//! Decides what happens to each call: from the script, else by the seeded dice. No clock, no I/O.

use std::{collections::BTreeMap, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::chances::{Chances, FeedChances, within};

/// A kind of call: one for each method of [`Backend`](crate::Backend) that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is named after its method")]
pub enum Operation {
    Commit,
    MapVersion,
    MapPage,
    MapGet,
    MapFeed,
    StreamRead,
    StreamInfo,
    StreamDetail,
    GroupCreate,
    GroupDestroy,
    GroupRead,
    GroupClaim,
    GroupSetIdle,
    GroupPending,
    GroupInfo,
    GroupMissed,
    GroupRemoveConsumer,
    Sweep,
    ServerTime,
    ServerRun,
}

impl Operation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::MapVersion => "map_version",
            Self::MapPage => "map_page",
            Self::MapGet => "map_get",
            Self::MapFeed => "map_feed",
            Self::StreamRead => "stream_read",
            Self::StreamInfo => "stream_info",
            Self::StreamDetail => "stream_detail",
            Self::GroupCreate => "group_create",
            Self::GroupDestroy => "group_destroy",
            Self::GroupRead => "group_read",
            Self::GroupClaim => "group_claim",
            Self::GroupSetIdle => "group_set_idle",
            Self::GroupPending => "group_pending",
            Self::GroupInfo => "group_info",
            Self::GroupMissed => "group_missed",
            Self::GroupRemoveConsumer => "group_remove_consumer",
            Self::Sweep => "sweep",
            Self::ServerTime => "server_time",
            Self::ServerRun => "server_run",
        }
    }

    /// Whether it can change anything in the store, so that a lost answer leaves its outcome unknown.
    pub(super) fn has_effect(self) -> bool {
        match self {
            Self::Commit
            | Self::GroupCreate
            | Self::GroupDestroy
            | Self::GroupRead
            | Self::GroupClaim
            | Self::GroupSetIdle
            | Self::GroupMissed
            | Self::GroupRemoveConsumer
            | Self::Sweep => true,
            Self::MapVersion
            | Self::MapPage
            | Self::MapGet
            | Self::MapFeed
            | Self::StreamRead
            | Self::StreamInfo
            | Self::StreamDetail
            | Self::GroupPending
            | Self::GroupInfo
            | Self::ServerTime
            | Self::ServerRun => false,
        }
    }
}

/// What the script can do to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It fails without an effect; the error says so.
    FailBefore,
    /// It takes effect, then fails; the error says that the outcome is unknown.
    FailAfter,
    /// It takes that long before it reaches the store.
    Delay(Duration),
    /// The client dies just before the call takes effect, as by [`Faulty::kill`](super::Faulty::kill).
    KillBefore,
    /// The client dies just after the call took effect.
    KillAfter,
}

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) there: Duration,
    pub(super) back: Duration,
    pub(super) fault: Option<Fault>,
}

/// The settings, the script and the dice of one client.
#[derive(Debug)]
pub(super) struct Plan {
    dice: StdRng,
    chances: Chances,
    chances_of: BTreeMap<Operation, Chances>,
    feed_chances: FeedChances,
    calls: BTreeMap<Operation, u64>,
    script: BTreeMap<(Operation, u64), Fault>,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            dice: StdRng::seed_from_u64(seed),
            chances: Chances::none(),
            chances_of: BTreeMap::new(),
            feed_chances: FeedChances::none(),
            calls: BTreeMap::new(),
            script: BTreeMap::new(),
        }
    }

    /// Forgets what was set for single operations.
    pub(super) fn set_chances(&mut self, chances: Chances) {
        self.chances = chances;
        self.chances_of.clear();
    }

    pub(super) fn set_chances_of(&mut self, operation: Operation, chances: Chances) {
        self.chances_of.insert(operation, chances);
    }

    pub(super) fn set_feed_chances(&mut self, chances: FeedChances) {
        self.feed_chances = chances;
    }

    /// Plans a fault for the n-th call from now.
    pub(super) fn script(&mut self, operation: Operation, nth: u64, fault: Fault) {
        self.script.insert((operation, self.calls(operation) + nth.max(1)), fault);
    }

    pub(super) fn calls(&self, operation: Operation) -> u64 {
        self.calls.get(&operation).copied().unwrap_or(0)
    }

    /// Counts a call and decides about it.
    ///
    /// The dice are thrown the same number of times for every call, whatever the settings, so that changing a chance or
    /// the script does not change what happens to unrelated calls.
    pub(super) fn decide(&mut self, operation: Operation) -> Decision {
        let call = self.calls.entry(operation).or_default();
        *call += 1;
        let scripted = self.script.remove(&(operation, *call));
        let [there, back, before, after]: [f64; 4] = std::array::from_fn(|_| self.dice.random());
        let chances = self.chances_of.get(&operation).unwrap_or(&self.chances);
        let by_chance = if before < chances.fail_before {
            Some(Fault::FailBefore)
        } else if after < chances.fail_after {
            Some(Fault::FailAfter)
        } else {
            None
        };
        let fault = scripted.or(by_chance);
        let there = match fault {
            Some(Fault::Delay(delay)) => delay,
            _ => within(&chances.delay, there),
        };
        Decision { there, back: within(&chances.delay, back), fault }
    }

    /// Dice for one feed.
    pub(super) fn dice_for_a_feed(&mut self) -> StdRng {
        StdRng::seed_from_u64(self.dice.random())
    }

    /// How long the next item of a feed is under way; `None`: it never arrives.
    pub(super) fn decide_item(&self, dice: &mut StdRng) -> Option<Duration> {
        let [delay, loss]: [f64; 2] = std::array::from_fn(|_| dice.random());
        (loss >= self.feed_chances.loss).then(|| within(&self.feed_chances.delay, delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decisions(plan: &mut Plan) -> Vec<Decision> {
        (0..100).map(|_| plan.decide(Operation::Commit)).collect()
    }

    fn bad_weather() -> Chances {
        let delay = Duration::from_millis(1)..=Duration::from_millis(9);
        Chances::none().with_delay(delay).with_failures_before(0.2).with_failures_after(0.2)
    }

    #[test]
    fn the_same_seed_decides_the_same() {
        let [first, same, other] = [7, 7, 8].map(|seed| {
            let mut plan = Plan::new(seed);
            plan.set_chances(bad_weather());
            decisions(&mut plan)
        });
        assert_eq!(first, same);
        assert_ne!(first, other);
    }

    #[test]
    fn chances_come_about_as_often_as_they_say() {
        let mut plan = Plan::new(1);
        plan.set_chances(bad_weather());
        let decisions: Vec<Decision> = (0..10).flat_map(|_| decisions(&mut plan)).collect();
        let count = |fault| decisions.iter().filter(|decision| decision.fault == Some(fault)).count();
        assert!((150..250).contains(&count(Fault::FailBefore)), "{}", count(Fault::FailBefore));
        assert!((110..210).contains(&count(Fault::FailAfter)), "{}", count(Fault::FailAfter));
        assert!(decisions.iter().all(|d| d.there >= Duration::from_millis(1) && d.back <= Duration::from_millis(9)));
    }

    #[test]
    fn a_script_hits_the_call_it_names_and_changes_no_other() {
        let mut plain = Plan::new(3);
        plain.set_chances(bad_weather());
        let mut expected = decisions(&mut plain);
        let mut plan = Plan::new(3);
        plan.set_chances(bad_weather());
        plan.script(Operation::Commit, 3, Fault::KillAfter);
        plan.script(Operation::MapGet, 1, Fault::FailBefore);
        expected[2].fault = Some(Fault::KillAfter);
        assert_eq!(decisions(&mut plan), expected);
        assert_eq!(plan.decide(Operation::MapGet).fault, Some(Fault::FailBefore));
        plan.script(Operation::Commit, 1, Fault::Delay(Duration::from_secs(1)));
        assert_eq!(plan.decide(Operation::Commit).there, Duration::from_secs(1));
        assert_eq!(plan.calls(Operation::Commit), 101);
    }

    #[test]
    fn one_operation_may_have_chances_of_its_own() {
        let mut plan = Plan::new(3);
        plan.set_chances_of(Operation::Sweep, Chances::none().with_failures_before(1.0));
        assert_eq!(plan.decide(Operation::Commit).fault, None);
        assert_eq!(plan.decide(Operation::Sweep).fault, Some(Fault::FailBefore));
        plan.set_chances(Chances::none());
        assert_eq!(plan.decide(Operation::Sweep).fault, None);
    }
}
