//! The task that reads one stream for a sink instance, looks after what is pending, and leaves in good order.
//!
//! Between reads, at every tick, it keeps what waits in the buffer from being claimed, claims what was abandoned, and
//! now and then removes dead consumers. All of this may be cut off at any point: what the backend handed out and the
//! task did not put into the buffer stays pending, and comes back by a claim.

use std::{collections::HashSet, convert::Infallible, sync::Arc, time::Duration};

use pulse_core::{Acks, Delivery as CoreDelivery, Event as CoreEvent, EventId, PendingQuery};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    member::Member,
    plan,
    slot::{Buffered, Slot, Standing},
};
use crate::{
    Notice, backoff::Backoff, buffer::Producer, dead::letter::is_for, filter::Filter, reader::Missed, streams::Reading,
    trouble::Trouble,
};

/// How long leaving may take.
const LEAVING: Duration = Duration::from_secs(10);
/// How many pending events are looked at in one round trip when leaving.
const PAGE: usize = 1000;

/// Feeds the buffer of a sink instance from one stream.
pub(super) struct SinkTask {
    member: Arc<Member>,
    filter: Filter,
    /// Emptied by the subscriber.
    output: Producer<Slot>,
    /// The settler of the same member, and what stops it.
    settler: (JoinHandle<()>, CancellationToken),
    /// Ends when the sink is closed or the stream removed.
    reading_on: Reading,
    /// Cancelled when it is dropped.
    abandon: CancellationToken,
    /// Whether the group is there, as far as known.
    group: Presence,
    /// The last event known to have been handed to the group.
    known: EventId,
    next_tick: Instant,
    next_tidy: Instant,
    /// Whether a read is under way, or was cut off.
    reading: bool,
    /// Whether events may wait in the stream that nobody has read yet, so that a trim could drop them.
    behind: bool,
    /// What becomes of the next room, if there was too little of it for the last claim.
    turn: Option<Turn>,
    trouble: Trouble,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    There,
    Gone,
}

/// While there may be more to claim than there is room, new and abandoned events take turns, so that neither waits for
/// the end of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Read,
    Claim,
}

/// How the deliveries came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Read,
    Claim,
}

type Outcome<T> = Result<T, pulse_core::Error>;

impl SinkTask {
    pub(super) fn new(
        member: Arc<Member>,
        filter: Filter,
        known: EventId,
        output: Producer<Slot>,
        settler: (JoinHandle<()>, CancellationToken),
        reading_on: Reading,
        abandon: CancellationToken,
    ) -> Self {
        let now = Instant::now();
        let next_tidy = now + member.timing.tidy(rand::random());
        Self {
            member,
            filter,
            output,
            settler,
            reading_on,
            abandon,
            group: Presence::There,
            known,
            next_tick: now,
            next_tidy,
            reading: false,
            behind: false,
            turn: None,
            trouble: Trouble::new(Backoff::default()),
        }
    }

