//! Payloads that this node has recorded a moment ago, for jobs of its own workers: their starts need not fetch them.
//!
//! Each belongs to one dispatch, which never happens twice, so that none can be mistaken for another. What is not here,
//! or not any more, is in the backend.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::id::DispatchId;

/// The most that are kept, and the most bytes of all of them.
const MOST: usize = 4096;
const MOST_BYTES: usize = 4 << 20;

/// What is larger is fetched: it would push many others out.
const LARGEST: usize = 64 << 10;

#[derive(Default)]
pub(crate) struct Fresh(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    by_dispatch: HashMap<DispatchId, Bytes>,
    /// In the order in which they came, also those that are taken.
    order: VecDeque<DispatchId>,
    bytes: usize,
}

impl Fresh {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while holding the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is about to be recorded, at the expense of the oldest.
    pub(crate) fn keep(&self, dispatch: DispatchId, entry: &Bytes) {
        if entry.len() > LARGEST {
            return;
        }
        let mut kept = self.lock();
        // Copied: it may be a small piece of a large buffer.
        if kept.by_dispatch.insert(dispatch, Bytes::copy_from_slice(entry)).is_some() {
            return;
        }
        kept.order.push_back(dispatch);
        kept.bytes += entry.len();
        while kept.order.len() > MOST || kept.bytes > MOST_BYTES {
            let Some(oldest) = kept.order.pop_front() else { return };
            kept.remove(oldest);
        }
    }

    pub(crate) fn take(&self, dispatch: DispatchId) -> Option<Bytes> {
        self.lock().remove(dispatch)
    }
}

impl fmt::Debug for Fresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fresh").field("bytes", &self.lock().bytes).finish_non_exhaustive()
    }
}

impl Kept {
    fn remove(&mut self, dispatch: DispatchId) -> Option<Bytes> {
        let entry = self.by_dispatch.remove(&dispatch)?;
        self.bytes -= entry.len();
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_there_once() {
        let fresh = Fresh::default();
        let entry = Bytes::from_static(b"song");
        fresh.keep(DispatchId(1), &entry);
        // As where a dispatch is sent again.
        fresh.keep(DispatchId(1), &entry);
        assert_eq!(fresh.take(DispatchId(2)), None);
        assert_eq!(fresh.take(DispatchId(1)), Some(entry));
        assert_eq!(fresh.take(DispatchId(1)), None);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_too_large_ones() {
        let fresh = Fresh::default();
        let small = Bytes::from_static(b"song");
        (0..2 * MOST as u64).for_each(|id| fresh.keep(DispatchId(id), &small));
        assert_eq!(fresh.take(DispatchId(MOST as u64 - 1)), None);
        assert_eq!(fresh.take(DispatchId(MOST as u64)), Some(small.clone()));
        let large = Bytes::from(vec![7; LARGEST]);
        (0..100).for_each(|id| fresh.keep(DispatchId(1_000_000 + id), &large));
        assert_eq!(fresh.lock().bytes, MOST_BYTES);
        assert_eq!(fresh.take(DispatchId(MOST as u64 + 1)), None);
        fresh.keep(DispatchId(7), &Bytes::from(vec![7; LARGEST + 1]));
        assert_eq!(fresh.take(DispatchId(7)), None);
    }

    #[test]
    fn what_is_taken_leaves_nothing_behind() {
        let fresh = Fresh::default();
        for id in 0..10 * MOST as u64 {
            fresh.keep(DispatchId(id), &Bytes::from_static(b"song"));
            fresh.take(DispatchId(id));
        }
        let kept = fresh.lock();
        assert!(kept.by_dispatch.is_empty() && kept.order.len() <= MOST && kept.bytes == 0);
    }
}
