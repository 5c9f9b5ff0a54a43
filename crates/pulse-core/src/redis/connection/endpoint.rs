//! Keeps one connection to one place: makes it, watches it, and replaces it when it is silent or leads to a replica.
//!
//! A connection is watched from the outside ([`super::traffic`]). One that owes an answer for too long is asked for a
//! sign of life, and if none comes, a second connection is opened beside it. The second takes the first one's place only
//! when it has been answered and the first one still has not, and when the server does not say on it that it is at work
//! for the first one. So a dead link is left within moments, while a server that is merely slow, which answers on
//! neither, loses no connection, and no more than one attempt at a time is under way. Where a host hangs, others know
//! which server took its place ([`super::locate`], [`super::cluster`]).
//!
//! A server that says it is a replica is left the same way, but only for a primary.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use fred::error::Error as FredError;
use futures::{
    FutureExt,
    future::{BoxFuture, Fuse, FusedFuture},
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::errors::is_said,
    locate::Locator,
    settings::Settings,
    traffic::{Patience, Silence, Traffic, time_to_carry},
    wire::{Connection, Demands, Purpose, Seen},
};
use crate::Reconnect;

/// How long a connection may be idle before it is asked for a sign of life. Middleboxes forget what is idle for
/// minutes, and a link that died while it was idle is replaced before it is needed.
const IDLE: Duration = Duration::from_secs(2);

/// How long an answer that has arrived may take to be noticed.
const MOMENT: Duration = Duration::from_millis(20);

/// How often a connection that owes something is looked at, at least.
const LOOK: Duration = Duration::from_millis(100);

/// How long an attempt to connect may take before others are asked whether it leads to the right place.
const WORRY: Duration = Duration::from_millis(250);

/// How long a connection has to go undoubted until the pauses before replacements begin anew.
const CALM: Duration = Duration::from_secs(10);

/// A connection that ends sooner than this counts as a failed attempt for the pause before the next one.
const YOUNG: Duration = Duration::from_secs(1);

/// How long a server that was demoted may take to answer what it was asked.
const ANSWER: Duration = Duration::from_secs(1);

/// How long a place whose address can change is left alone between attempts, at most, whatever the user set: a
/// successor may be there any moment.
const MOVING: Duration = Duration::from_millis(500);

/// A place, and the connection to it, if there is one.
#[derive(Debug)]
pub(crate) struct Endpoint {
    current: ArcSwapOption<Connection>,
    /// Why there is no connection, or why the last attempt to replace it failed.
    problem: Mutex<Option<FredError>>,
    /// Counts what happens to the connections of this client.
    news: Arc<News>,
    /// Whether the current connection owes an answer for too long.
    doubted: AtomicBool,
    /// Has the connection asked for a sign of life.
    alarm: Notify,
    closed: CancellationToken,
}

/// Tells those who wait for a connection that something has changed, and the cluster that something is wrong.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) trouble: Notify,
    /// The smallest lifetime of a lease that was in use, in milliseconds.
    lease: AtomicU64,
}

impl Default for News {
    fn default() -> Self {
        Self { changes: watch::Sender::new(0), trouble: Notify::new(), lease: u64::MAX.into() }
    }
}

impl News {
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn lease(&self, ttl: Duration) {
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.lease.fetch_min(ttl, Ordering::Relaxed);
    }

    /// How long a connection may be silent at most, so that the leases in use survive its replacement.
    fn bound(&self) -> Duration {
        Duration::from_millis((self.lease.load(Ordering::Relaxed) / 8).max(50))
    }
}

