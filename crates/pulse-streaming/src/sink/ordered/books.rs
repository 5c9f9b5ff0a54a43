//! What may be handed out of a partition next, given what was handed out before. Pure.

use std::collections::{BTreeSet, HashSet};

use pulse_core::EventId;

/// The books of one owner on one partition.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// How many events may be unacknowledged at once; `None`: any number.
    in_flight: Option<usize>,
    /// Handed out and not acknowledged. Kept only where their number is bounded.
    unacked: BTreeSet<EventId>,
    /// Given back by the user, and not yet here again.
    returning: BTreeSet<EventId>,
    /// Handed out since the claim under way began, which may therefore bring them although they are in the user's
    /// hands.
    handed_during_claim: Option<HashSet<EventId>>,
}

impl Books {
    pub(super) fn new(in_flight: Option<usize>) -> Self {
        Self { in_flight, ..Self::default() }
    }

    /// Whether this event, the oldest that waits, may be handed out now.
    pub(super) fn may_hand_out(&self, id: EventId) -> bool {
        if self.returning.first().is_some_and(|returning| *returning < id) {
            return false;
        }
        self.in_flight.is_none_or(|most| self.unacked.len() < most || self.unacked.contains(&id))
    }

    pub(super) fn handed_out(&mut self, id: EventId) {
        if self.in_flight.is_some() {
            self.unacked.insert(id);
        }
        if let Some(handed) = &mut self.handed_during_claim {
            handed.insert(id);
        }
    }

    /// The event is done, or is gone from the stream.
    pub(super) fn done(&mut self, id: EventId) {
        self.unacked.remove(&id);
        self.returning.remove(&id);
    }

    /// The user gives the event back.
    pub(super) fn given_back(&mut self, id: EventId) {
        self.returning.insert(id);
    }

    pub(super) fn claim_begins(&mut self) {
        self.handed_during_claim = Some(HashSet::new());
    }

    /// A claim brings the event. Returns whether it is to wait for being handed out.
    pub(super) fn came_back(&mut self, id: EventId) -> bool {
        let returned = self.returning.remove(&id);
        returned || !self.handed_during_claim.as_ref().is_some_and(|handed| handed.contains(&id))
    }

    pub(super) fn claim_ends(&mut self) {
        self.handed_during_claim = None;
    }

    /// The events that were given back and are not here again.
    pub(super) fn returning(&self) -> &BTreeSet<EventId> {
        &self.returning
    }

    /// Forgets everything, because the group is gone.
    pub(super) fn clear(&mut self) {
        self.unacked.clear();
        self.returning.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(millis: u64) -> EventId {
        EventId::new(millis, 0)
    }

    #[test]
    fn nothing_newer_is_handed_out_while_an_event_that_was_given_back_has_not_returned() {
        let mut books = Books::new(None);
        books.handed_out(id(2));
        books.given_back(id(2));
        assert!(books.may_hand_out(id(1)));
        assert!(!books.may_hand_out(id(3)));
        assert!(books.came_back(id(2)));
        assert!(books.may_hand_out(id(2)) && books.may_hand_out(id(3)));
    }

    #[test]
    fn no_more_than_the_bound_is_unacknowledged_at_once_and_what_comes_again_does_not_count_twice() {
        let mut books = Books::new(Some(1));
        books.handed_out(id(1));
        assert!(!books.may_hand_out(id(2)));
        assert!(books.may_hand_out(id(1)));
        books.done(id(1));
        assert!(books.may_hand_out(id(2)));
    }

    #[test]
    fn a_claim_does_not_bring_again_what_was_handed_out_while_it_was_under_way() {
        let mut books = Books::new(None);
        books.claim_begins();
        books.handed_out(id(1));
        assert!(!books.came_back(id(1)));
        books.given_back(id(1));
        assert!(books.came_back(id(1)), "but what was given back since then it does");
        books.claim_ends();
        assert!(books.came_back(id(1)));
    }
}
