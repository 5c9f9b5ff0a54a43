//! Sessions: a lease that is kept alive, and the certainty of knowing when it is not.
//!
//! A [`Session`] renews its lease at a third of the lifetime. It considers itself lost as soon as the backend says so
//! *or* its own monotonic clock says that the lease may run out within the margin, whichever comes first. The clock
//! starts before the request that grants or renews is sent, so the session ends here before it can end at the backend:
//! whoever stops its work when the session is lost has stopped before anybody else may take the work over.
//!
//! One thing that clock does not see: on Linux and macOS it stands still while the whole machine is suspended, other
//! than while a process is stopped. After such a sleep a session counts as alive until its next renewal is refused.

use std::time::Duration;

use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{Client, Error, LeaseId, Scope, Transaction};

/// The smallest margin. A backend counts in whole milliseconds, so a lease can end there two of them earlier than asked
/// for: one by the rounding of its clock, one by that of the lifetime.
const RESOLUTION: Duration = Duration::from_millis(2);

/// Whether a session still holds its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionState {
    /// The lease is alive, as far as the machine's monotonic clock can tell; see [`Session::state`].
    Alive,
    /// The lease has expired, was dropped, or can no longer be vouched for. A lost session stays lost.
    Lost,
    /// [`Session::close`] ended it.
    Closed,
}

/// A lease that is renewed until the session is closed or dropped, or the client is closed.
///
/// Dropping a session stops the renewals and lets the lease run out; [`Session::close`] drops the lease at once.
///
/// ```
/// # use pulse_core::{Scope, Session, Transaction};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), pulse_core::Error> {
/// use std::time::Duration;
/// let client = pulse_core::connect("memory:").await?;
/// let scope = Scope::new("services")?;
/// let session = Session::open(&client, &scope, Duration::from_secs(10)).await?;
/// let entry = Transaction::new(&scope).put_bound("up", "api-1", "10.0.0.7", &session);
/// client.commit(entry).await?;
/// session.close().await?; // the entry is gone with it
/// assert_eq!(client.backend().map_get(&scope.map("up")?, &["api-1"]).await?, vec![None]);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Session {
    client: Client,
    scope: Scope,
    lease: LeaseId,
    ttl: Duration,
    vouched: watch::Receiver<Vouched>,
    cancel: CancellationToken,
    keeper: Option<JoinHandle<()>>,
}

/// What the keeper last knew.
#[derive(Debug, Clone, Copy)]
struct Vouched {
    /// The lease is alive until then, less the margin.
    until: Instant,
    state: SessionState,
}

/// When to renew, and for how long an answer vouches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    /// From asking for the lease until the session is lost without another answer.
    vouched_for: Duration,
    /// Between a success and the next renewal.
    pause: Duration,
    /// For one renewal to be answered; then it is asked for again, in time for a connection that was replaced.
    attempt: Duration,
    /// Between a failure and the next attempt, on average.
    retry: Duration,
}

/// Renews the lease of a session.
struct Keeper {
    client: Client,
    scope: Scope,
    lease: LeaseId,
    ttl: Duration,
    pace: Pace,
    /// Read by the session and whoever waits for its end.
    vouched: watch::Sender<Vouched>,
    /// Cancelled when the session is closed or dropped.
    cancel: CancellationToken,
    /// Cancelled when the client is closed.
    stopping: CancellationToken,
}

impl Session {
    /// Begins a lease and keeps it alive, with a margin of a fifth of its lifetime.
    ///
    /// # Errors
    ///
    /// Those of [`Backend::commit`](crate::Backend::commit).
    pub async fn open(client: &Client, scope: &Scope, ttl: Duration) -> Result<Self, Error> {
        Self::open_with_margin(client, scope, ttl, ttl / 5).await
    }

    /// Begins a lease and keeps it alive; the session counts as lost `margin` before the lease can run out, which is
    /// the time that its owner has for stopping its work. A margin below two milliseconds acts as two, which is how
    /// exactly a backend keeps time; so no lifetime may be below four.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRequest`] if the margin leaves less than half of the lifetime, and those of
    /// [`Backend::commit`](crate::Backend::commit).
    pub async fn open_with_margin(
        client: &Client,
        scope: &Scope,
        ttl: Duration,
        margin: Duration,
    ) -> Result<Self, Error> {
        let margin = margin.max(RESOLUTION);
        if margin > ttl / 2 {
            return Err(Error::InvalidRequest {
                subject: format!("session in {scope}"),
                reason: format!("the margin of {margin:?} is more than half of the lifetime of {ttl:?}"),
            });
        }
        let lease = LeaseId::random();
        let asked = Instant::now();
        client.commit(Transaction::new(scope).grant_lease(lease, ttl)).await?;
        let pace = Pace::new(ttl, margin);
        let (vouched, receiver) =
            watch::channel(Vouched { until: asked + pace.vouched_for, state: SessionState::Alive });
        let cancel = CancellationToken::new();
        let keeper = Keeper {
            client: client.clone(),
            scope: scope.clone(),
            lease,
            ttl,
            pace,
            vouched,
            cancel: cancel.clone(),
            stopping: client.background().stopping(),
        };
        Ok(Self {
            client: client.clone(),
            scope: scope.clone(),
            lease,
            ttl,
            vouched: receiver,
            cancel,
            keeper: Some(client.background().spawn(keeper.run())),
        })
    }

