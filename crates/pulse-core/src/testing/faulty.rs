//! One client of a store, and the ways to trouble it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio_util::task::TaskTracker;

use super::{
    Chances, Fault, FeedChances, Operation,
    link::{Cut, End, Link},
    plan::{Decision, Plan},
    undelivered::Undelivered,
};
use crate::{Backend, Error, MAX_LIFETIME, Outcome, Transaction};

/// A client of a backend over a link that can fail. See the [module documentation](super).
///
/// Clones are the same client: hand one to [`Client::from_backend`](crate::Client::from_backend), keep another to make
/// trouble. Closing it ends this client only; the backend that it wraps stays open for others.
#[derive(Clone)]
pub struct Faulty {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) target: String,
    pub(super) link: Arc<Link>,
    plan: Mutex<Plan>,
    patience: Mutex<Duration>,
    rewrite: Mutex<Option<Rewrite>>,
    conceals_run: AtomicBool,
    pub(super) undelivered: Undelivered,
    /// The relays of feeds; they end with the link.
    pub(super) relays: TaskTracker,
}

/// Changes transactions.
type Rewrite = Arc<dyn Fn(Transaction) -> Transaction + Send + Sync>;

/// What made a call fail.
#[derive(Debug, thiserror::Error)]
enum Injected {
    #[error("injected: failed before the effect")]
    Before,
    #[error("injected: failed after the effect")]
    After,
    #[error("injected: cut off by a partition")]
    Partition,
    #[error("injected: the client was killed")]
    Killed,
}

impl Faulty {
    /// Wraps a backend. Nothing goes wrong until told; then everything random follows from the seed.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, seed: u64) -> Self {
        let inner = Inner {
            target: format!("faulty({})", backend.target()),
            backend,
            link: Arc::default(),
            plan: Mutex::new(Plan::new(seed)),
            patience: Mutex::new(Duration::from_secs(10)),
            rewrite: Mutex::default(),
            conceals_run: AtomicBool::new(false),
            undelivered: Undelivered::default(),
            relays: TaskTracker::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Sets what may happen to calls, of every kind.
    pub fn set_chances(&self, chances: Chances) {
        self.inner.plan().set_chances(chances);
    }

    /// Sets what may happen to calls of one kind, until [`Faulty::set_chances`] is called again.
    pub fn set_chances_of(&self, operation: Operation, chances: Chances) {
        self.inner.plan().set_chances_of(operation, chances);
    }

    /// Sets what may happen to the items of feeds.
    pub fn set_feed_chances(&self, chances: FeedChances) {
        self.inner.plan().set_feed_chances(chances);
    }

    /// Plans a fault for the `nth` call of a kind from now; 1 is the next one. It comes in place of chance.
    pub fn script(&self, operation: Operation, nth: u64, fault: Fault) {
        self.inner.plan().script(operation, nth, fault);
    }

    /// How many calls of a kind were begun.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.inner.plan().calls(operation)
    }

    /// Sets how long a call waits for the end of a partition before it fails. More than [`MAX_LIFETIME`] acts as that.
    /// Default 10 s.
    pub fn set_patience(&self, patience: Duration) {
        *self.inner.patience.lock().unwrap_or_else(PoisonError::into_inner) = patience.min(MAX_LIFETIME);
    }

    /// Changes every transaction on its way to the store, beyond all contracts: for tests that show that a test of
    /// something can fail.
    pub fn rewrite_commits(&self, rewrite: impl Fn(Transaction) -> Transaction + Send + Sync + 'static) {
        *self.inner.rewrite.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(rewrite));
    }

    /// Has [`Backend::server_run`] answer that the backend cannot tell, so that a restart or a failover shows only by
    /// what it has lost.
    pub fn conceal_server_run(&self) {
        self.inner.conceals_run.store(true, Ordering::Relaxed);
    }

    /// Cuts this client off. New calls wait until [`Faulty::heal`], or fail when their patience ends; calls whose
    /// answer was on the way fail then, with an unknown outcome. Feeds yield `Disconnected`, and lose what is committed
    /// from now on.
    pub fn partition(&self) {
        self.inner.link.set_partitioned(true);
    }

    /// Cuts the feeds of this client off until [`Faulty::unmute`], and the calls that are under way: later ones are
    /// answered. As where the connection for subscriptions comes back later than the one for commands.
    pub fn mute(&self) {
        self.inner.link.set_mute(true);
    }

    /// Lets the feeds go on. They yield `Resubscribed`.
    pub fn unmute(&self) {
        self.inner.link.set_mute(false);
    }

    /// Ends the partition. Feeds yield `Resubscribed` and go on.
    pub fn heal(&self) {
        self.inner.link.set_partitioned(false);
    }

    /// Stops all traffic of this client, without an error and without an end to anyone's patience, as when its process
    /// or its server is stopped by a signal. Nothing is lost.
    pub fn pause(&self) {
        self.inner.link.set_paused(true);
    }

    /// Lets the traffic go on.
    pub fn resume(&self) {
        self.inner.link.set_paused(false);
    }

    /// Ends this client as a crash would: every call fails, those under way and all later ones, and feeds yield
    /// `Disconnected` and then nothing for ever.
    pub fn kill(&self) {
        self.inner.link.end(End::Killed);
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { target, link, .. } = &*self.inner;
        f.debug_struct("Faulty").field("target", target).field("status", &link.status()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.link.end(End::Closed);
    }
}

