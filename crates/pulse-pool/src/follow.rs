//! Following the jobs without holding them: what a client-only node has in place of the runner's view.
//!
//! While somebody watches a key, the feed of the jobs' map is subscribed to, and what it says of that key is passed on;
//! the rest is forgotten. Wherever changes may be missing, what is watched is read.

use std::{sync::Arc, time::Duration};

use pulse_core::{Change, FeedItem, MapFeed};
use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;

use crate::{pool::Pool, watch::Seen, write::BackOff};

/// For how long changes are followed after the last watch has ended.
const LINGER: Duration = Duration::from_secs(30);

/// How often to read what is watched although nothing seems to have changed.
const AUDIT: Duration = Duration::from_secs(5);

/// The most keys that are read in one request.
const PAGE: usize = 500;

/// Passes changes on to those who watch, until the node ends.
pub(crate) async fn follow(pool: Arc<Pool>, end: CancellationToken) {
    tokio::select! {
        biased;
        () = end.cancelled() => {}
        () = follow_for_ever(&pool) => {}
    }
}

/// Returns when the client is closed.
async fn follow_for_ever(pool: &Pool) {
    let mut back_off = BackOff::new(Duration::from_millis(20), Duration::from_secs(2));
    loop {
        pool.watches.any().await;
        match pool.tables.jobs_feed().await {
            Ok(feed) => {
                back_off = BackOff::new(Duration::from_millis(20), Duration::from_secs(2));
                if !pass_on(pool, feed).await {
                    return;
                }
            }
            Err(pulse_core::Error::Closed) => return,
            Err(error) => {
                tracing::debug!(pool = %pool.name, %error, "cannot follow the jobs yet");
                back_off.pause().await;
            }
        }
    }
}

/// Returns when nobody has watched anything for a while; `false` when the client is closed.
async fn pass_on(pool: &Pool, mut feed: MapFeed) -> bool {
    pool.watches.set_follows(true);
    read_watched(pool).await;
    let mut audit = interval_at(Instant::now() + AUDIT, AUDIT);
    let mut needed = Instant::now();
    loop {
        tokio::select! {
            biased;
            _ = audit.tick() => {
                if !pool.watches.keys().is_empty() {
                    needed = Instant::now();
                    read_watched(pool).await;
                } else if needed.elapsed() >= LINGER {
                    // In this order, so that whoever begins to watch now is either seen here or sees this.
                    pool.watches.set_follows(false);
                    if pool.watches.keys().is_empty() {
                        return true;
                    }
                    pool.watches.set_follows(true);
                }
            }
            item = feed.next() => match item {
                Some(FeedItem::Commit(commit)) => {
                    let version = commit.version();
                    for change in commit.changes {
                        match change {
                            Change::Put { key, value } => {
                                pool.watches.announce(&key, version, || Seen::read(value));
                            }
                            Change::Deleted { key } => pool.watches.announce(&key, version, || None),
                            // What is watched is gone.
                            _ => read_watched(pool).await,
                        }
                    }
                }
                // A gap.
                Some(_) => read_watched(pool).await,
                None => return false,
            },
        }
    }
}

/// Tells those who watch how things stand.
async fn read_watched(pool: &Pool) {
    let keys = pool.watches.keys();
    for page in keys.chunks(PAGE) {
        let names: Vec<&str> = page.iter().map(crate::JobKey::as_str).collect();
        // The version first: what is read after it is of that version or a later one.
        let read = async { Ok((pool.tables.jobs_version().await?, pool.tables.read_records(&names).await?)) };
        let read: Result<_, pulse_core::Error> = read.await;
        // If it fails, the next look will tell.
        let Ok((version, records)) = read else { return };
        for (name, record) in names.into_iter().zip(records) {
            pool.watches.announce(name, version, || record.and_then(Seen::read));
        }
    }
}
