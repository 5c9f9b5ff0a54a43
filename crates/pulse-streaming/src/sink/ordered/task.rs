//! The task that reads one partition for its owner.
//!
//! Before it reads anything new it takes over, oldest first, everything that is pending of the partition. It looks
//! again wherever something may be pending that it does not know of: after a call whose outcome is unknown, and when
//! what a read brought does not follow what the one before it brought, because an earlier owner's read came between
//! them.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use pulse_core::{Acks, Consumer, Delivery as CoreDelivery, EventId, Group, PendingQuery, Session};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Lane, Lanes, lane::Waiting};
use crate::{
    Delivery, Error, EventStream, Notice,
    backoff::Backoff,
    dead::letter::is_for,
    filter::Filter,
    reader::Missed,
    sink::{
        member::{Instance, Member},
        plan::{self, Timing},
        settler::Settler,
    },
    trouble::Trouble,
};

/// How many pending events are looked at in one round trip.
const PAGE: usize = 1000;
/// The most that one claim takes over.
const CLAIM: usize = 500;
/// How long leaving may take, after the user has put everything down.
const LEAVING: Duration = Duration::from_secs(10);

/// How an instance reads the partitions that it owns.
#[derive(Debug, Clone)]
pub(crate) struct Ordered {
    pub(crate) group: Group,
    pub(crate) ack_grace: Duration,
    /// How long one read waits at the backend.
    pub(crate) block: Duration,
    /// How many events of one partition may wait.
    pub(crate) buffer: usize,
    /// How many events of one partition may be unacknowledged at once.
    pub(crate) in_flight: Option<usize>,
    /// How often an event is delivered at most.
    pub(crate) max_deliveries: Option<u64>,
    pub(crate) filter: Filter,
    /// Where the tasks run that carry acknowledgements.
    pub(crate) tasks: TaskTracker,
}

/// A partition from the moment that this instance became its owner.
#[derive(Debug)]
pub(crate) struct Tenure {
    pub(super) member: Arc<Member>,
    /// Nothing is handed out once it is lost.
    pub(super) session: Arc<Session>,
    lane: Arc<Lane>,
}

impl Tenure {
    pub(super) fn take(&self) -> Option<Delivery> {
        self.lane.take(self)
    }
}

/// Feeds the lane of one partition.
struct OrderedTask {
    tenure: Arc<Tenure>,
    lanes: Arc<Lanes>,
    filter: Filter,
    settler: JoinHandle<()>,
    settler_stop: CancellationToken,
    /// Cancelled when the partition is to go to another owner.
    release: CancellationToken,
    /// The last event that was read, so that the next read should bring the one after it.
    known: EventId,
    /// What was read and must not be handed out before it is certain that nothing older is missing.
    unverified: Vec<CoreDelivery>,
    /// What was claimed although it comes after all that was read.
    claimed_unread: HashSet<EventId>,
    /// Whether events may be pending that this task does not know of.
    in_doubt: bool,
    /// Whether there is more to claim before anything may be read.
    catching_up: bool,
    group_is_gone: bool,
    /// Whether events may wait in the stream that nobody has read yet, so that a trim could drop them.
    behind: bool,
    next_tick: Instant,
    next_tidy: Instant,
    trouble: Trouble,
}

type Outcome<T> = Result<T, pulse_core::Error>;

impl Ordered {
    /// Reads a partition until the session is lost or `release` is cancelled. In the second case it returns once
    /// nothing of the partition is in the user's hands, or the grace period has passed.
    pub(crate) async fn own(
        self,
        stream: EventStream,
        lanes: Arc<Lanes>,
        session: Arc<Session>,
        release: CancellationToken,
    ) -> Result<(), Error> {
        let (requests, received) = mpsc::unbounded_channel();
        let timing = Timing { grace: self.ack_grace, block: self.block };
        let lane = Arc::new(Lane::new(self.buffer, self.in_flight, lanes.bell.clone()));
        let instance = Instance {
            group: self.group.clone(),
            timing,
            max_deliveries: self.max_deliveries,
            acks: Acks::Explicit,
            closing: release.clone(),
            tasks: self.tasks.clone(),
        };
        let mut member = Member::new(instance, stream.client(), stream.id(), requests)?;
        member.lane = Some(lane.clone());
        let member = Arc::new(member);
        let settler_stop = CancellationToken::new();
        let settler = Settler { member: member.clone(), requests: received, stop: settler_stop.clone() };
        let now = Instant::now();
        let task = OrderedTask {
            lanes: lanes.clone(),
            filter: self.filter,
            settler: self.tasks.spawn(settler.run()),
            settler_stop,
            release,
            known: EventId::ZERO,
            unverified: Vec::new(),
            claimed_unread: HashSet::new(),
            in_doubt: true,
            catching_up: true,
            group_is_gone: false,
            behind: true,
            next_tick: now + timing.tick(rand::random()),
            next_tidy: now,
            trouble: Trouble::new(Backoff::default()),
            tenure: Arc::new(Tenure { member, session, lane }),
        };
        let leaves = Leaves { lanes: lanes.clone(), tenure: task.tenure.clone() };
        lanes.add(&task.tenure);
        task.run().await;
        drop(leaves);
        Ok(())
    }
}

