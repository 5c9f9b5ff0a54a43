//! Change feeds: the commits of one map, in order, with every possible hole made visible.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures::Stream;

use crate::{Incarnation, Revision, Version, meter};

/// One change of one commit, as an absolute value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The key has this value now.
    Put {
        /// The key.
        key: Arc<str>,
        /// Its new value.
        value: Bytes,
    },
    /// The key is gone.
    Deleted {
        /// The key.
        key: Arc<str>,
    },
    /// All keys are gone.
    Cleared,
    /// The map is gone with all its keys. Always the last change of its incarnation.
    Destroyed,
}

/// What one transaction did to one map.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MapCommit {
    /// The life of the map.
    pub incarnation: Incarnation,
    /// The revision that it was made on; 0 if it created the map.
    pub before: Revision,
    /// The revision that it made.
    pub after: Revision,
    /// The changes in order; a key may occur more than once.
    pub changes: Vec<Change>,
}

impl MapCommit {
    /// Puts a commit together.
    #[must_use]
    pub fn new(incarnation: Incarnation, before: Revision, after: Revision, changes: Vec<Change>) -> Self {
        Self { incarnation, before, after, changes }
    }

    /// The version after it, `None` if it destroyed the map.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        let destroyed = matches!(self.changes.last(), Some(Change::Destroyed));
        (!destroyed).then_some(Version { incarnation: self.incarnation, revision: self.after })
    }

    /// Whether it was made on exactly this state of the map (`None`: the map did not exist).
    #[must_use]
    pub fn continues(&self, version: Option<Version>) -> bool {
        match version {
            Some(version) => self.incarnation == version.incarnation && self.before == version.revision,
            None => self.before == Revision(0),
        }
    }

    fn bytes(&self) -> usize {
        let change = |change: &Change| match change {
            Change::Put { key, value } => key.len() + value.len(),
            Change::Deleted { key } => key.len(),
            Change::Cleared | Change::Destroyed => 0,
        };
        self.changes.iter().map(|one| CHANGE_BYTES + change(one)).sum()
    }
}

/// What a change takes besides its key and value: its own place, and what the allocations of the two keep beside them.
/// Without it, a flood of tiny changes, which anybody can send, would count for nothing.
const CHANGE_BYTES: usize = size_of::<Change>() + 32;

/// Why commits may be missing from a feed at this point.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GapCause {
    /// The connection was lost; nothing arrives until [`GapCause::Resubscribed`] follows.
    Disconnected,
    /// The subscription stands again after a loss.
    Resubscribed,
    /// The reader was too slow for the feed's buffer, and the backlog was dropped.
    Lagged,
    /// A commit does not continue the one before it.
    Discontinuity {
        /// Where the feed stood; `None`: the map had been destroyed.
        expected: Option<Version>,
        /// What the commit was made on.
        found: Version,
    },
    /// A message of the channel is not a commit.
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
}

/// What a feed yields.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeedItem {
    /// The next commit.
    Commit(MapCommit),
    /// Commits may be missing here: read the map again. The commits after it are continuous among themselves.
    Gap(GapCause),
}

/// The commits of one map since the subscription, as a [`futures::Stream`].
///
/// - Commits come in the order of their revisions, each one exactly once, and each continues the one before it;
///   wherever that may not be so, a [`FeedItem::Gap`] stands between them.
/// - The buffer is bounded. A reader that falls behind loses the backlog and gets one [`GapCause::Lagged`]; a slow
///   reader costs neither the backend nor other readers anything.
/// - The feed ends when the backend is closed. Dropping it unsubscribes.
#[derive(Debug)]
pub struct MapFeed {
    shared: Arc<Shared>,
    at: Position,
    /// Set aside while the gap before it is handed out.
    held_back: Option<MapCommit>,
}

/// Where a feed stands, as far as it knows.
#[derive(Debug)]
enum Position {
    /// Anything may come next.
    Unknown,
    /// The map's state after the last commit.
    After(Option<Version>),
}

/// The end of a feed that a backend pushes into. The feed is gone when [`FeedSender::is_closed`] says so.
#[derive(Debug, Clone)]
pub struct FeedSender {
    shared: Weak<Shared>,
}

