//! Doorbells: how a waiting reader learns of new events without blocking a connection.
//!
//! Each stream has a channel, its doorbell. Whoever appends rings; whoever waits listens through the one connection for
//! feeds, reads once more when everybody who rings is certainly heard, and then waits for a ring. A ring says nothing but
//! "look again". However many readers wait, they cost no connection and nothing on the server.
//!
//! Rings of one stream are gathered: while one is on its way, the next ones become one that follows it.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::Poll,
};

use bytes::Bytes;
use tokio::sync::{Notify, futures::Notified, watch};
use tokio_util::task::TaskTracker;

use super::{errors::Ask, feeds::Hub, link::Link};

/// The doorbell of one stream, as its listeners hold it.
#[derive(Debug)]
pub(super) struct Bell {
    rung: Notify,
    /// Whether the subscription stands.
    standing: watch::Sender<bool>,
}

impl Bell {
    /// The next ring. Enable it before reading what it may announce.
    pub(super) fn ring(&self) -> Notified<'_> {
        self.rung.notified()
    }

    /// Waits until rings can be heard.
    pub(super) async fn stands(&self) {
        // The sender is `self`, so it cannot be gone.
        let _ = self.standing.subscribe().wait_for(|standing| *standing).await;
    }

    pub(super) fn hear(&self) {
        self.rung.notify_waiters();
    }

    /// Called when the subscription stands, and when it falls. Both are reasons to look: rings may have been missed.
    pub(super) fn set_standing(&self, standing: bool) {
        self.standing.send_replace(standing);
        self.rung.notify_waiters();
    }
}

/// All doorbells that this client rings or listens to.
#[derive(Debug)]
pub(super) struct Bells {
    link: Arc<Link>,
    hub: Hub,
    tasks: TaskTracker,
    /// The rings on their way, and whether one more has to follow.
    ringing: Arc<Mutex<HashMap<Bytes, bool>>>,
}

impl Bells {
    pub(super) fn new(link: Arc<Link>, hub: Hub, tasks: TaskTracker) -> Self {
        Self { link, hub, tasks, ringing: Arc::default() }
    }

    /// The doorbell, if somebody listens to it already.
    pub(super) fn existing(&self, channel: &Bytes) -> Option<Arc<Bell>> {
        self.hub.bells().get(channel).cloned()
    }

    /// The doorbell; it begins to stand if it did not yet.
    pub(super) fn at(&self, channel: &Bytes) -> Arc<Bell> {
        let mut bells = self.hub.bells();
        if let Some(bell) = bells.get(channel) {
            return bell.clone();
        }
        let bell = Arc::new(Bell { rung: Notify::new(), standing: watch::Sender::new(false) });
        bells.insert(channel.clone(), bell.clone());
        self.hub.hang(channel.clone(), bell.clone());
        bell
    }

    /// Sends an append, and a ring behind it without waiting for its answer. `attempts` counts how often the append
    /// was handed to the connection.
    pub(super) async fn ring_behind<T, E>(
        &self,
        channel: Bytes,
        attempts: &AtomicU32,
        append: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut append = pin!(append);
        let at_once = std::future::poll_fn(|cx| Poll::Ready(append.as_mut().poll(cx))).await;
        if let Poll::Ready(answer) = at_once {
            self.ring(channel);
            return answer;
        }
        let sent = attempts.load(Ordering::Relaxed) > 0;
        if sent {
            self.ring(channel.clone());
        }
        let answer = append.await;
        if !sent || attempts.load(Ordering::Relaxed) > 1 {
            self.ring(channel);
        }
        answer
    }

    /// Rings, behind every command that was sent before.
    pub(super) fn ring(&self, channel: Bytes) {
        match lock(&self.ringing).entry(channel.clone()) {
            Entry::Occupied(mut again) => {
                again.insert(true);
                return;
            }
            Entry::Vacant(none) => none.insert(false),
        };
        let ringer = Ringer { link: self.link.clone(), ringing: self.ringing.clone(), channel };
        self.tasks.spawn(ringer.run());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rings one doorbell until nobody asks for another ring.
struct Ringer {
    link: Arc<Link>,
    ringing: Arc<Mutex<HashMap<Bytes, bool>>>,
    channel: Bytes,
}

impl Ringer {
    async fn run(self) {
        loop {
            let ask = Ask::new("ring", &"a doorbell");
            // A lost ring costs readers time, not events.
            if let Err(error) = self.link.publish(ask, &self.channel).await {
                tracing::debug!(%error, "ringing a doorbell failed");
            }
            let mut ringing = lock(&self.ringing);
            match ringing.get_mut(&self.channel) {
                Some(again) if *again => *again = false,
                _ => {
                    ringing.remove(&self.channel);
                    return;
                }
            }
        }
    }
}
