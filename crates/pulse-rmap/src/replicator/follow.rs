//! Following the feed while it is whole.

use pulse_core::{FeedItem, GapCause};

use super::{
    Cause, ClientClosed, Replicator, Subscription,
    checkup::{Checkup, Verdict},
};
use crate::{
    replica::Broken,
    shared::{Delta, Link},
};

/// How many commits are applied at most before readers see them.
const BATCH: usize = 256;
/// How many commits that wait in the feed are applied at most when the map is closed.
const LAST: usize = 16 * BATCH;

impl<V: Send + Sync + 'static> Replicator<V> {
    /// Applies commits until the map must be read again.
    pub(super) async fn follow(&mut self) -> Result<Cause, ClientClosed> {
        let mut checkup = Checkup::new(&self.backend, &self.map, &self.shared);
        loop {
            tokio::select! {
                // The comparison, which comes every few seconds, first: a feed that is never empty must not starve it.
                biased;
                verdict = checkup.verdict() => match verdict {
                    Verdict::Well => self.shared.mark_synced(),
                    Verdict::Wait => {}
                    Verdict::Diverged { server } => {
                        return Ok(Cause::Diverged { at: self.replica.version(), server });
                    }
                    Verdict::Silent(pulse_core::Error::Closed) => return Err(ClientClosed),
                    Verdict::Silent(error) => {
                        // Said aloud once; an outage may last, and it asks every second.
                        if self.shared.link() == Link::Synced {
                            tracing::warn!(map = %self.map, %error, "cannot compare the map with the backend");
                        } else {
                            tracing::debug!(map = %self.map, %error, "still cannot compare the map with the backend");
                        }
                        self.shared.mark_behind();
                    }
                },
                item = self.feed.next() => {
                    if let Err(cause) = self.take_batch(item) {
                        return Ok(cause);
                    }
                    // A feed that is never empty must not keep other tasks from running.
                    tokio::task::consume_budget().await;
                }
            }
        }
    }

    /// Applies an item and those that already wait behind it, and publishes once.
    fn take_batch(&mut self, item: Option<FeedItem>) -> Result<(), Cause> {
        let mut taken = self.take(item);
        for _ in 1..BATCH {
            if taken.is_err() {
                break;
            }
            let Some(item) = self.feed.try_next() else { break };
            taken = self.take(Some(item));
        }
        self.publish_steps();
        taken
    }

    fn take(&mut self, item: Option<FeedItem>) -> Result<(), Cause> {
        match note(&mut self.subscription, item) {
            Noted::Commit(commit) => self.replica.commit(commit).map_err(Cause::Broken),
            Noted::Interruption(cause) => Err(cause),
        }
    }

    fn publish_steps(&mut self) {
        let changes = self.replica.take_changes();
        if !changes.is_empty() || self.replica.version() != self.shared.version() {
            self.shared.publish(self.replica.view(), Delta::Steps(changes));
        }
    }

    /// Applies what has arrived already, as far as it continues.
    pub(super) fn drain(&mut self) {
        for _ in 0..LAST {
            let Some(FeedItem::Commit(commit)) = self.feed.try_next() else { break };
            if self.replica.commit(commit).is_err() {
                break;
            }
        }
        self.publish_steps();
    }
}

/// An item of a feed, after what it says of the connection was noted.
pub(super) enum Noted {
    Commit(pulse_core::MapCommit),
    Interruption(Cause),
}

pub(super) fn note(subscription: &mut Subscription, item: Option<FeedItem>) -> Noted {
    match item {
        Some(FeedItem::Commit(commit)) => Noted::Commit(commit),
        Some(FeedItem::Gap(cause)) => {
            match cause {
                GapCause::Disconnected => *subscription = Subscription::Broken,
                GapCause::Resubscribed => *subscription = Subscription::Stands,
                _ => {}
            }
            Noted::Interruption(Cause::Gap(cause))
        }
        Some(_) => Noted::Interruption(Cause::Broken(Broken::Unknown)),
        None => {
            *subscription = Subscription::Ended;
            Noted::Interruption(Cause::FeedEnded)
        }
    }
}