#[derive(Debug)]
struct Shared {
    max_items: usize,
    max_bytes: usize,
    state: Mutex<Buffer>,
}

#[derive(Debug, Default)]
struct Buffer {
    items: VecDeque<FeedItem>,
    bytes: usize,
    ended: bool,
    waker: Option<Waker>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        // Nothing panics while holding the lock, and the buffer is consistent after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, buffer: &mut Buffer, item: FeedItem) {
        let weight = weight(&item);
        let full = buffer.items.len() >= self.max_items || buffer.bytes + weight > self.max_bytes;
        if full && !buffer.items.is_empty() {
            buffer.items.clear();
            buffer.bytes = 0;
            buffer.items.push_back(FeedItem::Gap(GapCause::Lagged));
        }
        buffer.items.push_back(item);
        buffer.bytes += weight;
    }
}

fn weight(item: &FeedItem) -> usize {
    match item {
        FeedItem::Commit(commit) => commit.bytes(),
        FeedItem::Gap(_) => 0,
    }
}

impl MapFeed {
    /// Makes a feed that buffers at most that many items and that many bytes of changes.
    #[must_use]
    pub fn channel(max_items: usize, max_bytes: usize) -> (FeedSender, Self) {
        let shared = Arc::new(Shared { max_items: max_items.max(1), max_bytes, state: Mutex::default() });
        let sender = FeedSender { shared: Arc::downgrade(&shared) };
        (sender, Self { shared, at: Position::Unknown, held_back: None })
    }