impl Inner {
    pub(super) fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn conceals_run(&self) -> bool {
        self.conceals_run.load(Ordering::Relaxed)
    }

    /// The transaction as it reaches the store.
    pub(super) fn rewritten(&self, transaction: Transaction) -> Transaction {
        let rewrite = self.rewrite.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match rewrite {
            Some(rewrite) => rewrite(transaction),
            None => transaction,
        }
    }

    fn patience(&self) -> Duration {
        *self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a call there, through its effect, and back.
    pub(super) async fn call<T>(
        &self,
        operation: Operation,
        subject: String,
        effect: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let trip = self.depart(operation, subject).await?;
        let result = trip.pass(effect).await?;
        trip.arrive().await?;
        Ok(result)
    }

    /// Takes a call to the point where it takes effect.
    pub(super) async fn depart(&self, operation: Operation, subject: String) -> Result<Trip<'_>, Error> {
        let decision = self.plan().decide(operation);
        let mut trip = Trip { client: self, operation, subject, decision, partitions: 0, sent: false };
        let request = async {
            sleep(decision.there).await;
            self.link.request(self.patience()).await
        };
        trip.partitions = match trip.unless_ended(request).await? {
            Ok(partitions) => partitions,
            Err(Cut) => return Err(trip.failed(Injected::Partition)),
        };
        match decision.fault {
            Some(Fault::FailBefore) => return Err(trip.failed(Injected::Before)),
            Some(Fault::KillBefore) => {
                self.link.end(End::Killed);
                return Err(trip.failed(Injected::Killed));
            }
            _ => {}
        }
        trip.sent = true;
        Ok(trip)
    }
}

/// One call on its way.
pub(super) struct Trip<'a> {
    client: &'a Inner,
    operation: Operation,
    subject: String,
    decision: Decision,
    /// How often the link had been cut when the request went out.
    partitions: u64,
    sent: bool,
}

impl Trip<'_> {
    /// Carries out the effect.
    pub(super) async fn pass<T>(&self, effect: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        self.unless_ended(effect).await?
    }

    /// Brings the answer back to the client.
    pub(super) async fn arrive(&self) -> Result<(), Error> {
        match self.decision.fault {
            Some(Fault::FailAfter) => return Err(self.failed(Injected::After)),
            Some(Fault::KillAfter) => {
                self.client.link.end(End::Killed);
                return Err(self.failed(Injected::Killed));
            }
            _ => {}
        }
        let answer = async {
            sleep(self.decision.back).await;
            self.client.link.answer(self.partitions, self.client.patience()).await
        };
        self.unless_ended(answer).await?.map_err(|Cut| self.failed(Injected::Partition))
    }

    /// Waits for one step, unless the client ends first.
    async fn unless_ended<T>(&self, step: impl Future<Output = T> + Send) -> Result<T, Error> {
        tokio::select! {
            biased;
            end = self.client.link.ended() => Err(match end {
                End::Killed => self.failed(Injected::Killed),
                End::Closed => Error::Closed,
            }),
            done = step => Ok(done),
        }
    }

    fn failed(&self, cause: Injected) -> Error {
        let unknown = self.sent && self.operation.has_effect();
        Error::Unavailable {
            operation: self.operation.name(),
            subject: self.subject.clone(),
            outcome: if unknown { Outcome::Unknown } else { Outcome::NotApplied },
            source: Arc::new(cause),
        }
    }
}

async fn sleep(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}
