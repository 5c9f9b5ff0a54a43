//! Which streams a reader or a sink reads, so that it reads none twice and can stop reading one.
//!
//! Adding a stream takes a while, may fail, and may be given up half-way; until it is [done](Adding::done), the place
//! is only reserved.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use pulse_core::StreamId;
use tokio_util::sync::CancellationToken;

use crate::Error;

/// The streams of one reader or sink.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    added: Mutex<HashMap<StreamId, Option<Reading>>>,
}

/// A stream that is read.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// Ends the reading in good order.
    pub(crate) stop: CancellationToken,
    /// Cancelled when it has ended.
    pub(crate) ended: CancellationToken,
}

impl Reading {
    /// One that also ends when all of them do.
    pub(crate) fn under(all: &CancellationToken) -> Self {
        Self { stop: all.child_token(), ended: CancellationToken::new() }
    }
}

impl Streams {
    /// Reserves the place of a stream.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyAdded`], also while somebody else is adding it or it is being removed.
    pub(crate) fn add(&self, stream: &StreamId) -> Result<Adding<'_>, Error> {
        let mut added = self.lock();
        if added.contains_key(stream) {
            return Err(Error::AlreadyAdded { stream: stream.clone() });
        }
        added.insert(stream.clone(), None);
        Ok(Adding { streams: self, stream: Some(stream.clone()) })
    }

    /// Ends the reading of a stream and waits until it has ended; its place is free then.
    ///
    /// # Errors
    ///
    /// [`Error::NotAdded`].
    pub(crate) async fn remove(&self, stream: &StreamId) -> Result<(), Error> {
        let reading = self.lock().get(stream).cloned().flatten();
        let reading = reading.ok_or_else(|| Error::NotAdded { stream: stream.clone() })?;
        reading.stop.cancel();
        reading.ended.cancelled().await;
        self.lock().remove(stream);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamId, Option<Reading>>> {
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
    pub(crate) fn done(mut self, reading: Reading) {
        if let Some(stream) = self.stream.take() {
            self.streams.lock().insert(stream, Some(reading));
        }
    }
}

impl Drop for Adding<'_> {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream {
            self.streams.lock().remove(stream);
        }
    }
}
