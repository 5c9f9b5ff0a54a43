//! The end of the whole pool: a mark among the workers, bound to the lease of whoever set it, tells every node to stop
//! its jobs and to go. When nobody is left but the mark and the node that set it, everything is removed.

use tokio::time::{Instant, timeout};

use super::{Reply, Runner, TaskEnded, membership::until, step, workers::WorkerState};
use crate::{
    WorkerId,
    tables::{self, Refusal},
    write::{Written, write},
};

/// How a node takes part in a shutdown of its pool.
#[derive(Debug, Default)]
pub(super) struct Shutdown {
    /// The mark was seen.
    pub(super) begun: bool,
    /// Those who asked for it here.
    replies: Vec<Reply<()>>,
    /// The mark is being set.
    marking: bool,
    /// The mark is ours.
    is_ours: bool,
    /// The removal is under way.
    removing: bool,
    /// Everything is removed.
    pub(super) removed: bool,
    /// When to stop waiting for handlers.
    pub(super) deadline: Option<Instant>,
}

impl Shutdown {
    /// Whether this node has nothing more to do for it.
    pub(super) fn is_over(&self) -> bool {
        !self.marking && (!self.is_ours || self.removed)
    }
}

impl Runner {
    pub(super) fn on_shutdown_asked(&mut self, reply: Reply<()>) {
        self.shutdown.replies.push(reply);
        self.mark_shutdown();
    }

    /// Sets the mark, if somebody asked for it and the node has a lease.
    pub(super) fn mark_shutdown(&mut self) {
        let asked = !self.shutdown.replies.is_empty() && !self.shutdown.begun && !self.shutdown.marking;
        let Some(lease) = self.lease.as_ref().filter(|_| asked) else { return };
        let mark = match self.pool.tables.mark(self.pool.node) {
            Ok(mark) => mark,
            Err(source) => {
                let error = self.pool.replica(source);
                // Whoever asked may not wait for the answer any more.
                self.shutdown.replies.drain(..).for_each(|reply| drop(reply.send(Err(error.clone()))));
                return;
            }
        };
        let change = self.pool.tables.begin_shutdown(mark.clone(), lease.session.lease());
        let (client, lost) = (self.pool.tables.client().clone(), lease.lost.clone());
        self.shutdown.marking = true;
        self.tasks.spawn(async move {
            match until(&lost, write(&client, &change, None, None)).await {
                Some(Ok(Written::Done(_))) => TaskEnded::Marked { is_ours: true },
                // Its answer was lost, or somebody else set it.
                Some(Ok(Written::RefusedAfterUnknown(Refusal::ShuttingDown(found)))) => {
                    TaskEnded::Marked { is_ours: found == Some(mark) }
                }
                Some(Err(error)) => {
                    tracing::error!(%error, "cannot shut the pool down, trying again later");
                    step::pause_after_failure(&lost).await;
                    TaskEnded::Marked { is_ours: false }
                }
                // Somebody else set it, or the lease is lost, and the mark with it.
                Some(Ok(_)) | None => TaskEnded::Marked { is_ours: false },
            }
        });
    }

    pub(super) fn on_marked(&mut self, is_ours: bool) {
        self.shutdown.marking = false;
        self.shutdown.is_ours |= is_ours;
        if is_ours || self.pool.tables.is_marked() {
            self.begin_shutdown();
        } else {
            // Somebody else's mark came and went, or ours could not be set.
            self.mark_shutdown();
        }
        self.on_members_changed();
    }

    /// Begins to go. Everything here stops when it is looked at next.
    pub(super) fn begin_shutdown(&mut self) {
        if std::mem::replace(&mut self.shutdown.begun, true) {
            return;
        }
        tracing::info!(pool = %self.pool.name, node = %self.pool.node, "the pool is shut down");
        self.closing = true;
        self.pool.shut.store(true, std::sync::atomic::Ordering::Relaxed);
        self.shutdown.deadline = Some(Instant::now() + self.pool.options.shutdown_timeout);
        self.workers.ask_all_to_leave();
    }

    /// Takes workers out of the pool that have nothing in hand any more, whatever records name them.
    pub(super) fn let_idle_workers_leave(&mut self) {
        for worker in self.workers.ids(|state| state == WorkerState::Joining) {
            self.workers.left(worker);
        }
        for worker in self.workers.ids(|state| state != WorkerState::Leaving) {
            if !self.jobs.any_of(worker) {
                self.workers.leave(worker);
                self.unregister(worker);
            }
        }
    }

    /// Takes a worker out of the pool.
    pub(super) fn unregister(&mut self, worker: WorkerId) {
        let Some(lease) = &self.lease else { return };
        let change = self.pool.tables.unregister(worker);
        let (pool, lost) = (self.pool.clone(), lease.lost.clone());
        self.tasks.spawn(async move {
            let written = until(&lost, write(pool.tables.client(), &change, None, None)).await;
            if let Some(Ok(_)) = written {
                // Whoever removes it is not to find it here after that. If the replica is slow, that is no reason to
                // hold up those who wait.
                let mut members = pool.members.subscribe();
                let is_gone = members.wait_for(|members| members.get(worker).is_none());
                let _ = timeout(step::AFTER_FAILURE, until(&lost, is_gone)).await;
            }
            // On an error its entry stays until the lease ends, and draws no jobs.
            written.map_or(TaskEnded::Nothing, |_| TaskEnded::Unregistered(worker))
        });
    }

    /// Removes the pool, if the mark is ours and no worker is left.
    pub(super) fn remove_if_alone(&mut self) {
        let alone = self.workers.is_empty() && self.jobs.is_empty() && self.pool.tables.is_alone(self.pool.node);
        if !(self.shutdown.is_ours && alone) || self.shutdown.removing || self.shutdown.removed {
            return;
        }
        let Some(lease) = &self.lease else { return };
        self.shutdown.removing = true;
        let change = tables::end_shutdown(self.pool.tables.scope());
        let (client, lost) = (self.pool.tables.client().clone(), lease.lost.clone());
        self.tasks.spawn(async move {
            match until(&lost, write(&client, &change, None, None)).await {
                // Refused after an unknown outcome: the mark is gone, and with it everything.
                Some(Ok(Written::Done(_) | Written::RefusedAfterUnknown(_))) => TaskEnded::Removed(true),
                Some(Ok(Written::Refused(_)) | Err(_)) => TaskEnded::Removed(false),
                None => TaskEnded::Nothing,
            }
        });
    }

    pub(super) fn on_removed(&mut self, removed: bool) {
        // If not, it is tried again when the workers change, and at every look at everything.
        self.shutdown.removing = false;
        self.shutdown.removed |= removed;
    }

    /// Tells those who asked how it ended. `orderly`: nothing is left here.
    pub(super) fn tell_shut_down(&mut self, orderly: bool) {
        let shutdown = &mut self.shutdown;
        let done = shutdown.begun && orderly;
        for reply in shutdown.replies.drain(..) {
            let outcome = if done { Ok(()) } else { Err(self.pool.timed_out("shut down")) };
            // Whoever asked may not wait for the answer any more.
            let _ = reply.send(outcome);
        }
    }
}