    /// The lease. To bind entries to it, give the session itself, which knows the scope too.
    #[must_use]
    pub fn lease(&self) -> LeaseId {
        self.lease
    }

    /// The scope of the lease.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The lifetime of the lease.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Whether the lease is certainly alive now. Right even in the first instant after a long pause of the process,
    /// because it compares clocks and does not wait for a task to notice. Not so in the first instant after the whole
    /// machine slept, where its monotonic clock slept too, as on Linux and macOS: where that matters, let each write
    /// expect the lease to be alive ([`Transaction::expect_session`]), or carry a fencing token.
    #[must_use]
    pub fn state(&self) -> SessionState {
        state_now(&self.vouched)
    }

    /// Waits until the session is lost or closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn ended(&self) -> SessionState {
        let mut vouched = self.vouched.clone();
        loop {
            let until = vouched.borrow_and_update().until;
            let state = state_now(&vouched);
            if state != SessionState::Alive {
                return state;
            }
            // Both only wake the loop, which looks again.
            tokio::select! {
                biased;
                _ = vouched.changed() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// Ends the session: drops its lease, and with it every entry that is bound to it.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the session has ended all the same, but its lease may be left to run out by itself.
    ///
    /// # Errors
    ///
    /// Those of [`Backend::commit`](crate::Backend::commit); the lease then runs out by itself.
    pub async fn close(mut self) -> Result<(), Error> {
        self.cancel.cancel();
        if let Some(keeper) = self.keeper.take() {
            // It ends promptly, and panics only where the runtime shuts down.
            let _ = keeper.await;
        }
        self.client.commit(Transaction::new(&self.scope).drop_lease(self.lease)).await?;
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// The state as of now.
fn state_now(vouched: &watch::Receiver<Vouched>) -> SessionState {
    // The keeper says how it ended; one that is gone without a word was killed with its runtime. Asked first, so that a
    // last word is not missed.
    let orphaned = vouched.has_changed().is_err();
    // The clock is read before what the keeper vouches for. Together with `Vouched::extend` this keeps a session that
    // somebody saw lost from being extended afterwards.
    let now = Instant::now();
    match vouched.borrow().at(now) {
        SessionState::Alive if orphaned => SessionState::Lost,
        state => state,
    }
}

impl Vouched {
    fn at(self, now: Instant) -> SessionState {
        if self.state == SessionState::Alive && now >= self.until {
            return SessionState::Lost;
        }
        self.state
    }

    /// Vouches for longer, unless the session is lost already: a lost session stays lost, even if the answer that would
    /// have saved it arrives afterwards. Returns whether it lives on.
    fn extend(&mut self, until: Instant, now: Instant) -> bool {
        let alive = self.at(now) == SessionState::Alive;
        if alive {
            self.until = until;
        }
        alive
    }
}

impl Pace {
    /// `margin` is at least [`RESOLUTION`], and at most half of `ttl`.
    fn new(ttl: Duration, margin: Duration) -> Self {
        let vouched_for = ttl.saturating_sub(margin);
        Self { vouched_for, pause: (ttl / 3).min(vouched_for / 2), attempt: ttl / 4, retry: ttl / 12 }
    }
}

impl Keeper {
    async fn run(self) {
        let state = tokio::select! {
            biased;
            () = self.cancel.cancelled() => SessionState::Closed,
            () = self.stopping.cancelled() => SessionState::Lost,
            () = self.renew_while_possible() => SessionState::Lost,
        };
        if state == SessionState::Lost {
            tracing::warn!(scope = %self.scope, lease = %self.lease, "session lost");
        }
        self.vouched.send_modify(|vouched| vouched.state = state);
    }

    /// Returns when the lease is lost.
    async fn renew_while_possible(&self) {
        // The lease runs from when it was asked for. If the answer took long, there is less time until the first
        // renewal.
        let left = self.vouched.borrow().until.saturating_duration_since(Instant::now());
        let mut pause = self.pace.pause.saturating_sub(self.pace.vouched_for.saturating_sub(left));
        loop {
            let until = self.vouched.borrow().until;
            if tokio::time::timeout_at(until, tokio::time::sleep(pause)).await.is_err() {
                return;
            }
            let asked = Instant::now();
            let renewal = self.client.commit(Transaction::new(&self.scope).renew_lease(self.lease, self.ttl));
            match tokio::time::timeout_at(until.min(asked + self.pace.attempt), renewal).await {
                Ok(Ok(_)) => {
                    let until = asked + self.pace.vouched_for;
                    if !self.vouched.send_if_modified(|vouched| vouched.extend(until, Instant::now())) {
                        return;
                    }
                    pause = self.pace.pause;
                }
                Ok(Err(Error::LeaseLost { .. } | Error::Closed)) => return,
                Ok(Err(error)) => {
                    tracing::debug!(scope = %self.scope, lease = %self.lease, %error, "renewal failed, trying again");
                    pause = self.retry_pause();
                }
                Err(_) => {
                    tracing::debug!(scope = %self.scope, lease = %self.lease, "no answer to renewal, trying again");
                    pause = self.retry_pause();
                }
            }
        }
    }

    /// Differs from session to session, so that those of a whole fleet do not come back at once.
    fn retry_pause(&self) -> Duration {
        self.pace.retry.mul_f64(0.5 + crate::entropy::fraction())
    }
}

#[cfg(test)]
mod tests;
