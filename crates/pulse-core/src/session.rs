//! Sessions: a lease that is kept alive, and the certainty of knowing when it is not.
//!
//! A [`Session`] renews its lease at a third of the lifetime. It considers itself lost as soon as the backend says so
//! *or* its own monotonic clock says that the lease may run out within the margin, whichever comes first. The clock
//! starts before the request that grants or renews is sent, so the session ends here before it can end at the backend:
//! whoever stops its work when the session is lost has stopped before anybody else may take the work over.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{Client, Error, LeaseId, Scope, Transaction};

/// Whether a session still holds its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionState {
    /// The lease is certainly alive.
    Alive,
    /// The lease has expired, was dropped, or can no longer be vouched for. A lost session stays lost.
    Lost,
    /// [`Session::close`] ended it.
    Closed,
}

/// A lease that is renewed until the session is closed or dropped.
///
/// Dropping a session stops the renewals and lets the lease run out; [`Session::close`] drops the lease at once.
///
/// ```
/// # use pulse_core::{Binding, Scope, Session, Transaction};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), pulse_core::Error> {
/// use std::time::Duration;
/// let client = pulse_core::connect("memory:").await?;
/// let scope = Scope::new("services")?;
/// let session = Session::open(&client, &scope, Duration::from_secs(10)).await?;
/// let entry = Transaction::new(&scope).put_bound("up", "api-1", "10.0.0.7", Binding::Lease(session.lease()));
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

/// Renews the lease of a session.
struct Keeper {
    client: Client,
    scope: Scope,
    lease: LeaseId,
    ttl: Duration,
    margin: Duration,
    /// Read by the session and whoever waits for its end.
    vouched: Arc<watch::Sender<Vouched>>,
    /// Cancelled when the session is closed or dropped.
    cancel: CancellationToken,
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
    /// the time that its owner has for stopping its work.
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
        if margin > ttl / 2 {
            return Err(Error::InvalidRequest {
                subject: format!("session in {scope}"),
                reason: format!("the margin of {margin:?} is more than half of the lifetime of {ttl:?}"),
            });
        }
        let lease = LeaseId::random();
        let asked = Instant::now();
        client.commit(Transaction::new(scope).grant_lease(lease, ttl)).await?;
        let (vouched, receiver) = watch::channel(Vouched { until: asked + ttl - margin, state: SessionState::Alive });
        let cancel = CancellationToken::new();
        let keeper = Keeper {
            client: client.clone(),
            scope: scope.clone(),
            lease,
            ttl,
            margin,
            vouched: Arc::new(vouched),
            cancel: cancel.clone(),
        };
        Ok(Self {
            client: client.clone(),
            scope: scope.clone(),
            lease,
            ttl,
            vouched: receiver,
            cancel,
            keeper: Some(tokio::spawn(keeper.run())),
        })
    }

    /// The lease, to bind entries to.
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
    /// because it compares clocks and does not wait for a task to notice.
    #[must_use]
    pub fn state(&self) -> SessionState {
        state_now(*self.vouched.borrow())
    }

    /// Waits until the session is lost or closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn ended(&self) -> SessionState {
        let mut vouched = self.vouched.clone();
        loop {
            let now = *vouched.borrow_and_update();
            if state_now(now) != SessionState::Alive {
                return state_now(now);
            }
            tokio::select! {
                changed = vouched.changed() => {
                    if changed.is_err() && state_now(*vouched.borrow()) == SessionState::Alive {
                        // The keeper is gone without a word, which only a runtime that shuts down can do.
                        return SessionState::Lost;
                    }
                }
                () = tokio::time::sleep_until(now.until) => {}
            }
        }
    }

    /// Ends the session: drops its lease, and with it every entry that is bound to it.
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

fn state_now(vouched: Vouched) -> SessionState {
    if vouched.state == SessionState::Alive && Instant::now() >= vouched.until {
        return SessionState::Lost;
    }
    vouched.state
}

impl Keeper {
    async fn run(self) {
        let cancel = self.cancel.clone();
        let state = tokio::select! {
            () = cancel.cancelled() => SessionState::Closed,
            () = self.renew_while_possible() => SessionState::Lost,
        };
        if state == SessionState::Lost {
            tracing::warn!(scope = %self.scope, lease = %self.lease, "session lost");
        }
        self.vouched.send_modify(|vouched| vouched.state = state);
    }

    /// Returns when the lease is lost.
    async fn renew_while_possible(&self) {
        let mut pause = self.ttl / 3;
        loop {
            let until = self.vouched.borrow().until;
            if tokio::time::timeout_at(until, tokio::time::sleep(pause)).await.is_err() {
                return;
            }
            let asked = Instant::now();
            let renewal = self.client.commit(Transaction::new(&self.scope).renew_lease(self.lease, self.ttl));
            match tokio::time::timeout_at(until, renewal).await {
                Ok(Ok(_)) => {
                    let until = asked + self.ttl - self.margin;
                    self.vouched.send_modify(|vouched| vouched.until = until);
                    pause = self.ttl / 3;
                }
                Ok(Err(Error::LeaseLost { .. })) | Err(_) => return,
                Ok(Err(error)) => {
                    tracing::debug!(scope = %self.scope, lease = %self.lease, %error, "renewal failed, trying again");
                    pause = self.ttl / 12;
                }
            }
        }
    }
}
