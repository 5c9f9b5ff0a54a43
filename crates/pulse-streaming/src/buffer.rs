//! The bounded queue between the tasks that read and the subscribers that take.
//!
//! A [`Producer`] asks for room *before* it reads, so that a slow subscriber slows the reading down and nothing piles
//! up. Room opens when the buffer is down to half, so that reads stay batches. With one producer the buffer never
//! holds more than its capacity; with several, each may add what it had asked for at the same moment.
//!
//! Several subscribers either take turns, each item going to one of them ([`Buffer::poll_next`]), or each sees every
//! item ([`Buffer::poll_copy`]); an item then stays until the slowest has it. All subscribers of a buffer do the same.
//!
//! A closed buffer is empty and stays so: nothing is handed out of it any more.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::options::MOST_AT_ONCE;

/// A subscriber's end.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    shared: Arc<Shared<T>>,
    /// Which of the seats is its own.
    seat: u64,
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
    seats: Vec<Seat>,
    /// The next seat's name.
    next_seat: u64,
    last_taken: Instant,
}

/// A subscriber's place.
#[derive(Debug)]
struct Seat {
    name: u64,
    /// How many of the items it has seen already. Always 0 where each item goes to one subscriber.
    seen: usize,
    /// The subscriber, if it waits.
    waker: Option<Waker>,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the producers if there is room that was not there when so many items were held.
    fn opened(&self, state: MutexGuard<'_, State<T>>, held: usize) {
        let half = self.capacity / 2;
        let opened = held > half && state.items.len() <= half;
        drop(state);
        if opened {
            self.room.notify_waiters();
        }
    }

    fn sit(self: &Arc<Self>, state: &mut State<T>, seen: usize) -> Buffer<T> {
        let name = state.next_seat;
        state.next_seat += 1;
        state.seats.push(Seat { name, seen, waker: None });
        Buffer { shared: self.clone(), seat: name }
    }
}

impl<T> State<T> {
    fn seat(&mut self, name: u64) -> Option<&mut Seat> {
        self.seats.iter_mut().find(|seat| seat.name == name)
    }

    /// What a subscriber learns that finds nothing.
    fn nothing(&mut self, seat: u64, cx: &Context<'_>) -> Poll<Option<T>> {
        if self.closed || self.producers == 0 {
            return Poll::Ready(None);
        }
        match self.seat(seat).map(|seat| &mut seat.waker) {
            Some(Some(waker)) => waker.clone_from(cx.waker()),
            Some(none) => *none = Some(cx.waker().clone()),
            None => {}
        }
        Poll::Pending
    }

    /// Drops what every subscriber has seen.
    fn forget_seen(&mut self) {
        let seen = self.seats.iter().map(|seat| seat.seen).min().unwrap_or(0);
        self.items.drain(..seen);
        self.seats.iter_mut().for_each(|seat| seat.seen -= seen);
    }

    /// Those who wait, to be woken without the lock.
    fn waiting(&mut self) -> Waiting {
        match &mut self.seats[..] {
            [only] => Waiting { one: only.waker.take(), more: Vec::new() },
            many => Waiting { one: None, more: many.iter_mut().filter_map(|seat| seat.waker.take()).collect() },
        }
    }
}

struct Waiting {
    one: Option<Waker>,
    more: Vec<Waker>,
}

impl Waiting {
    fn wake(self) {
        self.one.into_iter().chain(self.more).for_each(Waker::wake);
    }
}

