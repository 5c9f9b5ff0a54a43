//! Options of a reader of all partitions.

use std::time::Duration;

use super::PartitionedStream;
use crate::{
    Error, Reader, Start,
    filter::{Wanted, filter_options},
    options::{check_block, check_buffer},
};

/// Options of a [`Reader`] of all partitions; made by [`PartitionedStream::reader`], used up by [`join`](Self::join).
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it joins"]
pub struct PartitionedReaderBuilder {
    stream: PartitionedStream,
    start: Start,
    wanted: Wanted,
    buffer: Option<usize>,
    block: Option<Duration>,
}

impl PartitionedReaderBuilder {
    pub(super) fn new(stream: &PartitionedStream) -> Self {
        Self { stream: stream.clone(), start: Start::default(), wanted: Wanted::default(), buffer: None, block: None }
    }

    /// Sets where to begin in each partition. Default: [`Start::Newest`].
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    filter_options!("");

    /// Sets how many events may wait for the subscriber, of all partitions together. Default 1,024.
    pub fn buffer(mut self, events: usize) -> Self {
        self.buffer = Some(events);
        self
    }

    /// Sets how long one read waits at the backend for an event; see
    /// [`ReaderBuilder::block`](crate::ReaderBuilder::block).
    pub fn block(mut self, time: Duration) -> Self {
        self.block = Some(time);
        self
    }

    /// Begins to read. The events of each partition come in its order; those of different partitions in none.
    ///
    /// # Errors
    ///
    /// [`Error::PartitionsDiffer`], [`Error::InvalidOption`], [`Error::InvalidPattern`], and [`Error::Backend`] if the
    /// start could not be settled.
    pub async fn join(self) -> Result<Reader, Error> {
        let id = self.stream.partition(0).id();
        self.buffer.map_or(Ok(()), |events| check_buffer(id, events))?;
        self.block.map_or(Ok(()), |time| check_block(id, time))?;
        self.wanted.clone().compile(id)?;
        self.stream.settle().await?;
        let mut partitions = self.stream.partitions().iter();
        // There is at least one.
        let first = partitions.next().unwrap_or_else(|| self.stream.partition(0));
        let mut builder = first.reader().start(self.start).wanting(self.wanted);
        if let Some(events) = self.buffer {
            builder = builder.buffer(events);
        }
        if let Some(time) = self.block {
            builder = builder.block(time);
        }
        let reader = builder.join().await?;
        for partition in partitions {
            reader.add_stream(partition, self.start).await?;
        }
        Ok(reader)
    }
}
