//! Handing changes to subscribers, each through a bounded buffer of its own.
//!
//! The task publishes batches that all subscribers share; a slow subscriber loses its backlog and later gets the
//! difference between what it last saw and what is there now. Nobody waits for anybody.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures::Stream;

use crate::{
    KeyFilter, Snapshot,
    change::{Update, difference},
};

/// Every change of a map since the subscription, in order, each one once, as a [`futures::Stream`].
///
/// - Folding the changes over the snapshot that the subscription began with gives the map's content at each version.
/// - After a loss of the connection, what was missed arrives as the exact difference: one change for each key that is
///   other than it was.
/// - The buffer is bounded. A subscriber that falls behind gets [`Update::Lagged`] and then the exact difference to the
///   map as it is now. It costs neither the map nor other subscribers anything.
/// - The stream ends when the map is closed or dropped, after the changes that it still holds.
pub struct Changes<V> {
    buffer: Arc<Buffer<V>>,
    /// The batch that is being handed out, and how much of it was.
    current: Option<(Arc<Batch<V>>, usize)>,
    /// What to hand out; everything if there is none.
    filter: Option<KeyFilter>,
}

/// Changes that were published together.
pub(crate) struct Batch<V> {
    pub(crate) before: Snapshot<V>,
    pub(crate) after: Snapshot<V>,
    pub(crate) changes: Vec<Update<V>>,
}

/// What the task fills and a subscriber empties.
pub(crate) struct Buffer<V> {
    /// How many changes may wait. One batch always fits.
    capacity: usize,
    state: Mutex<State<V>>,
}

struct State<V> {
    /// What the subscriber wants to hear of; everything if there is none.
    filter: Option<KeyFilter>,
    batches: VecDeque<Arc<Batch<V>>>,
    /// How many changes for the subscriber the batches hold.
    waiting: usize,
    /// Set when the backlog was dropped: what the subscriber last saw, and what is there now.
    lost: Option<(Snapshot<V>, Snapshot<V>)>,
    ended: bool,
    waker: Option<Waker>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits, or the subscriber lags already and will find it in the difference.
    Kept,
    /// The subscriber lags from now on.
    BacklogDropped,
}

impl<V> Batch<V> {
    /// How many of the changes a subscriber with this filter gets.
    fn count(&self, filter: Option<&KeyFilter>) -> usize {
        match filter {
            None => self.changes.len(),
            Some(filter) => self.changes.iter().filter(|update| update.is_wanted(filter)).count(),
        }
    }
}

impl<V> Buffer<V> {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        let batches = VecDeque::new();
        let state = State { filter: None, batches, waiting: 0, lost: None, ended: false, waker: None };
        Arc::new(Self { capacity, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State<V>> {
        // Nothing panics while holding the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch, or drops the backlog with it where there is no room.
    pub(crate) fn push(&self, batch: &Arc<Batch<V>>) -> Pushed {
        let mut pushed = Pushed::Kept;
        let mut state = self.lock();
        let count = batch.count(state.filter.as_ref());
        if count == 0 && state.lost.is_none() {
            return pushed;
        }
        let full = state.waiting.saturating_add(count) > self.capacity;
        if let Some((_, now)) = &mut state.lost {
            *now = batch.after.clone();
        } else if let Some(oldest) = state.batches.front().filter(|_| full) {
            state.lost = Some((oldest.before.clone(), batch.after.clone()));
            state.batches = VecDeque::new();
            state.waiting = 0;
            pushed = Pushed::BacklogDropped;
        } else {
            state.waiting += count;
            state.batches.push_back(Arc::clone(batch));
        }
        wake(state);
        pushed
    }

    /// Ends the stream once the buffer is empty.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        wake(state);
    }
}

fn wake<V>(mut state: MutexGuard<'_, State<V>>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<V: 'static> Changes<V> {
    pub(crate) fn new(buffer: Arc<Buffer<V>>) -> Self {
        Self { buffer, current: None, filter: None }
    }

    /// Keeps only the changes of these keys from here on. The others take no room in the buffer. Called again, it keeps
    /// those that both choose.
    #[must_use = "the subscription ends when it is dropped"]
    pub fn only(mut self, filter: KeyFilter) -> Self {
        let filter = match self.filter.take() {
            Some(earlier) => earlier.and(filter),
            None => filter,
        };
        let mut state = self.buffer.lock();
        state.filter = Some(filter.clone());
        state.batches.retain(|batch| batch.count(Some(&filter)) > 0);
        state.waiting = state.batches.iter().map(|batch| batch.count(Some(&filter))).sum();
        drop(state);
        self.filter = Some(filter);
        self
    }

    /// Waits for the next update, `None` once the map is closed or dropped and the buffer is empty.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Update<V>> {
        std::future::poll_fn(|cx| self.poll_update(cx)).await
    }

    /// Takes the next update if there is one already.
    pub fn try_next(&mut self) -> Option<Update<V>> {
        match self.poll_update(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(update) => update,
            Poll::Pending => None,
        }
    }

    fn poll_update(&mut self, cx: &mut Context<'_>) -> Poll<Option<Update<V>>> {
        loop {
            if let Some((batch, at)) = self.current.take() {
                let wanted = |update: &Update<V>| self.filter.as_ref().is_none_or(|filter| update.is_wanted(filter));
                let mut rest = batch.changes.iter().enumerate().skip(at).filter(|(_, update)| wanted(update));
                if let Some((at, update)) = rest.next() {
                    let update = update.clone();
                    // Kept only while there is more to hand out: a batch keeps two views of the map alive.
                    if at + 1 < batch.changes.len() {
                        self.current = Some((batch, at + 1));
                    }
                    return Poll::Ready(Some(update));
                }
            }
            let mut state = self.buffer.lock();
            if let Some((before, after)) = state.lost.take() {
                drop(state);
                let changes = difference(&before, &after);
                self.current = Some((Arc::new(Batch { before, after, changes }), 0));
                return Poll::Ready(Some(Update::Lagged));
            }
            let Some(batch) = state.batches.pop_front() else {
                if state.ended {
                    return Poll::Ready(None);
                }
                state.waker = Some(cx.waker().clone());
                return Poll::Pending;
            };
            state.waiting -= batch.count(self.filter.as_ref());
            self.current = Some((batch, 0));
        }
    }
}

impl<V: 'static> Stream for Changes<V> {
    type Item = Update<V>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Update<V>>> {
        self.poll_update(cx)
    }
}

impl<V> fmt::Debug for Changes<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}
