//! Events that the store handed out for a read whose future was dropped on the way back.
//!
//! The contract promises that the next read of the same consumer returns them first.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{Consumer, Delivery, Group, StreamId};

type Reader = (StreamId, Group, Consumer);

#[derive(Debug, Default)]
pub(super) struct Undelivered {
    held: Mutex<HashMap<Reader, VecDeque<Delivery>>>,
}

impl Undelivered {
    fn lock(&self) -> MutexGuard<'_, HashMap<Reader, VecDeque<Delivery>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what was left for this reader, up to a limit.
    pub(super) fn take(&self, reader: &Reader, limit: usize) -> Vec<Delivery> {
        let mut held = self.lock();
        let Some(waiting) = held.get_mut(reader) else { return Vec::new() };
        let count = waiting.len().min(limit.max(1));
        let taken = waiting.drain(..count).collect();
        if waiting.is_empty() {
            held.remove(reader);
        }
        taken
    }

    /// Holds events for a reader until it is known whether they arrive.
    pub(super) fn hold(&self, reader: Reader, deliveries: Vec<Delivery>) -> Held<'_> {
        Held { undelivered: self, reader, deliveries }
    }
}

/// Events on their way to a reader. Dropping it leaves them for the reader's next read.
#[derive(Debug)]
pub(super) struct Held<'a> {
    undelivered: &'a Undelivered,
    reader: Reader,
    deliveries: Vec<Delivery>,
}

impl Held<'_> {
    /// They have arrived, or are lost with the connection.
    pub(super) fn release(mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.deliveries)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.deliveries.is_empty() {
            return;
        }
        let mut held = self.undelivered.lock();
        let waiting = held.entry(self.reader.clone()).or_default();
        for delivery in self.deliveries.drain(..).rev() {
            waiting.push_front(delivery);
        }
    }
}