/// Shuts a lane, however its task ends.
struct Leaves {
    lanes: Arc<Lanes>,
    tenure: Arc<Tenure>,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        self.tenure.lane.shut();
        self.lanes.remove(&self.tenure);
    }
}

impl OrderedTask {
    async fn run(mut self) {
        // However this ends, the settler ends with it.
        let _settler_stops = self.settler_stop.clone().drop_guard();
        let (release, session) = (self.release.clone(), self.tenure.session.clone());
        tokio::select! {
            biased;
            _ = session.ended() => return,
            () = release.cancelled() => {}
            closed = self.feed() => {
                let Err(error) = closed;
                tracing::debug!(stream = %self.member().stream, %error, "partition is read no more");
                return;
            }
        }
        tokio::select! {
            biased;
            _ = session.ended() => {}
            () = self.leave() => {}
        }
    }

    fn member(&self) -> &Member {
        &self.tenure.member
    }

    fn lane(&self) -> &Lane {
        &self.tenure.lane
    }

    /// Returns only when the client is closed.
    async fn feed(&mut self) -> Outcome<Infallible> {
        loop {
            match self.step().await {
                Ok(()) => {}
                Err(error @ pulse_core::Error::Closed) => return Err(error),
                Err(error) => self.recover(error).await,
            }
        }
    }

    async fn step(&mut self) -> Outcome<()> {
        if self.group_is_gone {
            return self.await_return().await;
        }
        if self.in_doubt {
            self.look_through_pending().await?;
        }
        if Instant::now() >= self.next_tick {
            self.tend().await?;
        }
        if self.in_doubt {
            return Ok(());
        }
        let tenure = self.tenure.clone();
        if self.catching_up {
            let due = tokio::time::timeout_at(self.next_tick, async {
                tokio::select! {
                    _ = tenure.lane.room() => {}
                    () = tenure.member.claim_soon.notified() => {}
                }
            });
            return if due.await.is_ok() { self.claim().await } else { Ok(()) };
        }
        if !self.unverified.is_empty() {
            let read = std::mem::take(&mut self.unverified);
            self.hand_over_read(read);
        }
        tokio::select! {
            read = self.read() => {
                let Some(read) = read? else { return Ok(()) };
                self.trouble.over(&tenure.member.stream);
                self.unverified = read;
            }
            () = tenure.member.claim_soon.notified() => return self.claim().await,
        }
        self.verify().await
    }

    /// Reads until the next tick at the latest. `None` if there was no room until then.
    async fn read(&mut self) -> Outcome<Option<Vec<CoreDelivery>>> {
        let tenure = self.tenure.clone();
        let Member { stream, group, consumer, timing, .. } = &*tenure.member;
        let Ok(room) = tokio::time::timeout_at(self.next_tick, tenure.lane.room()).await else {
            return Ok(None);
        };
        // What somebody else trims shows best before the group reads on.
        if std::mem::take(&mut self.behind) {
            self.report_missed().await?;
        }
        let wait = self.next_tick.saturating_duration_since(Instant::now()).min(timing.block);
        let read = tenure.member.backend().group_read(stream, group, consumer, room, wait, Acks::Explicit).await;
        // What it brought, and did not return, would otherwise come after newer events.
        self.in_doubt |= read.is_err();
        self.behind = read.as_ref().map_or(true, |read| read.len() >= room);
        read.map(Some)
    }

    /// Looks whether what was read follows what is known; if not, an earlier owner's read took what lies between.
    async fn verify(&mut self) -> Outcome<()> {
        let Some(first) = self.unverified.first().map(|delivery| delivery.entry.id) else { return Ok(()) };
        let Member { stream, group, .. } = self.member();
        let query = PendingQuery::new(1).after(self.known);
        // Certain only once this succeeds.
        let pending = self.member().backend().group_pending(stream, group, query).await;
        self.in_doubt = !pending.as_ref().is_ok_and(|pending| pending.first().is_none_or(|oldest| oldest.id >= first));
        pending?;
        Ok(())
    }

