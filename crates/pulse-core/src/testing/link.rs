//! The connection between one client and the store: up, paused, cut, or at its end.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// How the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Status {
    pub(super) paused: bool,
    pub(super) partitioned: bool,
    /// Feeds are cut although calls are not.
    pub(super) mute: bool,
    /// How often it was cut, so that a cut shows also to whoever looks only after it was healed.
    pub(super) partitions: u64,
    pub(super) end: Option<End>,
}

impl Status {
    /// Whether feeds hear nothing.
    pub(super) fn is_mute(self) -> bool {
        self.partitioned || self.mute
    }
}

/// How the client ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Killed,
    Closed,
}

/// The connection was cut for longer than a call waits, or its answer was on the way when it was cut.
#[derive(Debug)]
pub(super) struct Cut;

#[derive(Debug, Default)]
pub(super) struct Link {
    status: Mutex<Status>,
    /// Wakes in the order of waiting, unlike a watch channel, which would make runs differ.
    changed: Notify,
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn status(&self) -> Status {
        *self.lock()
    }

    fn change(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.change(|status| status.paused = paused);
    }

    pub(super) fn set_partitioned(&self, partitioned: bool) {
        self.change(|status| {
            if partitioned && !status.partitioned {
                status.partitions += 1;
            }
            status.partitioned = partitioned;
        });
    }

    pub(super) fn set_mute(&self, mute: bool) {
        self.change(|status| {
            if mute && !status.mute {
                status.partitions += 1;
            }
            status.mute = mute;
        });
    }

    /// Ends the client. What is killed can still be closed.
    pub(super) fn end(&self, end: End) {
        self.change(|status| match end {
            End::Killed => {
                status.end.get_or_insert(end);
            }
            End::Closed => status.end = Some(end),
        });
    }

    /// Waits until the status is another than this one.
    pub(super) async fn other_than(&self, seen: Status) -> Status {
        loop {
            // Made before the look, so that no change between the two is missed.
            let changed = self.changed.notified();
            let now = self.status();
            if now != seen {
                return now;
            }
            changed.await;
        }
    }

    /// Waits until the client has ended.
    pub(super) async fn ended(&self) -> End {
        let mut status = self.status();
        loop {
            if let Some(end) = status.end {
                return end;
            }
            status = self.other_than(status).await;
        }
    }

    /// Waits until a request can go out; returns how often the connection was cut until then.
    pub(super) async fn request(&self, patience: Duration) -> Result<u64, Cut> {
        self.up(patience).await.map(|status| status.partitions)
    }

    /// Waits until an answer has come in, to a request that was sent when the connection had been cut so often.
    pub(super) async fn answer(&self, partitions: u64, patience: Duration) -> Result<(), Cut> {
        let status = self.up(patience).await?;
        if status.partitions == partitions { Ok(()) } else { Err(Cut) }
    }

    /// Waits until the connection is up. While it is cut, patience ends; while it is paused, it does not.
    async fn up(&self, patience: Duration) -> Result<Status, Cut> {
        let mut status = self.status();
        let mut give_up = None;
        while status.paused || status.partitioned {
            let change = self.other_than(status);
            status = if status.paused {
                change.await
            } else {
                let deadline = *give_up.get_or_insert_with(|| Instant::now() + patience);
                tokio::time::timeout_at(deadline, change).await.map_err(|_| Cut)?
            };
        }
        Ok(status)
    }
}