    /// Waits for the next item, `None` once the backend is closed and the buffer is empty.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<FeedItem> {
        std::future::poll_fn(|cx| self.poll_item(cx)).await
    }

    /// Takes the next item if there is one already.
    pub fn try_next(&mut self) -> Option<FeedItem> {
        match self.poll_item(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(item) => item,
            Poll::Pending => None,
        }
    }

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<FeedItem>> {
        if let Some(commit) = self.held_back.take() {
            self.at = Position::After(commit.version());
            return Poll::Ready(Some(FeedItem::Commit(commit)));
        }
        let item = {
            let mut buffer = self.shared.lock();
            match buffer.items.pop_front() {
                Some(item) => {
                    buffer.bytes -= weight(&item);
                    item
                }
                None if buffer.ended => return Poll::Ready(None),
                None => {
                    buffer.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        };
        let item = self.check(item);
        if let FeedItem::Gap(cause) = &item {
            meter::gap(cause);
        }
        Poll::Ready(Some(item))
    }

    /// Puts a gap before a commit that does not continue the last one.
    fn check(&mut self, item: FeedItem) -> FeedItem {
        let FeedItem::Commit(commit) = item else {
            self.at = Position::Unknown;
            return item;
        };
        match self.at {
            Position::After(expected) if !commit.continues(expected) => {
                let found = Version { incarnation: commit.incarnation, revision: commit.before };
                self.held_back = Some(commit);
                FeedItem::Gap(GapCause::Discontinuity { expected, found })
            }
            _ => {
                self.at = Position::After(commit.version());
                FeedItem::Commit(commit)
            }
        }
    }
}

impl Stream for MapFeed {
    type Item = FeedItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FeedItem>> {
        self.poll_item(cx)
    }
}

impl FeedSender {
    /// Whether the feed was dropped, so that nothing need be pushed any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.strong_count() == 0
    }

    /// Adds an item, or, where the buffer is full, puts [`GapCause::Lagged`] in place of the whole backlog.
    pub fn push(&self, item: FeedItem) {
        self.with_buffer(|shared, buffer| shared.add(buffer, item));
    }

    /// Adds commits that arrived together, as [`FeedSender::push`] would one by one.
    pub fn push_commits(&self, commits: Vec<MapCommit>) {
        self.with_buffer(|shared, buffer| {
            for commit in commits {
                shared.add(buffer, FeedItem::Commit(commit));
            }
        });
    }

    /// Ends the feed once its buffer is empty.
    pub fn end(&self) {
        self.with_buffer(|_, buffer| buffer.ended = true);
    }

    fn with_buffer(&self, change: impl FnOnce(&Shared, &mut Buffer)) {
        let Some(shared) = self.shared.upgrade() else { return };
        let waker = {
            let mut buffer = shared.lock();
            if buffer.ended {
                return;
            }
            change(&shared, &mut buffer);
            buffer.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(incarnation: u64, before: u64, changes: Vec<Change>) -> FeedItem {
        FeedItem::Commit(MapCommit::new(Incarnation(incarnation), Revision(before), Revision(before + 1), changes))
    }

    fn put(key: &str) -> Vec<Change> {
        vec![Change::Put { key: key.into(), value: Bytes::from_static(b"v") }]
    }

    #[test]
    fn a_missing_commit_shows_as_a_gap_before_the_next_one() {
        let (sender, mut feed) = MapFeed::channel(10, 1000);
        sender.push(commit(1, 4, put("a")));
        sender.push(commit(1, 6, put("b")));
        assert_eq!(feed.try_next(), Some(commit(1, 4, put("a"))));
        assert!(matches!(feed.try_next(), Some(FeedItem::Gap(GapCause::Discontinuity { .. }))));
        assert_eq!(feed.try_next(), Some(commit(1, 6, put("b"))));
        assert_eq!(feed.try_next(), None);
    }

    #[test]
    fn a_repeated_commit_and_another_incarnation_show_as_gaps() {
        for second in [commit(1, 4, put("a")), commit(2, 5, put("a"))] {
            let (sender, mut feed) = MapFeed::channel(10, 1000);
            sender.push(commit(1, 4, put("a")));
            sender.push(second);
            feed.try_next();
            assert!(matches!(feed.try_next(), Some(FeedItem::Gap(GapCause::Discontinuity { .. }))));
        }
    }

    #[test]
    fn a_map_that_was_destroyed_may_begin_again_without_a_gap() {
        let (sender, mut feed) = MapFeed::channel(10, 1000);
        sender.push(commit(1, 4, vec![Change::Destroyed]));
        sender.push(commit(2, 0, put("a")));
        feed.try_next();
        assert_eq!(feed.try_next(), Some(commit(2, 0, put("a"))));
    }

    #[test]
    fn a_full_buffer_becomes_one_gap_and_goes_on() {
        let (sender, mut feed) = MapFeed::channel(2, 1000);
        for before in 0..3 {
            sender.push(commit(1, before, put("a")));
        }
        assert_eq!(feed.try_next(), Some(FeedItem::Gap(GapCause::Lagged)));
        assert_eq!(feed.try_next(), Some(commit(1, 2, put("a"))));
        assert_eq!(feed.try_next(), None);
    }

    #[test]
    fn bytes_bound_the_buffer_too_but_one_large_commit_always_passes() {
        let (sender, mut feed) = MapFeed::channel(100, 3);
        sender.push(commit(1, 0, put("long-key")));
        assert_eq!(feed.try_next(), Some(commit(1, 0, put("long-key"))));
        sender.push(commit(1, 1, put("a")));
        sender.push(commit(1, 2, put("b")));
        assert_eq!(feed.try_next(), Some(FeedItem::Gap(GapCause::Lagged)));
    }

    #[test]
    fn tiny_changes_fill_the_buffer_too() {
        let (sender, mut feed) = MapFeed::channel(100, 10_000);
        for before in 0..2 {
            sender.push(commit(1, before, vec![Change::Cleared; 100]));
        }
        assert_eq!(feed.try_next(), Some(FeedItem::Gap(GapCause::Lagged)));
        assert_eq!(feed.try_next(), Some(commit(1, 1, vec![Change::Cleared; 100])));
    }

    #[test]
    fn an_ended_feed_yields_its_backlog_then_none() {
        let (sender, mut feed) = MapFeed::channel(2, 1000);
        sender.push(commit(1, 0, put("a")));
        sender.end();
        sender.push(commit(1, 1, put("a")));
        assert!(feed.try_next().is_some());
        assert_eq!(feed.poll_item(&mut Context::from_waker(Waker::noop())), Poll::Ready(None));
        drop(feed);
        assert!(sender.is_closed());
    }
}
