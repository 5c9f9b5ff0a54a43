//! A value that tasks wait for to change. Those who wait are woken in the order in which they came, unlike those of a
//! watch channel, whose order is left to chance: a run that follows from a seed would not come out the same twice.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The side that changes the value.
#[derive(Debug)]
pub(crate) struct Signal<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    /// The value, and how often it has changed.
    state: Mutex<(T, u64)>,
    changed: Notify,
}

impl<T> Inner<T> {
    fn lock(&self) -> MutexGuard<'_, (T, u64)> {
        // Nothing panics while holding the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Copy> Signal<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new(Inner { state: Mutex::new((value, 0)), changed: Notify::new() }))
    }

    pub(crate) fn get(&self) -> T {
        self.0.lock().0
    }

    /// Changes the value, and wakes those who wait if `change` says that it did.
    pub(crate) fn change(&self, change: impl FnOnce(&mut T) -> bool) {
        let mut state = self.0.lock();
        if change(&mut state.0) {
            state.1 += 1;
            drop(state);
            self.0.changed.notify_waiters();
        }
    }

    /// Begins to watch: changes from now on are news.
    pub(crate) fn watch(&self) -> Watcher<T> {
        let seen = self.0.lock().1;
        Watcher { inner: Arc::clone(&self.0), seen }
    }
}

/// The side that waits.
#[derive(Debug)]
pub(crate) struct Watcher<T> {
    inner: Arc<Inner<T>>,
    /// The changes up to this one are no news.
    seen: u64,
}

impl<T: Copy> Watcher<T> {
    /// The value as it is; what led to it is no news any more.
    pub(crate) fn look(&mut self) -> T {
        let state = self.inner.lock();
        self.seen = state.1;
        state.0
    }

    /// Waits for a change since the last look.
    pub(crate) async fn changed(&mut self) {
        let seen = self.seen;
        self.when(|_, changes| changes != seen).await;
    }

    /// Waits until the value is as it should be, and returns it.
    pub(crate) async fn wait_for(&mut self, is_right: impl Fn(&T) -> bool) -> T {
        self.when(|value, _| is_right(value)).await
    }

    async fn when(&mut self, is_right: impl Fn(&T, u64) -> bool) -> T {
        let inner = Arc::clone(&self.inner);
        loop {
            // Made before the look, so that no change between the two is missed.
            let changed = inner.changed.notified();
            let (value, changes) = *inner.lock();
            if is_right(&value, changes) {
                self.seen = changes;
                return value;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{task::JoinSet, time::timeout};

    use super::*;

    fn add(signal: &Signal<u32>, by: u32) {
        signal.change(|value| {
            *value += by;
            by > 0
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_before_the_wait_is_news_and_one_that_was_looked_at_is_not() {
        let signal = Signal::new(1);
        let mut watcher = signal.watch();
        add(&signal, 1);
        watcher.changed().await;
        add(&signal, 1);
        assert_eq!(watcher.look(), 3);
        assert!(timeout(Duration::from_secs(1), watcher.changed()).await.is_err());
        add(&signal, 0);
        assert!(timeout(Duration::from_secs(1), watcher.changed()).await.is_err(), "nothing has changed");
    }

    #[tokio::test]
    async fn those_who_wait_are_woken_in_the_order_in_which_they_came() {
        let (signal, order) = (Signal::new(0), Arc::new(Mutex::new(Vec::new())));
        let mut waiting = JoinSet::new();
        for number in 0..50 {
            let (mut watcher, order) = (signal.watch(), order.clone());
            waiting.spawn(async move {
                watcher.wait_for(|value| *value > 0).await;
                order.lock().unwrap().push(number);
            });
        }
        tokio::task::yield_now().await;
        add(&signal, 1);
        waiting.join_all().await;
        assert_eq!(*order.lock().unwrap(), (0..50).collect::<Vec<_>>());
    }
}