    pub(super) async fn run(mut self) {
        let (Reading { stop: closing, ended }, abandon) = (self.reading_on.clone(), self.abandon.clone());
        let _ended = ended.drop_guard();
        // However this ends, the settler ends with it.
        let _settler_stops = self.settler.1.clone().drop_guard();
        tokio::select! {
            biased;
            () = abandon.cancelled() => return,
            () = closing.cancelled() => {}
            closed = self.feed() => {
                let Err(error) = closed;
                tracing::debug!(stream = %self.member.stream, sink = %self.member.group, %error, "sink ends");
                return;
            }
        }
        let left = tokio::select! {
            biased;
            () = abandon.cancelled() => return,
            left = tokio::time::timeout(LEAVING, self.leave()) => left,
        };
        let Member { stream, group: sink, .. } = &*self.member;
        match left {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%stream, %sink, %error, "left without giving back what was not handed out");
            }
            Err(_) => {
                tracing::warn!(%stream, %sink, "the backend did not answer in time; left without a word");
                self.settler.0.abort();
            }
        }
    }

    /// Returns only when the client is closed.
    async fn feed(&mut self) -> Outcome<Infallible> {
        loop {
            let stepped = match self.group {
                Presence::There => self.step().await,
                Presence::Gone => self.await_return().await,
            };
            match stepped {
                Ok(()) => {}
                Err(error @ pulse_core::Error::Closed) => return Err(error),
                Err(error) => self.recover(error).await,
            }
        }
    }

    async fn step(&mut self) -> Outcome<()> {
        if Instant::now() >= self.next_tick {
            self.tend().await?;
        }
        let member = self.member.clone();
        if let Some(due) = member.next_claim() {
            self.next_tick = self.next_tick.min(due);
        }
        tokio::select! {
            read = self.read() => {
                let Some((deliveries, asked)) = read? else { return Ok(()) };
                self.trouble.over(&member.stream);
                self.known = deliveries.iter().map(|delivery| delivery.entry.id).fold(self.known, EventId::max);
                let (deliveries, since) = self.still_held(deliveries, asked).await?;
                self.hand_over(deliveries, Origin::Read, since);
            }
            () = member.claim_soon.notified() => {}
        }
        Ok(())
    }

    /// Reads until the next tick at the latest, and says when it asked. Waits for no event while something may be left to
    /// claim. `None` if it did not come to a read.
    async fn read(&mut self) -> Outcome<Option<(Vec<CoreDelivery>, Instant)>> {
        let Member { stream, group, consumer, timing, .. } = &*self.member;
        let Ok(room) = tokio::time::timeout_at(self.next_tick, self.output.room()).await else {
            return Ok(None);
        };
        let now = Instant::now();
        if self.turn == Some(Turn::Claim) {
            self.next_tick = now;
            return Ok(None);
        }
        // What somebody else trims shows best before the group reads on.
        if std::mem::take(&mut self.behind) {
            self.report_missed().await?;
        }
        let wait = if self.turn.is_some() {
            Duration::ZERO
        } else {
            self.next_tick.saturating_duration_since(now).min(timing.block)
        };
        self.reading = true;
        let asked = Instant::now();
        let deliveries = self.member.backend().group_read(stream, group, consumer, room, wait, self.member.acks).await;
        self.reading = false;
        self.behind = deliveries.as_ref().map_or(true, |read| read.len() >= room);
        self.turn = self.turn.map(|_| Turn::Claim);
        deliveries.map(|deliveries| Some((deliveries, asked)))
    }

    /// Of what a call brought that was asked for long ago, that which is still this instance's: the answer may have lain
    /// about while the process was paused, and others may have taken the events over, and acknowledged them. Returns it
    /// with the time from which on it certainly is.
    async fn still_held(
        &self,
        mut deliveries: Vec<CoreDelivery>,
        asked: Instant,
    ) -> Outcome<(Vec<CoreDelivery>, Instant)> {
        let now = Instant::now();
        let is_fresh = now.duration_since(asked) < self.member.timing.doubtful_after();
        if deliveries.is_empty() || is_fresh || self.member.acks == Acks::None {
            return Ok((deliveries, asked));
        }
        let ids: Vec<EventId> = deliveries.iter().map(|delivery| delivery.entry.id).collect();
        let held: HashSet<EventId> = self.member.touch(&ids).await?.into_iter().collect();
        deliveries.retain(|delivery| held.contains(&delivery.entry.id));
        Ok((deliveries, now))
    }

    /// Does what is to be done at every tick.
    async fn tend(&mut self) -> Outcome<()> {
        let now = Instant::now();
        self.keep_buffered(now).await?;
        self.member.keep_aside(now).await?;
        self.member.claims_now(now);
        self.next_tick = now + self.member.timing.tick(rand::random());
        if self.member.acks == Acks::Explicit {
            self.claim().await?;
        }
        self.report_missed().await?;
        if now >= self.next_tidy {
            self.next_tidy = now + self.member.timing.tidy(rand::random());
            self.tidy().await?;
        }
        Ok(())
    }

    /// Keeps what waits in the buffer from being claimed, unless the subscriber takes nothing.
    async fn keep_buffered(&self, now: Instant) -> Outcome<()> {
        let timing = self.member.timing;
        if !self.output.is_attended(timing.grace) {
            return Ok(());
        }
        let mut ids = HashSet::new();
        self.for_each_own(|buffered| {
            if buffered.idle_for(timing.touch_after(), now) {
                ids.insert(buffered.id());
            }
        });
        if ids.is_empty() {
            return Ok(());
        }
        let asked: Vec<EventId> = ids.iter().copied().collect();
        let held: HashSet<EventId> = self.member.touch(&asked).await?.into_iter().collect();
        self.for_each_own(|buffered| {
            let id = buffered.id();
            // An older delivery of the same event may wait there too. It has lapsed, and stays so.
            if ids.contains(&id) && buffered.idle_for(timing.touch_after(), now) {
                buffered.set_standing(if held.contains(&id) { Standing::Held(now) } else { Standing::Lapsed });
            }
        });
        Ok(())
    }

    /// Takes over what was abandoned, if there is room and somebody takes what is there.
    async fn claim(&mut self) -> Outcome<()> {
        let Member { stream, group, consumer, timing, .. } = &*self.member;
        let room = self.output.room_now();
        self.turn = None;
        if !self.output.is_attended(timing.grace) {
            return Ok(());
        }
        if room == 0 {
            self.turn = Some(Turn::Read);
            return Ok(());
        }
        self.member.ledger().claim_begins();
        let asked = Instant::now();
        let claimed = self.member.backend().group_claim(stream, group, consumer, timing.grace, room).await;
        if let Ok(claimed) = &claimed {
            self.member.meter.claimed(claimed.deliveries.len());
            if claimed.deliveries.len() + claimed.deleted.len() >= room {
                self.turn = Some(Turn::Read);
            }
        }
        let taken = match claimed {
            Ok(claimed) => {
                self.report_lost(claimed.deleted);
                self.still_held(claimed.deliveries, asked).await
            }
            Err(error) => Err(error),
        };
        let taken = taken.map(|(deliveries, since)| self.hand_over(deliveries, Origin::Claim, since));
        self.member.ledger().claim_ends();
        taken
    }

    fn report_lost(&self, ids: Vec<EventId>) {
        if ids.is_empty() {
            return;
        }
        let Member { stream, group, meter, .. } = &*self.member;
        meter.lost(ids.len());
        tracing::warn!(%stream, sink = %group, lost = ids.len(), "unacknowledged events were deleted from the stream");
        let notice = Notice::Lost { stream: stream.clone(), sink: group.as_str().to_owned(), ids };
        self.output.push([Slot::Notice(notice)]);
    }

    /// Says which events were dropped before any instance had them.
    async fn report_missed(&self) -> Outcome<()> {
        let Member { stream, group, meter, .. } = &*self.member;
        if let Some(missed) = self.member.backend().group_missed(stream, group).await? {
            let missed = Missed { after: missed.after, before: Some(missed.before), events: missed.events };
            self.output.push([Slot::Notice(missed.told(stream, Some(group.as_str()), meter))]);
        }
        Ok(())
    }

    /// Removes dead consumers, and learns how far the group is.
    async fn tidy(&mut self) -> Outcome<()> {
        let Member { stream, group, consumer, timing, .. } = &*self.member;
        let Some(info) = self.member.backend().group_info(stream, group).await? else { return Ok(()) };
        self.known = self.known.max(info.last_delivered);
        self.member.gauge(&info).await?;
        for dead in plan::dead_consumers(&info, consumer, timing.dead_after()) {
            if self.member.backend().group_remove_consumer(stream, group, &dead).await? {
                tracing::info!(%stream, sink = %group, consumer = %dead, "dead consumer removed");
            }
        }
        Ok(())
    }

    /// Puts deliveries into the buffer whose grace period began at `since` or later.
    fn hand_over(&self, deliveries: Vec<CoreDelivery>, origin: Origin, since: Instant) {
        if deliveries.is_empty() {
            return;
        }
        let mut ids = HashSet::new();
        let mut slots = Vec::with_capacity(deliveries.len());
        for CoreDelivery { entry, deliveries, .. } in deliveries {
            self.member.not_aside(entry.id);
            let event = match entry.event.map(|event| self.wanted(event)) {
                Ok(Err(rejected)) => {
                    self.member.ack_quietly(rejected);
                    continue;
                }
                Ok(Ok(event)) => Ok(event),
                Err(malformed) => Err(malformed),
            };
            match event {
                Ok(event) if self.member.max_deliveries.is_some_and(|most| deliveries > most) => {
                    ids.insert(event.id);
                    if !self.member.ledger().is_acked_during_claim(event.id) {
                        self.member.give_up(event, deliveries - 1);
                    }
                }
                Ok(event) if origin == Origin::Read => {
                    slots.push(Slot::Event(Buffered::read(&self.member, event, deliveries, since)));
                }
                Ok(event) => {
                    ids.insert(event.id);
                    if self.member.ledger().claimed(event.id) {
                        slots.push(Slot::Event(Buffered::claimed(&self.member, event, deliveries, since)));
                    }
                }
                Err(malformed) => {
                    let Member { stream, group, meter, .. } = &*self.member;
                    meter.malformed(1);
                    tracing::warn!(%stream, sink = %group, id = %entry.id, %malformed, "entry skipped");
                    self.member.ack_quietly(entry.id);
                }
            }
        }
        if !ids.is_empty() {
            // An older delivery of the same event that still waits would be one too many.
            self.for_each_own(|buffered| {
                if ids.contains(&buffered.id()) {
                    buffered.set_standing(Standing::Lapsed);
                }
            });
        }
        self.member.meter.delivered(slots.len());
        self.output.push(slots);
    }

    /// Gives the event back if it is wanted, its id if not.
    fn wanted(&self, event: CoreEvent) -> Result<CoreEvent, EventId> {
        if is_for(&event, Some(self.member.group.as_str())) {
            self.filter.pass(&self.member.stream, event)
        } else {
            Err(event.id)
        }
    }

    async fn recover(&mut self, error: pulse_core::Error) {
        if matches!(error, pulse_core::Error::NoGroup { .. }) && self.group == Presence::There {
            self.group = Presence::Gone;
            self.for_each_own(|buffered| buffered.set_standing(Standing::Orphaned));
        }
        let (pause, notice) = self.trouble.met(&self.member.stream, error);
        self.output.push(notice.map(Slot::Notice));
        tokio::time::sleep(pause).await;
    }

    /// Waits for the first event of a stream whose group is gone, and then makes the group anew. A stream that was
    /// destroyed is not brought back by its sinks.
    async fn await_return(&mut self) -> Outcome<()> {
        let Member { stream, group, timing, .. } = &*self.member;
        let backend = self.member.backend();
        if backend.stream_read(stream, EventId::ZERO, 1, timing.block).await?.entries.is_empty() {
            return Ok(());
        }
        let after = plan::restart_after(self.known, backend.stream_info(stream).await?.as_ref());
        backend.group_create(stream, group, plan::cursor_after(after)).await?;
        tracing::warn!(%stream, sink = %group, %after, "the group was gone and is made anew");
        let notice = Notice::CursorLost { stream: stream.clone(), sink: group.as_str().to_owned(), after };
        self.output.push([Slot::Notice(notice)]);
        self.known = after;
        self.group = Presence::There;
        Ok(())
    }

    /// Lets the settler finish, offers what the user does not hold to the other instances, and leaves the group unless
    /// the user still holds something.
    async fn leave(&mut self) -> Outcome<()> {
        let Member { stream, group, consumer, .. } = &*self.member;
        // Nothing of this stream is handed out any more, also if only it was removed.
        self.output
            .retain(|slot| !matches!(slot, Slot::Event(buffered) if Arc::ptr_eq(&buffered.member, &self.member)));
        self.settler.1.cancel();
        // It ends with an error only where the runtime shuts down.
        let _ = (&mut self.settler.0).await;
        let backend = self.member.backend();
        // What needs no acknowledgement is never pending, and what a read takes now would reach nobody.
        if self.reading && self.member.acks == Acks::Explicit {
            // The backend may still be handing out events for the read that was cut off. This read comes after it;
            // what either of them got shows among the pending events.
            backend
                .group_read(stream, group, consumer, 1, Duration::ZERO, Acks::Explicit)
                .await
                .or_else(unless_no_group)?;
        }
        let mut after = EventId::ZERO;
        loop {
            let query = PendingQuery::new(PAGE).of_consumer(consumer.clone()).after(after);
            let page = backend.group_pending(stream, group, query).await.or_else(unless_no_group)?;
            let ids: Vec<EventId> = page.iter().map(|pending| pending.id).collect();
            let abandoned: Vec<EventId> = {
                let ledger = self.member.ledger();
                let kept = |id: &EventId| ledger.is_in_hand(*id) || self.member.is_set_aside(*id);
                ids.iter().copied().filter(|id| !kept(id)).collect()
            };
            if !abandoned.is_empty() {
                self.member.release(&abandoned).await?;
            }
            match ids.last() {
                Some(last) if ids.len() == PAGE => after = *last,
                _ => break,
            }
        }
        backend.group_remove_consumer(stream, group, consumer).await.or_else(unless_no_group)?;
        Ok(())
    }

    /// Visits what this task put into the buffer.
    fn for_each_own(&self, mut visit: impl FnMut(&mut Buffered)) {
        self.output.for_each(|slot| match slot {
            Slot::Event(buffered) if Arc::ptr_eq(&buffered.member, &self.member) => visit(buffered),
            _ => {}
        });
    }
}

/// Takes a group that is gone for one with nothing in it.
fn unless_no_group<T: Default>(error: pulse_core::Error) -> Outcome<T> {
    match error {
        pulse_core::Error::NoGroup { .. } => Ok(T::default()),
        error => Err(error),
    }
}
