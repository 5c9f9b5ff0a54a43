//! Keeps scopes swept: one task for each scope that somebody in the process cares about.
//!
//! A task sweeps when the next known deadline passes. Deadlines that other processes set are learnt from the sweeps
//! themselves, at the latest after [`IDLE`]; the processes that share a scope do not coordinate, they only jitter, so
//! that one of them does the work and the others find it done.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{Backend, Binding, Deadline, Error, Scope, Swept, Transaction, Write, client::Background, meter};

/// The longest time between two sweeps of a scope.
const IDLE: Duration = Duration::from_secs(5);
/// The most that a sweep is late on purpose.
const JITTER: Duration = Duration::from_millis(50);
/// How long to wait after a sweep that failed, on average.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps a scope swept while it lives; see [`Client::keep_swept`](crate::Client::keep_swept).
#[derive(Debug, Clone)]
pub struct SweepGuard {
    _sweep: Arc<Sweep>,
}

/// What the guards of one scope share. Dropping it ends the task.
#[derive(Debug)]
struct Sweep {
    sooner: Arc<Sooner>,
    cancel: CancellationToken,
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Tells a sleeping task of a deadline that comes before the one that it sleeps for.
#[derive(Debug, Default)]
struct Sooner {
    deadline: Mutex<Option<Instant>>,
    told: Notify,
}

impl Sooner {
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, deadline: Instant) {
        let mut known = self.lock();
        if known.is_none_or(|known| deadline < known) {
            *known = Some(deadline);
            self.told.notify_one();
        }
    }
}

/// The scopes that a client keeps swept.
#[derive(Debug, Default)]
pub(crate) struct Sweepers {
    scopes: Mutex<HashMap<Scope, Weak<Sweep>>>,
}

impl Sweepers {
    fn lock(&self) -> MutexGuard<'_, HashMap<Scope, Weak<Sweep>>> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn guard(&self, backend: &Arc<dyn Backend>, background: &Background, scope: &Scope) -> SweepGuard {
        let mut scopes = self.lock();
        if let Some(sweep) = scopes.get(scope).and_then(Weak::upgrade) {
            return SweepGuard { _sweep: sweep };
        }
        scopes.retain(|_, sweep| sweep.strong_count() > 0);
        let sweep = Arc::new(Sweep { sooner: Arc::default(), cancel: background.stopping() });
        let task = SweepTask {
            backend: backend.clone(),
            scope: scope.clone(),
            sooner: sweep.sooner.clone(),
            cancel: sweep.cancel.clone(),
        };
        background.spawn(task.run());
        scopes.insert(scope.clone(), Arc::downgrade(&sweep));
        SweepGuard { _sweep: sweep }
    }

    /// Learns the deadlines that a transaction of this process set.
    pub(crate) fn learn(&self, scope: &Scope, deadline: Duration) {
        if let Some(sweep) = self.lock().get(scope).and_then(Weak::upgrade) {
            sweep.sooner.tell(Instant::now() + deadline);
        }
    }
}

/// The soonest deadline that a transaction sets.
pub(crate) fn soonest_deadline(transaction: &Transaction) -> Option<Duration> {
    let deadline = |write: &Write| match write {
        Write::Put { binding: Binding::Ttl(ttl), .. }
        | Write::Add { binding: Binding::Ttl(ttl), .. }
        | Write::ExpireMap { deadline: Deadline::IfUnset(ttl) | Deadline::Renew(ttl), .. }
        | Write::GrantLease { ttl, .. }
        // It may be shorter than what stood before.
        | Write::RenewLease { ttl, .. } => Some(*ttl),
        _ => None,
    };
    transaction.writes().iter().filter_map(deadline).min()
}

/// Sweeps one scope.
struct SweepTask {
    backend: Arc<dyn Backend>,
    scope: Scope,
    /// Filled by commits of this process.
    sooner: Arc<Sooner>,
    /// Cancelled with the last guard, or with the client.
    cancel: CancellationToken,
}

impl SweepTask {
    async fn run(self) {
        let cancel = self.cancel.clone();
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = self.sweep_for_ever() => {}
        }
    }

    /// Returns when the backend is closed.
    async fn sweep_for_ever(&self) {
        let mut denied_before = false;
        loop {
            match self.backend.sweep(&self.scope).await {
                Ok(swept) => {
                    if did_something(&swept) {
                        meter::swept(swept.entries);
                        let (entries, leases) = (swept.entries, swept.leases.len());
                        tracing::debug!(scope = %self.scope, entries, leases, "swept");
                    }
                    self.pause_after(&swept).await;
                }
                Err(Error::Closed) => return,
                // As for users who only read, where others sweep. A grant is found out soon enough.
                Err(error @ Error::Denied { .. }) => {
                    if !denied_before {
                        tracing::warn!(scope = %self.scope, %error, "what ends here is left for other clients to remove");
                    }
                    denied_before = true;
                    tokio::time::sleep(IDLE.mul_f64(0.5 + crate::entropy::fraction())).await;
                }
                Err(error) => {
                    tracing::debug!(scope = %self.scope, %error, "sweep failed, trying again");
                    tokio::time::sleep(RETRY.mul_f64(0.5 + crate::entropy::fraction())).await;
                }
            }
        }
    }

    async fn pause_after(&self, swept: &Swept) {
        let next = swept.next_deadline.unwrap_or(IDLE).min(IDLE);
        if next.is_zero() && did_something(swept) {
            // A backlog: go on at once, but let others run too.
            tokio::task::yield_now().await;
        } else {
            let jitter = JITTER.mul_f64(crate::entropy::fraction());
            self.sleep_until(Instant::now() + next + jitter).await;
        }
    }

    /// Sleeps until then, or until a sooner deadline that is told meanwhile.
    async fn sleep_until(&self, mut wake: Instant) {
        loop {
            if let Some(sooner) = self.sooner.lock().take() {
                wake = wake.min(sooner);
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(wake) => return,
                () = self.sooner.told.notified() => {}
            }
        }
    }
}

fn did_something(swept: &Swept) -> bool {
    swept.entries > 0 || !swept.leases.is_empty()
}

#[cfg(test)]
mod tests;
