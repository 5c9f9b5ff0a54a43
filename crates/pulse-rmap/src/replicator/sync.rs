//! Reading the whole map while its feed goes on.

use std::{future::Future, time::Duration};

use pulse_core::{FeedItem, MapFeed, Version, entropy};
use tokio::{
    task::yield_now,
    time::{Instant, sleep, timeout},
};

use super::{
    Cause, Replicator, Subscription,
    follow::{Noted, note},
};
use crate::{
    replica::{Reached, Scan},
    shared::Delta,
};

/// How many entries are read at once: enough to make round trips rare, few enough not to keep a server busy.
const PAGE: usize = 1000;
/// After how many pages other tasks get their turn, since a backend in this process answers without a wait: about ten
/// milliseconds of work.
const TURN: u64 = 8;
/// How long the next commit that the backend has may be on its way through the feed.
const CATCH_UP: Duration = Duration::from_millis(500);
/// How long a feed may take to stand again before another one is asked for.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many commits that have arrived already are taken in one go.
const ARRIVED: usize = 4096;

/// Why an attempt to read the map came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Interrupted {
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] pulse_core::Error),
    /// The feed was interrupted, so that what was read cannot be completed.
    #[error("{0}")]
    Restart(Cause),
}

impl<V: Send + Sync + 'static> Replicator<V> {
    /// Reads the whole map and publishes it. If it fails, the replica stays as it was.
    pub(super) async fn sync(&mut self) -> Result<(), Interrupted> {
        self.pass_over_arrived();
        self.ensure_feed().await?;
        // The order is what makes the result exact: subscribe, version, pages, version, commits up to the latter.
        let first = self.backend.map_version(&self.map).await?;
        let mut scan = self.replica.scan(first);
        let mut reading = Reading { feed: &mut self.feed, subscription: &mut self.subscription, scan: &mut scan };
        let (mut cursor, mut pages) = (None, 0_u64);
        loop {
            let page = reading.during(self.backend.map_page(&self.map, cursor.as_ref(), PAGE)).await?;
            cursor.clone_from(&page.next);
            reading.scan.page(page);
            pages += 1;
            // A backend in this process answers at once, so that `during` never looks at the feed.
            reading.take_arrived()?;
            if cursor.is_none() {
                break;
            }
            // Nor would other tasks ever run. Not after each page, because one of them may commit thousands of times in
            // its turn, and the feed has to hold that.
            if pages % TURN == 0 {
                yield_now().await;
                reading.take_arrived()?;
            }
        }
        let second = reading.during(self.backend.map_version(&self.map)).await?;
        reading.catch_up(second).await?;
        self.replica.adopt(scan);
        self.shared.publish(self.replica.view(), Delta::Compare);
        Ok(())
    }

    /// Waits until the feed stands again, and gets another one if it does not.
    async fn ensure_feed(&mut self) -> Result<(), Interrupted> {
        if self.subscription == Subscription::Broken {
            let _ = timeout(PATIENCE, self.feed_stands_or_ended()).await;
        }
        if self.subscription != Subscription::Stands {
            self.feed = self.backend.map_feed(&self.map).await?;
            self.subscription = Subscription::Stands;
        }
        Ok(())
    }

    /// Drops what has arrived, because the version is asked for after it. Kept, the commits of a life of the map that
    /// is over by then would be taken for news.
    fn pass_over_arrived(&mut self) {
        for _ in 0..ARRIVED {
            let Some(item) = self.feed.try_next() else { break };
            note(&mut self.subscription, Some(item));
        }
    }

    async fn feed_stands_or_ended(&mut self) {
        while self.subscription == Subscription::Broken {
            note(&mut self.subscription, self.feed.next().await);
        }
    }

    /// Waits before an attempt; not long if the feed stands again meanwhile. What the feed brings is dropped, because
    /// the attempt reads a version after it.
    pub(super) async fn pause(&mut self, delay: Duration) {
        let due = sleep(delay);
        tokio::pin!(due);
        while self.subscription != Subscription::Ended {
            let before = self.subscription;
            tokio::select! {
                biased;
                () = &mut due => return,
                item = self.feed.next() => { note(&mut self.subscription, item); }
            }
            if before == Subscription::Broken && self.subscription == Subscription::Stands {
                self.backoff.reset();
                let now = Instant::now();
                due.as_mut().reset(now + self.backoff.delay(now, entropy::fraction()));
            }
        }
        due.await;
    }
}

/// A scan in progress, and the feed that goes on beside it.
struct Reading<'a, V> {
    feed: &'a mut MapFeed,
    subscription: &'a mut Subscription,
    scan: &'a mut Scan<V>,
}

impl<V: 'static> Reading<'_, V> {
    /// Waits for the backend, and takes in what the feed brings meanwhile, so that its buffer does not run over.
    async fn during<T>(&mut self, call: impl Future<Output = Result<T, pulse_core::Error>>) -> Result<T, Interrupted> {
        tokio::pin!(call);
        loop {
            tokio::select! {
                biased;
                answer = &mut call => return Ok(answer?),
                taken = self.take_next() => taken?,
            }
        }
    }

    /// Takes in commits until the content is exact.
    async fn catch_up(&mut self, second: Option<Version>) -> Result<(), Interrupted> {
        while self.scan.reached(second) == Reached::NotYet {
            // Each has its time, so that a feed that is late but moves gets there. What has not arrived by then is
            // lost, and only reading again brings it.
            match timeout(CATCH_UP, self.take_next()).await {
                Ok(taken) => taken?,
                Err(_) => break,
            }
        }
        if second.is_none() {
            // A life of the map may have begun and ended while it was read. It is taken in here as a whole, so that
            // those who see an empty map do not see it flash by afterwards.
            self.take_arrived()?;
        }
        match self.scan.reached(second) {
            Reached::Yes => Ok(()),
            Reached::NotYet | Reached::Never => {
                Err(Interrupted::Restart(Cause::Diverged { at: self.scan.version(), server: second }))
            }
        }
    }

    fn take_arrived(&mut self) -> Result<(), Interrupted> {
        for _ in 0..ARRIVED {
            let Some(item) = self.feed.try_next() else { break };
            self.take(Some(item))?;
        }
        Ok(())
    }

    async fn take_next(&mut self) -> Result<(), Interrupted> {
        let item = self.feed.next().await;
        self.take(item)
    }

    fn take(&mut self, item: Option<FeedItem>) -> Result<(), Interrupted> {
        let taken = match note(self.subscription, item) {
            Noted::Commit(commit) => self.scan.commit(commit).map_err(Cause::Broken),
            Noted::Interruption(cause) => Err(cause),
        };
        taken.map_err(Interrupted::Restart)
    }
}
