//! The bounded queue between the tasks that read and the subscriber that takes.
//!
//! A [`Producer`] asks for room *before* it reads, so that a slow subscriber slows the reading down and nothing piles
//! up. Room opens when the buffer is down to half, so that reads stay batches. With one producer the buffer never
//! holds more than its capacity; with several, each may add what it had asked for at the same moment.
//!
//! A closed buffer is empty and stays so: nothing is handed out of it any more.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// The subscriber's end.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    shared: Arc<Shared<T>>,
}

/// A reading task's end. The subscription ends when the last one is gone and the buffer is empty.
#[derive(Debug)]
pub(crate) struct Producer<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    /// Told when the buffer has come down to half.
    room: Notify,
    capacity: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    producers: usize,
    closed: bool,
    /// The subscriber, if it waits.
    waker: Option<Waker>,
    last_taken: Instant,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Buffer<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        let state =
            State { items: VecDeque::new(), producers: 0, closed: false, waker: None, last_taken: Instant::now() };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), room: Notify::new(), capacity }) }
    }

    pub(crate) fn producer(&self) -> Producer<T> {
        self.shared.lock().producers += 1;
        Producer { shared: self.shared.clone() }
    }

    /// Takes the next item; `None` at the end or after [`Buffer::close`].
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.shared.lock();
        if let Some(item) = state.items.pop_front() {
            state.last_taken = Instant::now();
            let room = state.items.len() == self.shared.capacity / 2;
            drop(state);
            if room {
                self.shared.room.notify_waiters();
            }
            return Poll::Ready(Some(item));
        }
        if state.closed || state.producers == 0 {
            return Poll::Ready(None);
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Says that the subscriber will come back for what waits, although it takes nothing now.
    pub(crate) fn attend(&self) {
        self.shared.lock().last_taken = Instant::now();
    }

    /// Empties the buffer for good and ends the subscription.
    pub(crate) fn close(&self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let (items, waker) = (std::mem::take(&mut state.items), state.waker.take());
        drop(state);
        drop(items);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Producer<T> {
    /// Waits until the buffer is down to half and says how many items fit, at least one.
    pub(crate) async fn room(&self) -> usize {
        loop {
            let told = self.shared.room.notified();
            let held = self.shared.lock().items.len();
            if held <= self.shared.capacity / 2 {
                return self.shared.capacity - held;
            }
            told.await;
        }
    }

    /// How many items fit now.
    pub(crate) fn room_now(&self) -> usize {
        self.shared.capacity.saturating_sub(self.shared.lock().items.len())
    }

    /// Adds items, without regard to the room. Drops them if the buffer is closed.
    pub(crate) fn push(&self, items: impl IntoIterator<Item = T>) {
        let mut state = self.shared.lock();
        if state.closed {
            return;
        }
        if state.items.is_empty() {
            // The subscriber was not idle while there was nothing to take.
            state.last_taken = Instant::now();
        }
        state.items.extend(items);
        let waker = if state.items.is_empty() { None } else { state.waker.take() };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether the subscriber keeps up: it took something within this time, or there is nothing to take.
    pub(crate) fn is_attended(&self, within: Duration) -> bool {
        let state = self.shared.lock();
        state.items.is_empty() || state.last_taken.elapsed() < within
    }

    /// Drops the items of which this is not true.
    pub(crate) fn retain(&self, keep: impl FnMut(&T) -> bool) {
        let mut state = self.shared.lock();
        state.items.retain(keep);
        let room = state.items.len() <= self.shared.capacity / 2;
        drop(state);
        if room {
            self.shared.room.notify_waiters();
        }
    }

    /// Visits every item in order.
    pub(crate) fn for_each(&self, visit: impl FnMut(&mut T)) {
        self.shared.lock().items.iter_mut().for_each(visit);
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.producers -= 1;
        let waker = if state.producers == 0 { state.waker.take() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt;

    use super::*;

    async fn take<T>(buffer: &Buffer<T>) -> Option<T> {
        poll_fn(|cx| buffer.poll_next(cx)).await
    }

    #[tokio::test]
    async fn room_opens_when_the_buffer_is_down_to_half() {
        let buffer = Buffer::new(4);
        let producer = buffer.producer();
        assert_eq!(producer.room().await, 4);
        producer.push(0..4);
        for left in [3, 2] {
            assert_eq!(producer.room().now_or_never(), None, "with more than {left} items");
            take(&buffer).await;
        }
        assert_eq!(producer.room().await, 2);
    }

    #[tokio::test]
    async fn a_waiting_producer_is_told_of_room() {
        let buffer = Buffer::new(1);
        let producer = buffer.producer();
        producer.push([1]);
        let waiting = tokio::spawn(async move { producer.room().await });
        tokio::task::yield_now().await;
        assert_eq!(take(&buffer).await, Some(1));
        assert_eq!(waiting.await.ok(), Some(1));
    }

    #[tokio::test]
    async fn the_end_comes_after_the_last_item_when_the_last_producer_is_gone() {
        let buffer = Buffer::new(4);
        let (one, two) = (buffer.producer(), buffer.producer());
        one.push([1]);
        drop(one);
        drop(two);
        assert_eq!(take(&buffer).await, Some(1));
        assert_eq!(take(&buffer).await, None);
    }

    #[tokio::test]
    async fn nothing_comes_out_of_a_closed_buffer_and_the_waiting_subscriber_learns_of_the_end() {
        let buffer = Arc::new(Buffer::<u32>::new(4));
        let producer = buffer.producer();
        let waiting = tokio::spawn({
            let buffer = buffer.clone();
            async move { take(&buffer).await }
        });
        tokio::task::yield_now().await;
        buffer.close();
        assert_eq!(waiting.await.ok(), Some(None));
        producer.push([1]);
        assert_eq!(take(&buffer).await, None);
        buffer.close();
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_that_takes_nothing_does_not_attend_to_a_buffer_that_holds_something() {
        let second = Duration::from_secs(1);
        let buffer = Buffer::new(4);
        let producer = buffer.producer();
        tokio::time::advance(10 * second).await;
        assert!(producer.is_attended(second), "there is nothing to take");
        producer.push([1, 2]);
        assert!(producer.is_attended(second), "it had no time to take it");
        tokio::time::advance(2 * second).await;
        assert!(!producer.is_attended(second));
        take(&buffer).await;
        assert!(producer.is_attended(second));
    }
}
