//! What an instance knows about the deliveries it made: which the user holds, and which copies in the buffer must not
//! be handed out because the event was acknowledged meanwhile.
//!
//! An event that the user holds for longer than the grace period is delivered again, maybe to the same instance. If the
//! user then acknowledges the first delivery while the second still waits in the buffer, or is still on its way from
//! the backend, the second is void: an event is never handed out here after it was acknowledged here.

use std::collections::{HashMap, HashSet};

use pulse_core::EventId;

/// The books of one instance on one stream.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The events of which the user holds deliveries.
    in_hand: HashMap<EventId, InHand>,
    /// How many copies of an event are in the buffer: deliveries after its first, by a claim.
    copies: HashMap<EventId, u32>,
    /// How many of the oldest copies must not be handed out.
    void: HashMap<EventId, u32>,
    /// How many acknowledgements of an event are on their way to the backend.
    unsettled: HashMap<EventId, u32>,
    /// Events that a claim which is under way may bring although they were acknowledged: those whose acknowledgement
    /// was on its way when the claim began, or was asked for since.
    acked_during_claim: Option<HashSet<EventId>>,
}

#[derive(Debug, Default)]
struct InHand {
    /// How many deliveries the user holds.
    held: u32,
    /// The delivery count of the last one.
    latest: u64,
}

impl Ledger {
    /// A first delivery leaves the buffer for the user's hands.
    pub(super) fn hand_out(&mut self, id: EventId, deliveries: u64) {
        let in_hand = self.in_hand.entry(id).or_default();
        in_hand.held += 1;
        in_hand.latest = in_hand.latest.max(deliveries);
    }

    /// A copy leaves the buffer. Returns whether it may be handed out; then the user holds it.
    pub(super) fn hand_out_copy(&mut self, id: EventId, deliveries: u64) -> bool {
        let wanted = self.discard_copy(id);
        if wanted {
            self.hand_out(id, deliveries);
        }
        wanted
    }

    /// A copy leaves the buffer. Returns whether it was not void.
    pub(super) fn discard_copy(&mut self, id: EventId) -> bool {
        if take_one(&mut self.void, id) {
            return false;
        }
        take_one(&mut self.copies, id);
        true
    }

    /// The user acknowledges an event.
    pub(super) fn acked(&mut self, id: EventId) {
        *self.unsettled.entry(id).or_default() += 1;
        if let Some(acked) = &mut self.acked_during_claim {
            acked.insert(id);
        }
        if let Some(copies) = self.copies.remove(&id) {
            *self.void.entry(id).or_default() += copies;
        }
    }

    /// The backend has carried out acknowledgements, or will not.
    pub(super) fn settled(&mut self, ids: impl IntoIterator<Item = EventId>) {
        for id in ids {
            // The sink also acknowledges what it never handed out.
            take_one(&mut self.unsettled, id);
        }
    }

    /// The user holds a delivery no more.
    pub(super) fn put_down(&mut self, id: EventId) {
        if let Some(in_hand) = self.in_hand.get_mut(&id) {
            in_hand.held -= 1;
            if in_hand.held == 0 {
                self.in_hand.remove(&id);
            }
        }
    }

    /// Whether a delivery that the user holds has been followed by another one to this instance. What the user says of
    /// the older one must then not touch the newer one, which the backend cannot tell apart.
    pub(super) fn is_superseded(&self, id: EventId, deliveries: u64) -> bool {
        self.copies.contains_key(&id) || self.in_hand.get(&id).is_some_and(|in_hand| in_hand.latest > deliveries)
    }

    /// Whether the user holds a delivery of this event.
    pub(super) fn is_in_hand(&self, id: EventId) -> bool {
        self.in_hand.contains_key(&id)
    }

    /// Whether the user holds no delivery at all.
    pub(super) fn is_nothing_in_hand(&self) -> bool {
        self.in_hand.is_empty()
    }

