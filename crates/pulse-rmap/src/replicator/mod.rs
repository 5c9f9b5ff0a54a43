//! The task that keeps a replica in step with its map.
//!
//! It fetches, waits and publishes; what a commit or a page means is decided by the [state machine](crate::replica).
//! It heals by itself whatever happens to the link, for ever, and ends when the map is closed or dropped or its client
//! is closed.

mod backoff;
mod cause;
mod checkup;
mod follow;
mod sync;

use std::sync::Arc;

use pulse_core::{Backend, Client, MapFeed, MapId, SweepGuard, entropy};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::{backoff::Backoff, cause::Cause, sync::Interrupted};
use crate::{Error, codec::Codec, meter::Meter, replica::Replica, shared::Shared};

/// How often joining tries to read a map that does not hold still.
const JOIN_ATTEMPTS: u32 = 8;

/// Keeps one replica in step.
pub(crate) struct Replicator<V> {
    backend: Arc<dyn Backend>,
    map: MapId,
    feed: MapFeed,
    /// What the feed last said of its connection.
    subscription: Subscription,
    replica: Replica<V>,
    /// Read by the handles of the map, its subscribers and whoever waits.
    shared: Arc<Shared<V>>,
    /// Paces attempts to resync.
    backoff: Backoff,
    /// Cancelled when the map is closed or its last handle is dropped.
    cancel: CancellationToken,
    /// Lets what expires in the map's scope be noticed.
    _sweep: SweepGuard,
}

/// Whether a feed can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subscription {
    /// As far as it knows.
    Stands,
    /// Not until it says that it stands again.
    Broken,
    /// It ended, and another one is needed.
    Ended,
}

/// The client was closed; there is nothing left to follow.
struct ClientClosed;

impl<V: Send + Sync + 'static> Replicator<V> {
    /// Subscribes and reads the map for the first time.
    pub(crate) async fn start(client: &Client, map: MapId, codec: Codec<V>) -> Result<Self, Error> {
        let backend = Arc::clone(client.backend());
        let feed = backend.map_feed(&map).await;
        let feed = feed.map_err(|source| Error::Map { map: map.to_string(), source: Box::new(source) })?;
        let replica = Replica::new(map.clone(), codec);
        let mut this = Self {
            backend,
            feed,
            subscription: Subscription::Stands,
            shared: Arc::new(Shared::new(replica.view(), Meter::new(&map))),
            replica,
            backoff: Backoff::default(),
            cancel: CancellationToken::new(),
            _sweep: client.keep_swept(map.scope()),
            map,
        };
        this.read_first().await?;
        Ok(this)
    }

    pub(crate) fn shared(&self) -> Arc<Shared<V>> {
        Arc::clone(&self.shared)
    }

    pub(crate) fn cancel(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Follows the map until it is closed or dropped, or its client is closed.
    pub(crate) async fn run(mut self) {
        let cancel = self.cancel.clone();
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            ClientClosed = self.replicate() => tracing::debug!(map = %self.map, "the client was closed"),
        }
        self.drain();
    }

    async fn replicate(&mut self) -> ClientClosed {
        loop {
            let healed = match self.follow().await {
                Ok(cause) => self.heal(cause).await,
                Err(closed) => return closed,
            };
            if let Err(closed) = healed {
                return closed;
            }
        }
    }

    /// Resyncs until it works.
    async fn heal(&mut self, cause: Cause) -> Result<(), ClientClosed> {
        self.shared.mark_behind();
        self.shared.meter().resync(cause.label());
        tracing::info!(map = %self.map, %cause, "reading the map again");
        let mut failures = 0_u64;
        loop {
            let delay = self.backoff.delay(Instant::now(), entropy::fraction());
            self.pause(delay).await;
            match self.sync().await {
                Ok(()) => {
                    self.shared.mark_synced();
                    return Ok(());
                }
                Err(Interrupted::Backend(pulse_core::Error::Closed)) => return Err(ClientClosed),
                // Said aloud once; an outage may last, and tries go on until it ends.
                Err(interrupted) if failures == 0 => {
                    tracing::warn!(map = %self.map, %interrupted, "cannot read the map again yet");
                }
                Err(interrupted) => tracing::debug!(map = %self.map, %interrupted, failures, "still cannot"),
            }
            failures += 1;
        }
    }

    /// Reads the map for the first time; errors of the backend are the caller's to deal with.
    async fn read_first(&mut self) -> Result<(), Error> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.sync().await {
                Ok(()) => return Ok(()),
                Err(Interrupted::Backend(source)) => {
                    return Err(Error::Map { map: self.map.to_string(), source: Box::new(source) });
                }
                Err(Interrupted::Restart(cause)) if attempts == JOIN_ATTEMPTS => {
                    return Err(Error::Unsettled { map: self.map.clone(), attempts, last: cause.to_string() });
                }
                Err(Interrupted::Restart(_)) => {
                    let delay = self.backoff.delay(Instant::now(), entropy::fraction());
                    self.pause(delay).await;
                }
            }
        }
    }
}

impl<V> Drop for Replicator<V> {
    fn drop(&mut self) {
        // However the task ends, nobody may go on waiting for it.
        self.shared.close();
    }
}
