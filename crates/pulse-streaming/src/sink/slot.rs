//! What waits in the buffer of a sink, and whether it may still be handed out.

use std::{sync::Arc, time::Duration};

use pulse_core::{Acks, Event as CoreEvent, EventId};
use tokio::time::Instant;

use super::{Delivery, member::Member};
use crate::{Event, Notice};

/// One place in the buffer.
#[derive(Debug)]
pub(super) enum Slot {
    Event(Buffered),
    Notice(Notice),
}

/// An event that waits to be handed out.
#[derive(Debug)]
pub(super) struct Buffered {
    pub(super) member: Arc<Member>,
    event: CoreEvent,
    deliveries: u64,
    /// Whether it came by a claim, so that the event was delivered before.
    claimed: bool,
    /// When it came into the buffer.
    arrived: Instant,
    standing: Standing,
}

/// What an event in the buffer is to the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is pending for this instance, and its grace period began at that time or later.
    Held(Instant),
    /// It is pending for nobody, because the group is gone or needs no acknowledgements; nobody else can get it.
    Orphaned,
    /// Another delivery of it was made, or may have been. It must not be handed out.
    Lapsed,
}

impl Buffered {
    /// An event that was read, by a call that began at `asked`.
    pub(super) fn read(member: &Arc<Member>, event: CoreEvent, deliveries: u64, asked: Instant) -> Self {
        let standing = match member.acks {
            // Nobody else can get it.
            Acks::None => Standing::Orphaned,
            _ => Standing::Held(asked),
        };
        Self { member: member.clone(), event, deliveries, claimed: false, arrived: Instant::now(), standing }
    }

    /// An event that was claimed, by a call that began at `asked`.
    pub(super) fn claimed(member: &Arc<Member>, event: CoreEvent, deliveries: u64, asked: Instant) -> Self {
        let (member, arrived, standing) = (member.clone(), Instant::now(), Standing::Held(asked));
        Self { member, event, deliveries, claimed: true, arrived, standing }
    }

    pub(super) fn id(&self) -> EventId {
        self.event.id
    }

    pub(super) fn set_standing(&mut self, standing: Standing) {
        self.standing = standing;
    }

    /// Whether it has been idle at the backend for at least this long.
    pub(super) fn idle_for(&self, idle: Duration, now: Instant) -> bool {
        matches!(self.standing, Standing::Held(since) if now.duration_since(since) >= idle)
    }

    /// Puts it into the user's hands, or drops it if it is not to be handed out any more.
    pub(super) fn hand_out(self) -> Option<Delivery> {
        let now = Instant::now();
        let timing = self.member.timing;
        let id = self.id();
        let mut ledger = self.member.ledger();
        if self.standing == Standing::Lapsed || self.idle_for(timing.grace, now) {
            if self.claimed {
                ledger.discard_copy(id);
            }
            return None;
        }
        if !self.claimed {
            ledger.hand_out(id, self.deliveries);
        } else if !ledger.hand_out_copy(id, self.deliveries) {
            return None;
        }
        drop(ledger);
        // One that arrived a moment ago has nearly all of its time left, even if the call that brought it waited for it.
        let waited = now.duration_since(self.arrived) >= timing.touch_at_hand_out_after();
        if self.idle_for(timing.touch_after(), now) || (waited && self.idle_for(timing.touch_at_hand_out_after(), now))
        {
            self.member.extend_quietly(id, self.deliveries);
        }
        let event = Event::new(self.member.stream.clone(), self.event);
        Some(Delivery::new(event, self.deliveries, self.member))
    }
}
