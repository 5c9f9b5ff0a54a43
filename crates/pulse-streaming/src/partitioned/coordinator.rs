//! The task that keeps an instance a member of its sink, and takes and hands over partitions.
//!
//! It looks at the control map whenever that changes, and at a third of the lease anyway; what it does then is decided
//! by [`assign::steps`]. Every step is repeated until the map shows it, so a lost answer does no harm.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pulse_core::{MapFeed, Session, SessionState};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    PartitionedStream,
    assign::{self, InstanceId, Phase, Step},
    control::Control,
};
use crate::{
    backoff::Backoff,
    sink::ordered::{Lanes, Ordered},
};

/// How long leaving may take, besides waiting for the user.
const LEAVING: Duration = Duration::from_secs(10);

type Outcome<T> = Result<T, pulse_core::Error>;

/// Takes and hands over the partitions of one instance.
pub(super) struct Coordinator {
    stream: PartitionedStream,
    control: Control,
    ordered: Ordered,
    lanes: Arc<Lanes>,
    /// Read by the subscriber.
    owned: watch::Sender<Vec<u32>>,
    life: Life,
    /// Cancelled when the sink is closed.
    closing: CancellationToken,
    /// The changes of the control map, while they can be had.
    feed: Option<MapFeed>,
    /// Whether the instance is on its way out.
    leaving: bool,
    next_look: Instant,
    backoff: Backoff,
}

/// One membership of an instance, from its session's beginning to its end.
pub(super) struct Life {
    me: InstanceId,
    session: Arc<Session>,
    held: BTreeMap<u32, Held>,
    /// The tasks that read. Dropping the set ends them.
    readers: JoinSet<()>,
}

/// A partition in the hands of this instance.
struct Held {
    phase: Phase,
    /// Tells its task to let go.
    release: CancellationToken,
    /// Its task, to be ended at once.
    task: tokio::task::AbortHandle,
}

impl Life {
    /// Writes a new instance down under its session.
    pub(super) async fn begin(control: &Control, session: Session) -> Outcome<Self> {
        let me = InstanceId(rand::random());
        control.announce(me, session.lease()).await?;
        Ok(Self { me, session: Arc::new(session), held: BTreeMap::new(), readers: JoinSet::new() })
    }
}

/// What ended a wait.
enum Woken {
    Closing,
    SessionEnded,
    /// A task that read a partition has ended.
    Drained(tokio::task::Id),
    Changed,
    FeedEnded,
    Due,
}

impl Coordinator {
    pub(super) fn new(
        stream: PartitionedStream,
        control: Control,
        ordered: Ordered,
        lanes: Arc<Lanes>,
        owned: watch::Sender<Vec<u32>>,
        life: Life,
        closing: CancellationToken,
    ) -> Self {
        let (next_look, backoff) = (Instant::now(), Backoff::default());
        Self { stream, control, ordered, lanes, owned, life, closing, feed: None, leaving: false, next_look, backoff }
    }

    pub(super) async fn run(mut self) {
        if let Err(error) = self.stay().await {
            tracing::debug!(stream = self.stream.name(), %error, "partitioned sink ends");
        } else {
            let limit = self.ordered.ack_grace.saturating_add(2 * LEAVING);
            if timeout(limit, self.leave()).await.is_err() {
                tracing::warn!(stream = self.stream.name(), "the backend did not answer in time; left without a word");
            }
        }
        self.lanes.close();
    }

    /// Takes part until the sink is closed; fails once the client is.
    async fn stay(&mut self) -> Outcome<()> {
        loop {
            match self.woken().await {
                Woken::Closing => return Ok(()),
                Woken::SessionEnded => {
                    let closing = self.closing.clone();
                    tokio::select! {
                        biased;
                        () = closing.cancelled() => return Ok(()),
                        begun = self.begin_anew() => begun?,
                    }
                }
                woken => self.note(&woken),
            }
            self.look().await?;
        }
    }