impl Endpoint {
    /// A place without a connection yet.
    pub(crate) fn new(news: Arc<News>, closed: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwapOption::empty(),
            problem: Mutex::default(),
            news,
            doubted: AtomicBool::new(false),
            alarm: Notify::new(),
            closed,
        })
    }

    /// A place that a connection leads to already.
    pub(crate) fn standing(news: Arc<News>, closed: CancellationToken, connection: Arc<Connection>) -> Arc<Self> {
        let endpoint = Self::new(news, closed);
        endpoint.current.store(Some(connection));
        endpoint
    }

    /// The connection, if one stands.
    pub(crate) fn current(&self) -> Option<Arc<Connection>> {
        self.current.load_full()
    }

    /// Whether there is a connection that answers, as far as is known.
    pub(crate) fn is_well(&self) -> bool {
        !self.doubted.load(Ordering::Relaxed) && self.current.load().is_some()
    }

    /// Why there is no connection.
    pub(crate) fn problem(&self) -> Option<FredError> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the connection looked at, and asked for a sign of life, at once.
    pub(crate) fn probe(&self) {
        self.alarm.notify_one();
    }

    /// A connection of the same client to the same place found another server: this one leads to the old server, unless
    /// it was made later.
    fn leave_what_is_older_than(&self, other: &Connection) {
        if let Some(connection) = self.current().filter(|connection| connection.opened < other.opened) {
            connection.demote();
            self.probe();
        }
    }

    /// Gives the connection up, but not the place.
    pub(crate) fn give_up(&self) {
        if let Some(connection) = self.current() {
            connection.give_up();
        }
    }

    /// Gives the place up: another one is responsible for what it did.
    pub(crate) fn close(&self) {
        self.closed.cancel();
        if let Some(connection) = self.current.swap(None) {
            connection.give_up();
        }
    }

    /// Puts a connection in place of the one before, which is given up: at once, or after it has had the time to answer.
    fn put(&self, connection: Option<Arc<Connection>>, time: Duration) {
        self.doubted.store(false, Ordering::Relaxed);
        if connection.is_some() {
            self.set_problem(None);
        }
        let next = connection.clone();
        let before = self.current.swap(connection);
        if let Some(before) = before.filter(|before| !next.is_some_and(|next| Arc::ptr_eq(&next, before))) {
            if time.is_zero() || !before.traffic.is_awaited() {
                before.give_up();
            } else {
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    before.give_up();
                });
            }
        }
        if self.closed.is_cancelled()
            && let Some(connection) = self.current.swap(None)
        {
            connection.give_up();
        }
        self.news.changed();
    }

    fn set_problem(&self, problem: Option<FredError>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

/// The task that keeps the connection of an endpoint.
pub(crate) struct Keeper {
    endpoint: Arc<Endpoint>,
    settings: Arc<Settings>,
    locator: Locator,
    purpose: Purpose,
    demands: Demands,
    /// Told when this connection is doubted, because what harms one mostly harms the other.
    sibling: Option<Arc<Endpoint>>,
    patience: Patience,
    /// Between attempts to connect.
    pauses: Pauses,
    /// Between attempts to replace a connection that stands.
    replacements: Pauses,
    replace_after: Instant,
}

/// A second connection that is being opened beside the first.
type Attempt = Fuse<BoxFuture<'static, Result<Arc<Connection>, FredError>>>;

impl Keeper {
    pub(crate) fn new(
        endpoint: Arc<Endpoint>,
        settings: Arc<Settings>,
        locator: Locator,
        purpose: Purpose,
        demands: Demands,
        sibling: Option<Arc<Endpoint>>,
    ) -> Self {
        let patience = Patience::new(settings.unresponsive, settings.command_timeout / 2);
        let mut reconnect = settings.reconnect;
        if locator.can_move() {
            reconnect.max = reconnect.max.min(MOVING).max(reconnect.min);
        }
        let (pauses, replacements) = (Pauses::new(reconnect), Pauses::new(reconnect));
        let replace_after = Instant::now();
        Self { endpoint, settings, locator, purpose, demands, sibling, patience, pauses, replacements, replace_after }
    }

    /// Keeps a connection until the endpoint is closed, beginning with one that stands already, if there is one.
    pub(crate) async fn run(mut self, first: Option<Arc<Connection>>) {
        let closed = self.endpoint.closed.clone();
        closed.run_until_cancelled(self.keep(first)).await;
        if let Some(connection) = self.endpoint.current.swap(None) {
            connection.quit().await;
        }
        self.endpoint.news.changed();
    }

    async fn keep(&mut self, first: Option<Arc<Connection>>) {
        let mut next = match first {
            Some(connection) => Some(connection),
            None => self.attempt().await.ok(),
        };
        let mut leaves_replica = false;
        loop {
            let connection = match next.take() {
                Some(connection) => connection,
                None => self.connect().await,
            };
            // A server that was demoted still answers what it was asked.
            let time = if leaves_replica { ANSWER } else { Duration::ZERO };
            self.endpoint.put(Some(connection.clone()), time);
            if let (true, Some(sibling)) = (leaves_replica, &self.sibling) {
                sibling.leave_what_is_older_than(&connection);
            }
            next = self.watch(&connection).await;
            leaves_replica = next.is_some() && connection.demoted_for().is_some();
            if connection.opened.elapsed() >= YOUNG {
                self.pauses.reset();
            }
            if next.is_none() {
                self.endpoint.put(None, Duration::ZERO);
                self.endpoint.news.trouble.notify_one();
            }
        }
    }

    /// Connects, however long that takes.
    async fn connect(&mut self) -> Arc<Connection> {
        loop {
            self.pauses.wait().await;
            if let Ok(connection) = self.attempt().await {
                return connection;
            }
        }
    }

    /// Tries to connect once, and says meanwhile that there is no connection.
    async fn attempt(&self) -> Result<Arc<Connection>, FredError> {
        let mut open = pin!(self.locator.open(&self.settings, self.purpose, self.demands));
        let opened = loop {
            match tokio::time::timeout(WORRY, &mut open).await {
                Ok(opened) => break opened,
                Err(_) => self.endpoint.news.trouble.notify_one(),
            }
        };
        if let Err(error) = &opened {
            tracing::debug!(target = &*self.settings.target, %error, "connecting failed, trying again");
            self.endpoint.set_problem(Some(error.clone()));
            self.endpoint.news.trouble.notify_one();
        }
        opened
    }

    /// Watches a connection until it has ended (`None`), or until another one has to take its place.
    async fn watch(&mut self, connection: &Arc<Connection>) -> Option<Arc<Connection>> {
        let traffic = &connection.traffic;
        let mut silence = Silence::new(Instant::now());
        let mut ping = pin!(Ping::terminated());
        let mut attempt: Attempt = Fuse::terminated();
        let mut seeks_primary = false;
        // How long it may be silent because the server was seen to be at work for it.
        let mut excused = Duration::ZERO;
        loop {
            let now = Instant::now();
            let owed = silence.sample(traffic, now);
            // As long as a write may still wait for it.
            let demoted = connection.demoted_for().is_some_and(|ago| ago < self.settings.command_timeout);
            let bound = if self.settings.minds_leases { self.endpoint.news.bound() } else { Duration::MAX };
            let patience = self.patience.for_link(connection.round_trip, bound);
            let patience = patience.saturating_add(traffic.allowance());
            if owed.is_none_or(|owed| owed < patience) {
                excused = Duration::ZERO;
            }
            let silent = owed.is_some_and(|owed| owed >= patience.max(excused));
            self.doubt(silent);
            if demoted || silent {
                if attempt.is_terminated() && now >= self.replace_after {
                    if now.saturating_duration_since(self.replace_after) >= CALM {
                        self.replacements.reset();
                    }
                    seeks_primary = demoted;
                    attempt = self.beside(demoted).fuse();
                }
            } else if !attempt.is_terminated() {
                // It was slow, not dead.
                attempt = Fuse::terminated();
                self.endpoint.set_problem(None);
                self.pause_replacements();
            }
            let asks = owed.is_some_and(|owed| owed >= patience / 2) || silence.idle(now) >= IDLE;
            if asks && ping.is_terminated() {
                ping.set(connection.ping(self.settings.command_timeout).boxed().fuse());
            }
            let look = async {
                if owed.is_some() || demoted {
                    tokio::time::sleep((patience / 4).min(LOOK)).await;
                } else {
                    // A first look soon after the first command, then until nothing is owed.
                    let _ = tokio::time::timeout(IDLE.saturating_sub(silence.idle(now)), traffic.next()).await;
                    tokio::time::sleep((patience / 4).min(LOOK)).await;
                }
            };
            // A sign of life counts before what came at the same moment.
            tokio::select! {
                biased;
                () = connection.ended().cancelled() => return None,
                answer = &mut ping => note_answer(traffic, &answer),
                opened = &mut attempt => {
                    self.pause_replacements();
                    match opened {
                        Ok(other) if seeks_primary => {
                            tracing::debug!(target = &*self.settings.target, "the server is a replica, leaving it");
                            return Some(other);
                        }
                        Ok(other) => {
                            // What the old one has to say gets the time that it needs to arrive.
                            let time = other.round_trip.max(MOMENT).min(patience);
                            while_answered(tokio::time::sleep(time), ping.as_mut(), traffic).await;
                            let mut silent_for =
                                || silence.sample(traffic, Instant::now()).filter(|owed| *owed >= patience);
                            if silent_for().is_some() {
                                let look = other.look_at(connection, LOOK * 2);
                                let seen = while_answered(look, ping.as_mut(), traffic).await;
                                if let Some(owed) = silent_for() {
                                    excused = self.excuse(seen, owed, patience);
                                    if owed >= excused {
                                        tracing::debug!(target = &*self.settings.target, "a silent connection is left");
                                        self.patience.replaced(Instant::now());
                                        return Some(other);
                                    }
                                }
                            }
                        }
                        Err(error) => {
                            tracing::debug!(target = &*self.settings.target, %error, "no second connection");
                            self.endpoint.set_problem(Some(error));
                        }
                    }
                }
                () = self.endpoint.alarm.notified() => {
                    if ping.is_terminated() {
                        ping.set(connection.ping(self.settings.command_timeout).boxed().fuse());
                    }
                }
                () = look => {}
            }
        }
    }

    /// Notes whether the connection is doubted, and tells those who should look too.
    fn doubt(&self, silent: bool) {
        let before = self.endpoint.doubted.swap(silent, Ordering::Relaxed);
        if silent {
            // Again at every look: somewhere a successor may just have been chosen.
            self.endpoint.news.trouble.notify_one();
        }
        if let (true, false, Some(sibling)) = (silent, before, &self.sibling) {
            sibling.probe();
        }
    }

    /// For how long the connection may be silent because of what the server says that it does for it.
    fn excuse(&self, seen: Option<Seen>, owed: Duration, patience: Duration) -> Duration {
        match seen {
            // It is asked again after as long a time.
            Some(seen) if seen.held_back => owed * 2 + patience,
            Some(seen) => (patience + time_to_carry(seen.unsent)).min(self.patience.most()),
            None => Duration::ZERO,
        }
    }

    /// Lets some time pass before the next attempt to replace a connection.
    fn pause_replacements(&mut self) {
        self.replace_after = Instant::now() + self.replacements.next();
    }

    /// Opens a connection beside the current one.
    fn beside(&self, demoted: bool) -> BoxFuture<'static, Result<Arc<Connection>, FredError>> {
        let (locator, settings, purpose) = (self.locator.clone(), self.settings.clone(), self.purpose);
        let demands = Demands { primary: demoted, ..self.demands };
        async move { locator.open(&settings, purpose, demands).await }.boxed()
    }
}