    /// A claim is about to be made.
    pub(super) fn claim_begins(&mut self) {
        self.acked_during_claim = Some(self.unsettled.keys().copied().collect());
    }

    /// A claimed event arrives. Returns whether it goes to the buffer.
    pub(super) fn claimed(&mut self, id: EventId) -> bool {
        if self.is_acked_during_claim(id) {
            return false;
        }
        *self.copies.entry(id).or_default() += 1;
        true
    }

    /// Whether the claim that is under way brings an event that was acknowledged, or is being.
    pub(super) fn is_acked_during_claim(&self, id: EventId) -> bool {
        self.acked_during_claim.as_ref().is_some_and(|acked| acked.contains(&id))
    }

    /// All that was claimed has arrived.
    pub(super) fn claim_ends(&mut self) {
        self.acked_during_claim = None;
    }
}

/// Takes one off the count of an event; whether there was one.
fn take_one(counts: &mut HashMap<EventId, u32>, id: EventId) -> bool {
    let Some(count) = counts.get_mut(&id) else { return false };
    *count -= 1;
    if *count == 0 {
        counts.remove(&id);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: EventId = EventId::new(1, 0);

    #[test]
    fn a_copy_in_the_buffer_is_void_once_the_event_is_acknowledged() {
        let mut ledger = Ledger::default();
        ledger.hand_out(ID, 1);
        assert!(ledger.claimed(ID));
        ledger.acked(ID);
        ledger.put_down(ID);
        assert!(ledger.claimed(ID), "the acknowledgement failed, and the event was claimed once more");
        assert!(!ledger.hand_out_copy(ID, 2), "the copy that was there when it was acknowledged");
        assert!(ledger.hand_out_copy(ID, 2), "the copy that came later");
    }

    #[test]
    fn a_copy_on_its_way_is_void_once_the_event_is_acknowledged() {
        let mut ledger = Ledger::default();
        ledger.hand_out(ID, 1);
        ledger.claim_begins();
        ledger.acked(ID);
        ledger.settled([ID]);
        assert!(!ledger.claimed(ID));
        ledger.claim_ends();
        assert!(ledger.claimed(ID));
    }

    #[test]
    fn a_claim_brings_nothing_whose_acknowledgement_was_on_its_way_when_it_began() {
        let mut ledger = Ledger::default();
        ledger.hand_out(ID, 1);
        ledger.acked(ID);
        ledger.claim_begins();
        ledger.settled([ID]);
        assert!(!ledger.claimed(ID));
        ledger.claim_ends();
        ledger.claim_begins();
        assert!(ledger.claimed(ID), "the acknowledgement failed, and the event was claimed afterwards");
    }

    #[test]
    fn a_copy_is_handed_out_if_the_first_delivery_was_dropped_without_a_word() {
        let mut ledger = Ledger::default();
        ledger.hand_out(ID, 1);
        ledger.put_down(ID);
        assert!(ledger.claimed(ID));
        assert!(ledger.hand_out_copy(ID, 2));
    }

    #[test]
    fn an_event_is_in_hand_until_its_last_delivery_is_put_down() {
        let mut ledger = Ledger::default();
        ledger.hand_out(ID, 1);
        ledger.claimed(ID);
        ledger.hand_out_copy(ID, 2);
        ledger.put_down(ID);
        assert!(ledger.is_in_hand(ID));
        ledger.put_down(ID);
        assert!(!ledger.is_in_hand(ID));
    }

    #[test]
    fn a_delivery_is_superseded_by_a_copy_that_waits_and_by_one_that_was_handed_out() {
        let mut ledger = Ledger::default();
        ledger.hand_out(ID, 1);
        assert!(!ledger.is_superseded(ID, 1));
        ledger.claimed(ID);
        assert!(ledger.is_superseded(ID, 1));
        ledger.hand_out_copy(ID, 2);
        assert!(ledger.is_superseded(ID, 1));
        assert!(!ledger.is_superseded(ID, 2));
    }
}
