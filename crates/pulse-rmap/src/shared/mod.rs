//! What the task publishes and everybody else reads: the current snapshot, the subscribers, the state of the link.

mod signal;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use pulse_core::Version;
use tokio::time::Instant;

use self::signal::Signal;
pub(crate) use self::signal::Watcher;
use crate::{
    Changes, Snapshot,
    change::{Update, difference},
    meter::Meter,
    snapshot::View,
    subscribers::{Batch, Buffer, Pushed},
};

/// One for each joined map.
pub(crate) struct Shared<V> {
    /// Read without a lock.
    view: ArcSwap<View<V>>,
    /// Locked while a view is published, so that a subscriber and its first snapshot fit together.
    subscribers: Mutex<Vec<Weak<Buffer<V>>>>,
    status: Signal<Status>,
    meter: Meter,
}

/// What there is to wait for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Status {
    /// Counts the published views.
    pub(crate) published: u64,
    pub(crate) link: Link,
}

/// How the replica stands to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// It has every commit that the backend announced.
    Synced,
    /// It may have missed something since then.
    Behind(Instant),
    /// The map was closed or dropped, or its client was.
    Closed,
}

/// What a published view differs in from the one before.
pub(crate) enum Delta<V> {
    /// In these changes, step by step.
    Steps(Vec<Update<V>>),
    /// To be found out by comparing, if anybody wants to know.
    Compare,
}

impl<V> Shared<V> {
    pub(crate) fn new(view: View<V>, meter: Meter) -> Self {
        Self {
            view: ArcSwap::from_pointee(view),
            subscribers: Mutex::default(),
            status: Signal::new(Status { published: 0, link: Link::Synced }),
            meter,
        }
    }

    pub(crate) fn view(&self) -> Guard<Arc<View<V>>> {
        self.view.load()
    }

    pub(crate) fn snapshot(&self) -> Snapshot<V> {
        self.view.load_full().into()
    }

    pub(crate) fn version(&self) -> Option<Version> {
        self.view.load().version
    }

    pub(crate) fn link(&self) -> Link {
        self.status.get().link
    }

    pub(crate) fn staleness(&self) -> Option<Duration> {
        match self.link() {
            Link::Behind(since) => Some(since.elapsed()),
            Link::Synced | Link::Closed => None,
        }
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    pub(crate) fn watch(&self) -> Watcher<Status> {
        self.status.watch()
    }

    pub(crate) fn mark_synced(&self) {
        self.status.change(|status| {
            let behind = matches!(status.link, Link::Behind(_));
            if behind {
                status.link = Link::Synced;
            }
            behind
        });
    }

    /// Keeps the moment since when, if it is behind already.
    pub(crate) fn mark_behind(&self) {
        self.status.change(|status| {
            let synced = status.link == Link::Synced;
            if synced {
                status.link = Link::Behind(Instant::now());
            }
            synced
        });
    }

    /// Ends the subscriptions and all waiting. The content stays.
    pub(crate) fn close(&self) {
        let mut registered = self.lock();
        self.status.change(|status| {
            status.link = Link::Closed;
            true
        });
        let subscribers = alive(&mut registered);
        drop(registered);
        subscribers.iter().for_each(|subscriber| subscriber.end());
    }

    fn push(&self, subscribers: &[Arc<Buffer<V>>], batch: &Arc<Batch<V>>) {
        for subscriber in subscribers {
            if subscriber.push(batch) == Pushed::BacklogDropped {
                self.meter.lag();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Buffer<V>>>> {
        // Nothing panics while holding the lock, and the list is consistent after every statement.
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: 'static> Shared<V> {
    /// The snapshot that the changes begin after, and the changes.
    pub(crate) fn subscribe(&self, capacity: usize) -> (Snapshot<V>, Changes<V>) {
        let buffer = Buffer::new(capacity);
        let mut registered = self.lock();
        registered.retain(|subscriber| subscriber.strong_count() > 0);
        registered.push(Arc::downgrade(&buffer));
        let snapshot = self.snapshot();
        // Asked under the lock, because closing takes it as well: the buffer is ended either there or here.
        if self.link() == Link::Closed {
            buffer.end();
        }
        (snapshot, Changes::new(buffer))
    }

    /// Lets readers see a view, and subscribers what changed.
    pub(crate) fn publish(&self, view: View<V>, delta: Delta<V>) {
        if let Delta::Steps(changes) = &delta {
            self.meter.changes(changes.iter().filter(|update| matches!(update, Update::Change(_))).count());
        }
        let view = Arc::new(view);
        let mut registered = self.lock();
        let before = Snapshot::from(self.view.swap(Arc::clone(&view)));
        let subscribers = alive(&mut registered);
        // Whoever subscribes from here on begins with the new view. Nothing below needs the lock: only one task
        // publishes.
        drop(registered);
        if !subscribers.is_empty() {
            let after = Snapshot::from(view);
            let changes = match delta {
                Delta::Steps(changes) => changes,
                Delta::Compare => difference(&before, &after),
            };
            if !changes.is_empty() {
                self.push(&subscribers, &Arc::new(Batch { before, after, changes }));
            }
        }
        self.status.change(|status| {
            status.published += 1;
            true
        });
    }
}

/// Those that still listen; forgets the others.
fn alive<V>(registered: &mut Vec<Weak<Buffer<V>>>) -> Vec<Arc<Buffer<V>>> {
    registered.retain(|subscriber| subscriber.strong_count() > 0);
    registered.iter().filter_map(Weak::upgrade).collect()
}

#[cfg(test)]
mod tests;