type Ping<'a> = Fuse<BoxFuture<'a, Result<Duration, FredError>>>;

/// Notes the answer to a request for a sign of life; a refusal is one too.
fn note_answer(traffic: &Traffic, answer: &Result<Duration, FredError>) {
    if answer.as_ref().err().is_none_or(is_said) {
        traffic.settle();
    }
}

/// Waits for something, and hears meanwhile whether the connection gives its sign of life.
async fn while_answered<T>(something: impl Future<Output = T>, mut ping: Pin<&mut Ping<'_>>, traffic: &Traffic) -> T {
    let mut something = pin!(something);
    loop {
        tokio::select! {
            biased;
            answer = &mut ping => note_answer(traffic, &answer),
            done = &mut something => return done,
        }
    }
}

/// The pauses between attempts to connect: growing, jittered, the first one short.
#[derive(Debug)]
pub(crate) struct Pauses {
    reconnect: Reconnect,
    taken: u32,
}

impl Pauses {
    pub(crate) fn new(reconnect: Reconnect) -> Self {
        Self { reconnect, taken: 0 }
    }

    fn reset(&mut self) {
        self.taken = 0;
    }

    fn next(&mut self) -> Duration {
        let longest = self.reconnect.min.saturating_mul(1 << self.taken.min(20)).min(self.reconnect.max);
        self.taken += 1;
        longest.mul_f64(0.5 + 0.5 * crate::entropy::fraction())
    }

    async fn wait(&mut self) {
        // After a loss the first attempt comes almost at once: it is the others that must not come together.
        let pause = if self.taken == 0 { self.next().mul_f64(crate::entropy::fraction()) } else { self.next() };
        tokio::time::sleep(pause).await;
    }
}
