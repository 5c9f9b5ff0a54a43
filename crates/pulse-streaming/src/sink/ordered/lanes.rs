//! The subscriber's end of all lanes of an instance.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use pulse_core::StreamId;

use super::task::Tenure;
use crate::{Delivery, Notice};

/// How many events are taken from one lane before the next has its turn.
const TURN: usize = 32;

/// Takes from the lanes by turns, each in its own order.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    state: Mutex<State>,
    pub(super) bell: Arc<Bell>,
}

#[derive(Debug, Default)]
struct State {
    lanes: Vec<Arc<Tenure>>,
    /// Which lane has its turn, and how many events it gave.
    turn: (usize, usize),
    notices: VecDeque<Notice>,
    closed: bool,
}

/// Wakes the subscriber.
#[derive(Debug, Default)]
pub(super) struct Bell(Mutex<Option<Waker>>);

impl Bell {
    pub(super) fn ring(&self) {
        let waker = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn wait(&self, cx: &Context<'_>) {
        let mut waker = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }
}

impl Lanes {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next delivery that may be handed out, of a stream of which one is wanted, or notice; `None` once
    /// closed.
    pub(crate) fn poll_next(
        &self,
        cx: &Context<'_>,
        is_wanted: impl Fn(&StreamId) -> bool,
    ) -> Poll<Option<Result<Delivery, Notice>>> {
        // Before looking, so that nothing that comes meanwhile is missed.
        self.bell.wait(cx);
        let mut state = self.lock();
        if state.closed {
            return Poll::Ready(None);
        }
        if let Some(notice) = state.notices.pop_front() {
            return Poll::Ready(Some(Err(notice)));
        }
        let count = state.lanes.len();
        let (from, given) = state.turn;
        let from = if given < TURN { from } else { from + 1 };
        for offset in 0..count {
            let index = (from + offset) % count;
            let lane = &state.lanes[index];
            let Some(delivery) = is_wanted(&lane.member.stream).then(|| lane.take()).flatten() else { continue };
            let given = if (index, offset) == (state.turn.0, 0) && given < TURN { given + 1 } else { 1 };
            state.turn = (index, given);
            return Poll::Ready(Some(Ok(delivery)));
        }
        Poll::Pending
    }

    pub(super) fn add(&self, tenure: &Arc<Tenure>) {
        self.lock().lanes.push(tenure.clone());
        self.bell.ring();
    }

    pub(super) fn remove(&self, tenure: &Arc<Tenure>) {
        self.lock().lanes.retain(|other| !Arc::ptr_eq(other, tenure));
    }

    pub(super) fn tell(&self, notice: Notice) {
        let mut state = self.lock();
        if !state.closed {
            state.notices.push_back(notice);
        }
        drop(state);
        self.bell.ring();
    }

    /// Hands out nothing any more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.notices.clear();
        drop(state);
        self.bell.ring();
    }
}
