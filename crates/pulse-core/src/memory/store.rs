//! The store that the clients of one process share: the lock around the content, the clock, the feeds and the waiters.
//!
//! The lock is a plain one and is never held across an await. Commits are pushed into the feeds under it, which is what
//! keeps their order.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::Notify, time::Instant};

use super::{
    commit,
    scope::{Changed, ScopeState},
    streams::StreamState,
    sweep,
};
use crate::{
    Committed, Error, EventId, FeedItem, FeedSender, Group, Limits, MapFeed, MapId, Scope, StreamId, Swept, Transaction,
};

/// A feed that falls further behind than this lags.
const FEED_ITEMS: usize = 4096;
/// A feed that falls further behind than this lags, too.
const FEED_BYTES: usize = 64 << 20;

static NAMED: LazyLock<Mutex<HashMap<String, Weak<Store>>>> = LazyLock::new(Mutex::default);

/// Tells the clients of one store apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientKey(u64);

#[derive(Debug)]
pub(super) struct Store {
    target: String,
    clients: AtomicU64,
    /// How often it went back to what it held before.
    run: AtomicU64,
    /// When the store began, by tokio's clock and by the system's.
    began: Instant,
    began_millis: u64,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    scopes: HashMap<Scope, ScopeState>,
    /// Outlives the scopes; see [`ScopeState::past_ids`].
    past_ids: EventId,
    feeds: HashMap<MapId, Vec<(ClientKey, FeedSender)>>,
    bells: HashMap<StreamId, Weak<Notify>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Content changes by whole assignments, so a panic elsewhere cannot leave it half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    pub(super) fn new(target: String) -> Self {
        let began_millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self {
            target,
            clients: AtomicU64::new(0),
            run: AtomicU64::new(0),
            began: Instant::now(),
            began_millis: u64::try_from(began_millis).unwrap_or(u64::MAX / 2),
            content: Mutex::default(),
        }
    }

    pub(super) fn named(name: &str) -> Arc<Self> {
        let mut named = lock(&NAMED);
        if let Some(store) = named.get(name).and_then(Weak::upgrade) {
            return store;
        }
        named.retain(|_, store| store.strong_count() > 0);
        let store = Arc::new(Self::new(format!("memory:{name}")));
        named.insert(name.to_owned(), Arc::downgrade(&store));
        store
    }

    pub(super) fn target(&self) -> &str {
        &self.target
    }