    /// Offers every pending event that is not known here to the next claim, whoever it is pending for.
    async fn look_through_pending(&mut self) -> Outcome<()> {
        let Member { stream, group, .. } = self.member();
        let backend = self.member().backend();
        let mut known = self.known;
        if self.known == EventId::ZERO && self.unverified.is_empty() {
            // Before the look: what an earlier owner's read takes after it shows when the next events are read.
            let info = backend.group_info(stream, group).await?;
            known = info.map(|info| info.last_delivered).unwrap_or_default();
        }
        let unverified: HashSet<EventId> = self.unverified.iter().map(|delivery| delivery.entry.id).collect();
        let mut missing = self.lane().returning();
        let mut after = EventId::ZERO;
        loop {
            let page = backend.group_pending(stream, group, PendingQuery::new(PAGE).after(after)).await?;
            let unknown = self.lane().unknown(self.member(), page.iter().map(|pending| pending.id));
            let mut strays: HashMap<&Consumer, Vec<EventId>> = HashMap::new();
            for pending in &page {
                missing.remove(&pending.id);
                if unknown.contains(&pending.id) && !unverified.contains(&pending.id) {
                    strays.entry(&pending.consumer).or_default().push(pending.id);
                }
            }
            for (consumer, ids) in strays {
                backend.group_set_idle(stream, group, consumer, &ids, self.member().timing.released()).await?;
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = last.id,
                _ => break,
            }
        }
        self.lane().will_not_return(missing);
        self.known = known;
        (self.in_doubt, self.catching_up) = (false, true);
        Ok(())
    }

    /// Does what is to be done at every tick.
    async fn tend(&mut self) -> Outcome<()> {
        let now = Instant::now();
        let timing = self.member().timing;
        let waiting = self.lane().idle_for(timing.touch_after());
        if !waiting.is_empty() {
            let held = self.member().touch(&waiting).await?.into_iter().collect();
            // What is not pending here any more was acknowledged, or taken by an earlier owner.
            self.in_doubt |= !self.lane().touched(self.member(), &waiting, &held, now);
        }
        self.next_tick = now + timing.tick(rand::random());
        let given_back = self.lane().returning();
        self.claim().await?;
        // What did not come although it was given back some time ago is looked for.
        self.in_doubt |= given_back.iter().any(|id| self.lane().returning().contains(id));
        self.report_missed().await?;
        if now >= self.next_tidy {
            self.next_tidy = now + timing.tidy(rand::random());
            self.tidy().await?;
        }
        Ok(())
    }

    /// Takes over what was given back, abandoned, or held for too long.
    async fn claim(&mut self) -> Outcome<()> {
        let tenure = self.tenure.clone();
        let Member { stream, group, consumer, timing, meter, .. } = &*tenure.member;
        let room = tenure.lane.room_to_claim().min(CLAIM);
        if room == 0 {
            return Ok(());
        }
        // Until it is known what was claimed, something may be missing.
        let was_in_doubt = std::mem::replace(&mut self.in_doubt, true);
        tenure.lane.claim_begins(&tenure.member);
        let claimed = tenure.member.backend().group_claim(stream, group, consumer, timing.grace, room).await;
        let claimed = match claimed {
            Ok(claimed) => claimed,
            Err(error) => {
                drop(tenure.lane.claim_ends(&tenure.member, Vec::new(), &[]));
                return Err(error);
            }
        };
        self.in_doubt = was_in_doubt;
        self.trouble.over(stream);
        meter.claimed(claimed.deliveries.len());
        self.catching_up = claimed.deliveries.len() + claimed.deleted.len() >= room;
        let beyond = claimed.deliveries.iter().map(|delivery| delivery.entry.id).filter(|id| *id > self.known);
        self.claimed_unread.extend(beyond);
        let waiting = self.wanted(claimed.deliveries, true);
        for spent in tenure.lane.claim_ends(&tenure.member, waiting, &claimed.deleted) {
            tenure.member.give_up(spent.event, spent.deliveries - 1);
        }
        self.report_lost(claimed.deleted);
        Ok(())
    }

    fn hand_over_read(&mut self, read: Vec<CoreDelivery>) {
        self.known = read.iter().map(|delivery| delivery.entry.id).fold(self.known, EventId::max);
        // A read that was cut off may come again with what was claimed meanwhile.
        let claimed = std::mem::take(&mut self.claimed_unread);
        let read = read.into_iter().filter(|delivery| !claimed.contains(&delivery.entry.id)).collect();
        self.lane().push_read(self.wanted(read, false));
    }

