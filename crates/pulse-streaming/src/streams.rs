//! Which streams a reader or a sink reads, so that it reads none twice.
//!
//! Adding a stream takes a while, may fail, and may be given up half-way; until it is [done](Adding::done), the place is
//! only reserved.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use pulse_core::StreamId;

use crate::Error;

/// The streams of one reader or sink.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    added: Mutex<HashSet<StreamId>>,
}

impl Streams {
    /// Reserves the place of a stream.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyAdded`], also while somebody else is adding it.
    pub(crate) fn add(&self, stream: &StreamId) -> Result<Adding<'_>, Error> {
        if !self.lock().insert(stream.clone()) {
            return Err(Error::AlreadyAdded { stream: stream.clone() });
        }
        Ok(Adding { streams: self, stream: Some(stream.clone()) })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<StreamId>> {
        self.added.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reserved place. Dropping it gives it back, whether adding failed or its future was dropped.
#[derive(Debug)]
#[must_use = "the place is given back when this is dropped"]
pub(crate) struct Adding<'a> {
    streams: &'a Streams,
    /// `None` once the stream is read.
    stream: Option<StreamId>,
}

impl Adding<'_> {
    /// Keeps the place, because the stream is read now.
    pub(crate) fn done(mut self) {
        self.stream = None;
    }
}

impl Drop for Adding<'_> {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream {
            self.streams.lock().remove(stream);
        }
    }
}