    pub(super) fn new_client(&self) -> ClientKey {
        ClientKey(self.clients.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn run(&self) -> u64 {
        self.run.load(Ordering::Relaxed)
    }

    /// Milliseconds since the Unix epoch.
    pub(super) fn now(&self) -> u64 {
        self.began_millis.saturating_add(millis(self.began.elapsed()))
    }

    pub(super) fn commit(&self, transaction: &Transaction, limits: &Limits) -> Result<Committed, Error> {
        let mut content = lock(&self.content);
        let before = content.copy_of(transaction.scope());
        let (after, changed, committed) = commit::commit(before, transaction, limits, self.now())?;
        content.apply(transaction.scope(), after, changed);
        Ok(committed)
    }

    pub(super) fn sweep(&self, scope: &Scope) -> Swept {
        let mut content = lock(&self.content);
        let Some(before) = content.scopes.get(scope).cloned() else { return Swept::default() };
        let (after, changed, swept) = sweep::sweep(before, self.now());
        content.apply(scope, after, changed);
        swept
    }

    /// Looks at a scope at one moment.
    pub(super) fn read<T>(&self, scope: &Scope, read: impl FnOnce(&ScopeState, u64) -> T) -> T {
        let content = lock(&self.content);
        match content.scopes.get(scope) {
            Some(state) => read(state, self.now()),
            None => read(&ScopeState::default(), self.now()),
        }
    }

    /// Changes a scope outside of a transaction: what concerns consumer groups only.
    pub(super) fn change<T>(&self, scope: &Scope, change: impl FnOnce(&mut ScopeState, u64) -> T) -> T {
        let mut content = lock(&self.content);
        let now = self.now();
        let mut state = content.copy_of(scope);
        let result = change(&mut state, now);
        content.apply(scope, state, Changed::default());
        result
    }

    /// Does something with a stream that has the group.
    pub(super) fn in_group<T>(
        &self,
        stream: &StreamId,
        group: &Group,
        act: impl FnOnce(&mut StreamState, u64) -> T,
    ) -> Result<T, Error> {
        let no_group = || Error::NoGroup { stream: stream.clone(), group: group.clone() };
        let mut content = lock(&self.content);
        let now = self.now();
        let scope = content.scopes.get_mut(stream.scope()).ok_or_else(no_group)?;
        let state = scope.live_stream_mut(stream.name(), now).ok_or_else(no_group)?;
        if !state.groups.contains_key(group) {
            return Err(no_group());
        }
        Ok(act(state, now))
    }

    pub(super) fn feed(&self, client: ClientKey, map: &MapId) -> MapFeed {
        let (sender, feed) = MapFeed::channel(FEED_ITEMS, FEED_BYTES);
        let mut content = lock(&self.content);
        content.feeds.retain(|_, feeds| {
            feeds.retain(|(_, feed)| !feed.is_closed());
            !feeds.is_empty()
        });
        content.feeds.entry(map.clone()).or_default().push((client, sender));
        feed
    }

    pub(super) fn end_feeds(&self, client: ClientKey) {
        for feeds in lock(&self.content).feeds.values_mut() {
            feeds.retain(|(of, feed)| {
                if *of == client {
                    feed.end();
                }
                *of != client
            });
        }
    }

    /// What rings when something happens to a stream.
    pub(super) fn bell(&self, stream: &StreamId) -> Arc<Notify> {
        let mut content = lock(&self.content);
        if let Some(bell) = content.bells.get(stream).and_then(Weak::upgrade) {
            return bell;
        }
        content.bells.retain(|_, bell| bell.strong_count() > 0);
        let bell = Arc::new(Notify::new());
        content.bells.insert(stream.clone(), Arc::downgrade(&bell));
        bell
    }

    pub(super) fn ring(&self, stream: &StreamId) {
        lock(&self.content).ring(stream);
    }

    /// When the stream will expire, by tokio's clock.
    pub(super) fn stream_deadline(&self, stream: &StreamId) -> Option<Instant> {
        let deadline = self.read(stream.scope(), |scope, now| scope.live_stream(stream.name(), now)?.deadline)?;
        Some(self.began + Duration::from_millis(deadline.saturating_sub(self.began_millis)))
    }
}

#[cfg(any(test, feature = "testing"))]
impl Store {
    pub(super) fn content(&self) -> HashMap<Scope, ScopeState> {
        lock(&self.content).scopes.clone()
    }

    pub(super) fn set_content(&self, scopes: HashMap<Scope, ScopeState>) {
        let mut content = lock(&self.content);
        // Ids of streams are not given out twice, whatever is forgotten.
        let past_ids = content.scopes.values().map(|scope| scope.past_ids).max().unwrap_or_default();
        content.past_ids = content.past_ids.max(past_ids);
        content.scopes = scopes;
        self.run.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
impl Store {
    /// How many maps have feeds, and how many streams have bells.
    pub(super) fn kept(&self) -> (usize, usize) {
        let content = lock(&self.content);
        (content.feeds.len(), content.bells.len())
    }

    pub(super) fn scopes(&self) -> usize {
        lock(&self.content).scopes.len()
    }
}

impl Content {
    /// The scope as it is, or as it begins.
    fn copy_of(&self, scope: &Scope) -> ScopeState {
        let begin = || ScopeState { past_ids: self.past_ids, ..ScopeState::default() };
        self.scopes.get(scope).cloned().unwrap_or_else(begin)
    }

    fn apply(&mut self, scope: &Scope, after: ScopeState, changed: Changed) {
        if after.is_empty() {
            self.past_ids = self.past_ids.max(after.past_ids);
            self.scopes.remove(scope);
        } else {
            self.scopes.insert(scope.clone(), after);
        }
        for (map, commit) in changed.commits {
            // The names come from a valid transaction on this scope.
            let Ok(map) = scope.map(&map) else { continue };
            if let Some(feeds) = self.feeds.get_mut(&map) {
                feeds.retain(|(_, feed)| !feed.is_closed());
                for (_, feed) in feeds {
                    feed.push(FeedItem::Commit(commit.clone()));
                }
            }
        }
        for stream in changed.streams {
            if let Ok(stream) = scope.stream(&stream) {
                self.ring(&stream);
            }
        }
    }

    fn ring(&self, stream: &StreamId) {
        if let Some(bell) = self.bells.get(stream).and_then(Weak::upgrade) {
            bell.notify_waiters();
        }
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
