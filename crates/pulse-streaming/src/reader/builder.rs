//! Options of a reader.

use std::{sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Reader, Shared};
use crate::{
    Error, EventStream, Start,
    buffer::Buffer,
    filter::{Wanted, filter_options},
    options::{check_block, check_buffer},
    streams::Streams,
};

/// Options of a [`Reader`]; made by [`EventStream::reader`], used up by [`join`](Self::join).
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it joins"]
pub struct ReaderBuilder {
    stream: EventStream,
    start: Start,
    wanted: Wanted,
    buffer: usize,
    block: Duration,
}

impl ReaderBuilder {
    pub(crate) fn new(stream: &EventStream) -> Self {
        Self {
            stream: stream.clone(),
            start: Start::default(),
            wanted: Wanted::default(),
            buffer: 1024,
            block: Duration::from_secs(20),
        }
    }

    /// Sets where to begin. Default: [`Start::Newest`].
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    filter_options!("");

    /// Sets how many events may wait for the subscriber. Default 1,024.
    pub fn buffer(mut self, events: usize) -> Self {
        self.buffer = events;
        self
    }

    /// Sets how long one read waits at the backend for an event. New events end the wait at once, so this is no
    /// latency; only that events were added and dropped again while nobody read is told as late as that. At most a
    /// year. Default 20 s.
    pub fn block(mut self, time: Duration) -> Self {
        self.block = time;
        self
    }

    pub(crate) fn wanting(mut self, wanted: Wanted) -> Self {
        self.wanted = wanted;
        self
    }

    /// Begins to read. Where to begin is settled when this returns: every event added from then on is read.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`], [`Error::InvalidPattern`], and [`Error::Backend`] if the start could not be settled.
    pub async fn join(self) -> Result<Reader, Error> {
        check_buffer(self.stream.id(), self.buffer)?;
        check_block(self.stream.id(), self.block)?;
        let reader = Reader {
            buffer: Buffer::new(self.buffer),
            shared: Arc::new(Shared {
                filter: self.wanted.compile(self.stream.id())?,
                block: self.block,
                streams: Streams::default(),
                cancel: CancellationToken::new(),
                tasks: TaskTracker::new(),
            }),
        };
        reader.add_stream(&self.stream, self.start).await?;
        Ok(reader)
    }
}