    fn wanted(&self, deliveries: Vec<CoreDelivery>, claimed: bool) -> Vec<Waiting> {
        let since = Instant::now();
        let wanted = deliveries.into_iter().filter_map(|CoreDelivery { entry, deliveries, .. }| match entry.event {
            Ok(event) if !is_for(&event, Some(self.member().group.as_str())) => {
                self.member().ack_quietly(entry.id);
                None
            }
            Ok(event) => match self.filter.pass(&self.member().stream, event) {
                Ok(event) => Some(Waiting { event, deliveries, claimed, since }),
                Err(rejected) => {
                    self.member().ack_quietly(rejected);
                    None
                }
            },
            Err(malformed) => {
                let Member { stream, group, meter, .. } = self.member();
                meter.malformed(1);
                tracing::warn!(%stream, sink = %group, id = %entry.id, %malformed, "entry skipped");
                self.member().ack_quietly(entry.id);
                None
            }
        });
        let wanted: Vec<Waiting> = wanted.collect();
        self.member().meter.delivered(wanted.len());
        wanted
    }

    fn report_lost(&self, ids: Vec<EventId>) {
        if ids.is_empty() {
            return;
        }
        let Member { stream, group, meter, .. } = self.member();
        meter.lost(ids.len());
        tracing::warn!(%stream, sink = %group, lost = ids.len(), "unacknowledged events were deleted from the stream");
        self.lanes.tell(Notice::Lost { stream: stream.clone(), sink: group.as_str().to_owned(), ids });
    }

    /// Says which events were dropped before any instance had them.
    async fn report_missed(&self) -> Outcome<()> {
        let Member { stream, group, meter, .. } = self.member();
        if let Some(missed) = self.member().backend().group_missed(stream, group).await? {
            let missed = Missed { after: missed.after, before: Some(missed.before), events: missed.events };
            self.lanes.tell(missed.told(stream, Some(group.as_str()), meter));
        }
        Ok(())
    }

    /// Removes the consumers that earlier owners left behind. They have no right to the partition any more, so that
    /// only what is still pending for them has to be taken over first.
    async fn tidy(&self) -> Outcome<()> {
        let Member { stream, group, consumer, .. } = self.member();
        let Some(info) = self.member().backend().group_info(stream, group).await? else { return Ok(()) };
        self.member().gauge(&info).await?;
        for dead in plan::dead_consumers(&info, consumer, Duration::ZERO) {
            self.member().backend().group_remove_consumer(stream, group, &dead).await?;
        }
        Ok(())
    }

    async fn recover(&mut self, error: pulse_core::Error) {
        if matches!(error, pulse_core::Error::NoGroup { .. }) && !self.group_is_gone {
            self.group_is_gone = true;
            // What was not handed out is read again from the same stream, if that still stands.
            let waited = self.lane().clear(self.member());
            let read = std::mem::take(&mut self.unverified);
            let oldest = waited.into_iter().chain(read.iter().map(|delivery| delivery.entry.id)).min();
            self.known = oldest.map_or(self.known, plan::id_before).min(self.known);
        }
        let (pause, notice) = self.trouble.met(&self.tenure.member.stream, error);
        if let Some(notice) = notice {
            self.lanes.tell(notice);
        }
        tokio::time::sleep(pause).await;
    }

    /// Waits for the first event of a stream whose group is gone, and then makes the group anew.
    async fn await_return(&mut self) -> Outcome<()> {
        let tenure = self.tenure.clone();
        let Member { stream, group, timing, .. } = &*tenure.member;
        let backend = tenure.member.backend();
        if backend.stream_read(stream, EventId::ZERO, 1, timing.block).await?.entries.is_empty() {
            return Ok(());
        }
        let after = plan::restart_after(self.known, backend.stream_info(stream).await?.as_ref());
        backend.group_create(stream, group, plan::cursor_after(after)).await?;
        tracing::warn!(%stream, sink = %group, %after, "the group was gone and is made anew");
        self.lanes.tell(Notice::CursorLost { stream: stream.clone(), sink: group.as_str().to_owned(), after });
        self.known = after;
        (self.group_is_gone, self.in_doubt) = (false, true);
        Ok(())
    }

    /// Waits until the user has put everything down, and lets the settler finish. What was not handed out stays
    /// pending: the next owner takes it over at once.
    async fn leave(mut self) {
        self.lane().shut();
        let member = self.tenure.member.clone();
        if tokio::time::timeout(member.timing.grace, self.lane().let_go(&member)).await.is_err() {
            tracing::warn!(stream = %member.stream, "a delivery is held beyond the grace period; the partition moves on");
        }
        self.settler_stop.cancel();
        let Member { stream, group, consumer, .. } = &*member;
        let finished = tokio::time::timeout(LEAVING, async {
            // It ends with an error only where the runtime shuts down.
            let _ = (&mut self.settler).await;
            self.tidy().await?;
            member.backend().group_remove_consumer(stream, group, consumer).await
        });
        match finished.await {
            Ok(Ok(_) | Err(pulse_core::Error::NoGroup { .. })) => {}
            Ok(Err(error)) => tracing::debug!(%stream, sink = %group, %error, "a consumer is left for the next owner"),
            Err(_) => self.settler.abort(),
        }
    }
}
