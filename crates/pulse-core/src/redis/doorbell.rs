//! Doorbells: how a waiting reader learns of new events without blocking a connection.
//!
//! Each stream has a channel, its doorbell. Whoever appends rings; whoever waits listens through the one connection for
//! feeds, reads once more when everybody who rings is certainly heard, and then waits for a ring. A ring says nothing
//! but "look again". However many readers wait, they cost no connection and nothing on the server.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Once,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use tokio::{
    runtime::Handle,
    sync::{Notify, futures::Notified, watch},
};
use tokio_util::task::TaskTracker;

use super::{
    errors::{Ask, Refusal},
    feeds::Hub,
    link::{Answer, Link},
    permissions::warn_of_denied,
};

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
    /// Whether it was told that the user may not ring.
    denied: Arc<Once>,
}

impl Bells {
    pub(super) fn new(link: Arc<Link>, hub: Hub, tasks: TaskTracker) -> Self {
        Self { link, hub, tasks, denied: Arc::new(Once::new()) }
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
    ///
    /// Both are handed over before anything else runs, so that they travel, and mostly are answered, as one.
    pub(super) async fn ring_behind<T, E>(
        &self,
        channel: Bytes,
        attempts: &AtomicU32,
        append: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut append = pin!(append);
        let mut ring: Option<Ring> = None;
        let answer = poll_fn(|cx| {
            let answer = append.as_mut().poll(cx);
            if ring.is_none() && attempts.load(Ordering::Relaxed) > 0 {
                ring = Some(self.ring(channel.clone()));
            }
            if let Some(ring) = &mut ring {
                // Nobody waits for it.
                let _ = Pin::new(ring).poll(cx);
            }
            answer
        })
        .await;
        if attempts.load(Ordering::Relaxed) > 1 {
            drop(self.ring(channel));
        }
        answer
    }

    /// Rings, behind every command that was sent before. It goes on if it is dropped.
    pub(super) fn ring(&self, channel: Bytes) -> Ring {
        let (link, denied) = (self.link.clone(), self.denied.clone());
        let publish = async move {
            // A lost ring costs readers time, not events.
            match link.publish(Ask::new("ring", &"a doorbell"), &channel).await {
                Ok(Answer::Refused(Refusal::Denied, words)) => denied.call_once(|| warn_of_denied(&channel, &words)),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "ringing a doorbell failed"),
            }
        };
        Ring { publish: Some(publish.boxed()), tasks: self.tasks.clone(), runtime: Handle::current() }
    }
}

/// A ring under way.
pub(super) struct Ring {
    /// `None` once it has ended.
    publish: Option<BoxFuture<'static, ()>>,
    tasks: TaskTracker,
    runtime: Handle,
}

impl Future for Ring {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(publish) = &mut self.publish {
            ready!(publish.as_mut().poll(cx));
            self.publish = None;
        }
        Poll::Ready(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Some(publish) = self.publish.take() {
            self.tasks.spawn_on(publish, &self.runtime);
        }
    }
}