    async fn woken(&mut self) -> Woken {
        let (session, life) = (self.life.session.clone(), &mut self.life);
        let feed = async {
            match &mut self.feed {
                Some(feed) => feed.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.closing.cancelled(), if !self.leaving => Woken::Closing,
            _ = session.ended() => Woken::SessionEnded,
            Some(ended) = life.readers.join_next_with_id() => {
                Woken::Drained(ended.map_or_else(|error| error.id(), |(id, ())| id))
            }
            item = feed => if item.is_some() { Woken::Changed } else { Woken::FeedEnded },
            () = sleep_until(self.next_look) => Woken::Due,
        }
    }

    fn note(&mut self, woken: &Woken) {
        match woken {
            Woken::Drained(task) => {
                // That of an abandoned partition, which may have been taken again since, is not there any more.
                if let Some(held) = self.life.held.values_mut().find(|held| held.task.id() == *task) {
                    held.phase = Phase::Drained;
                }
            }
            // One look sees all that happened so far.
            Woken::Changed => while self.feed.as_mut().is_some_and(|feed| feed.try_next().is_some()) {},
            Woken::FeedEnded => self.feed = None,
            Woken::Closing | Woken::SessionEnded | Woken::Due => {}
        }
    }

    /// Looks at the control map and does what follows from it. Fails only if the client is closed.
    async fn look(&mut self) -> Outcome<()> {
        let looked = self.look_and_act().await;
        let partitions =
            self.life.held.iter().filter(|(_, held)| held.phase == Phase::Reading).map(|(index, _)| *index);
        self.owned.send_replace(partitions.collect());
        match looked {
            Ok(()) => {
                self.backoff.reset();
                self.next_look =
                    Instant::now() + (self.life.session.ttl() / 3).mul_f64(0.75 + rand::random::<f64>() / 4.0);
                Ok(())
            }
            Err(error @ pulse_core::Error::Closed) => Err(error),
            Err(error) => {
                let pause = self.backoff.next(rand::random());
                tracing::debug!(stream = self.stream.name(), %error, ?pause, "cannot look after partitions, trying again");
                self.next_look = Instant::now() + pause;
                Ok(())
            }
        }
    }

    async fn look_and_act(&mut self) -> Outcome<()> {
        if self.feed.is_none() {
            // Before looking, so that no change is missed.
            self.feed = Some(self.control.feed().await?);
        }
        let view = self.control.look().await?;
        let phases = self.life.held.iter().map(|(partition, held)| (*partition, held.phase)).collect();
        for step in assign::steps(self.life.me, self.leaving, &view, &phases, self.stream.count()) {
            self.act(step).await?;
        }
        Ok(())
    }

    async fn act(&mut self, step: Step) -> Outcome<()> {
        let (me, lease) = (self.life.me, self.life.session.lease());
        match step {
            Step::Announce => self.control.announce(me, lease).await?,
            Step::Take(partition) => {
                if self.control.take(partition, me, lease).await? {
                    self.read(partition);
                }
            }
            Step::Read(partition) => self.read(partition),
            Step::Release(partition) => {
                if let Some(held) = self.life.held.get_mut(&partition) {
                    held.phase = Phase::Releasing;
                    held.release.cancel();
                }
            }
            Step::Disown(partition) => {
                self.control.disown(partition, me).await?;
                self.life.held.remove(&partition);
            }
            Step::Abandon(partition) => {
                if let Some(held) = self.life.held.remove(&partition) {
                    tracing::warn!(stream = self.stream.name(), partition, "a partition was lost without a word");
                    held.task.abort();
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, partition: u32) {
        tracing::debug!(stream = self.stream.name(), partition, "a partition is owned");
        let release = CancellationToken::new();
        let stream = self.stream.partition(partition).clone();
        let owning = self.ordered.clone().own(stream, self.lanes.clone(), self.life.session.clone(), release.clone());
        let task = self.life.readers.spawn(async move {
            if let Err(error) = owning.await {
                tracing::error!(partition, %error, "a partition cannot be read");
            }
        });
        self.life.held.insert(partition, Held { phase: Phase::Reading, release, task });
    }

    /// Stops everything, because others may take over, and joins again as a new instance. Fails once the client is
    /// closed.
    async fn begin_anew(&mut self) -> Outcome<()> {
        self.life.readers.abort_all();
        self.life.held.clear();
        self.owned.send_replace(Vec::new());
        let mut backoff = Backoff::default();
        loop {
            let begun = async {
                let session =
                    Session::open(self.control.client(), self.control.scope(), self.life.session.ttl()).await?;
                Life::begin(&self.control, session).await
            };
            match begun.await {
                Ok(life) => {
                    tracing::info!(stream = self.stream.name(), "joined the sink again after the session was lost");
                    self.life = life;
                    return Ok(());
                }
                Err(error @ pulse_core::Error::Closed) => return Err(error),
                Err(error) => {
                    tracing::debug!(stream = self.stream.name(), %error, "cannot join the sink again yet");
                    sleep(backoff.next(rand::random())).await;
                }
            }
        }
    }

    /// Hands over everything, and ends the membership.
    async fn leave(&mut self) {
        self.leaving = true;
        for held in self.life.held.values_mut() {
            held.phase = if held.phase == Phase::Reading { Phase::Releasing } else { held.phase };
            held.release.cancel();
        }
        let mut struck_off = false;
        while self.life.session.state() == SessionState::Alive {
            // First, so that somebody waits for each partition.
            struck_off = struck_off || self.control.leave(self.life.me).await.is_ok();
            if self.look().await.is_err() || (struck_off && self.life.held.is_empty()) {
                break;
            }
            match self.woken().await {
                Woken::SessionEnded => break,
                woken => self.note(&woken),
            }
        }
        self.life.readers.shutdown().await;
        let lease = self.life.session.lease();
        // Its entries go with it, if any are left.
        if let Err(error) = self.control.drop_lease(lease).await {
            tracing::debug!(stream = self.stream.name(), %error, "the lease is left to run out");
        }
    }
}