impl<T> Buffer<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        let state = State {
            items: VecDeque::new(),
            producers: 0,
            closed: false,
            seats: Vec::new(),
            next_seat: 0,
            last_taken: Instant::now(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), room: Notify::new(), capacity });
        let mut state = shared.lock();
        let first = shared.sit(&mut state, 0);
        drop(state);
        first
    }

    /// Another subscriber, which takes turns with the others.
    pub(crate) fn sharing(&self) -> Self {
        self.shared.sit(&mut self.shared.lock(), 0)
    }

    /// Another subscriber, which sees what comes from now on.
    pub(crate) fn seeing(&self) -> Self {
        let mut state = self.shared.lock();
        let seen = state.items.len();
        self.shared.sit(&mut state, seen)
    }

    pub(crate) fn producer(&self) -> Producer<T> {
        self.shared.lock().producers += 1;
        Producer { shared: self.shared.clone() }
    }

    /// Takes the next item; `None` at the end or after [`Buffer::close`].
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.take(self.shared.lock(), cx)
    }

    fn take(&self, mut state: MutexGuard<'_, State<T>>, cx: &Context<'_>) -> Poll<Option<T>> {
        let held = state.items.len();
        let Some(item) = state.items.pop_front() else {
            return state.nothing(self.seat, cx);
        };
        state.last_taken = Instant::now();
        self.shared.opened(state, held);
        Poll::Ready(Some(item))
    }

    /// Says that the subscriber will come back for what waits, although it takes nothing now.
    pub(crate) fn attend(&self) {
        self.shared.lock().last_taken = Instant::now();
    }

    /// Empties the buffer for good and ends the subscription of everybody.
    pub(crate) fn close(&self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.seats.iter_mut().for_each(|seat| seat.seen = 0);
        let (items, waiting) = (std::mem::take(&mut state.items), state.waiting());
        drop(state);
        drop(items);
        waiting.wake();
    }
}

impl<T: Clone> Buffer<T> {
    /// The next item, which every other subscriber gets too; `None` at the end or after [`Buffer::close`].
    pub(crate) fn poll_copy(&self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.shared.lock();
        if state.seats.len() == 1 {
            return self.take(state, cx);
        }
        let held = state.items.len();
        let seen = state.seat(self.seat).map_or(held, |seat| seat.seen);
        let Some(item) = state.items.get(seen).cloned() else {
            return state.nothing(self.seat, cx);
        };
        if let Some(seat) = state.seat(self.seat) {
            seat.seen += 1;
        }
        state.forget_seen();
        self.shared.opened(state, held);
        Poll::Ready(Some(item))
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let held = state.items.len();
        state.seats.retain(|seat| seat.name != self.seat);
        state.forget_seen();
        self.shared.opened(state, held);
    }
}

impl<T> Producer<T> {
    /// Waits until the buffer is down to half and says how many items to read: as many as fit, at least one, and no
    /// more than may be asked for at once.
    pub(crate) async fn room(&self) -> usize {
        loop {
            let told = self.shared.room.notified();
            let held = self.shared.lock().items.len();
            if held <= self.shared.capacity / 2 {
                return (self.shared.capacity - held).min(MOST_AT_ONCE);
            }
            told.await;
        }
    }

    /// How many items to read now.
    pub(crate) fn room_now(&self) -> usize {
        self.shared.capacity.saturating_sub(self.shared.lock().items.len()).min(MOST_AT_ONCE)
    }

    /// Adds items, without regard to the room. Drops them if the buffer is closed.
    pub(crate) fn push(&self, items: impl IntoIterator<Item = T>) {
        let mut state = self.shared.lock();
        if state.closed {
            return;
        }
        let held = state.items.len();
        if held == 0 {
            // The subscriber was not idle while there was nothing to take.
            state.last_taken = Instant::now();
        }
        state.items.extend(items);
        if state.items.len() > held {
            let waiting = state.waiting();
            drop(state);
            waiting.wake();
        }
    }

    /// Whether the subscriber keeps up: it took something within this time, or there is nothing to take.
    pub(crate) fn is_attended(&self, within: Duration) -> bool {
        let state = self.shared.lock();
        state.items.is_empty() || state.last_taken.elapsed() < within
    }

    /// Drops the items of which this is not true.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&T) -> bool) {
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        let held = state.items.len();
        let (mut index, seen): (_, Vec<usize>) = (0, state.seats.iter().map(|seat| seat.seen).collect());
        state.items.retain(|item| {
            let kept = keep(item);
            if !kept {
                for (seat, seen) in state.seats.iter_mut().zip(&seen) {
                    seat.seen -= usize::from(index < *seen);
                }
            }
            index += 1;
            kept
        });
        self.shared.opened(guard, held);
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
        if state.producers == 0 {
            let waiting = state.waiting();
            drop(state);
            waiting.wake();
        }
    }
}

#[cfg(test)]
mod tests;
