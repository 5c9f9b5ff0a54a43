//! Options of a sink instance.

use std::{sync::Arc, time::Duration};

use pulse_core::{Acks, Group};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Shared, Sink, plan::Timing};
use crate::{
    Error, EventStream, Start,
    buffer::Buffer,
    filter::{Wanted, filter_options},
    options::{check_ack_grace, check_block, check_buffer, check_max_deliveries},
    streams::Streams,
};

/// Options of a [`Sink`]; made by [`EventStream::sink`], used up by [`join`](Self::join). All instances of a sink
/// should have the same.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it joins"]
pub struct SinkBuilder {
    stream: EventStream,
    name: String,
    start: Start,
    wanted: Wanted,
    buffer: usize,
    block: Duration,
    ack_grace: Duration,
    max_deliveries: Option<u64>,
    acks: Acks,
}

impl SinkBuilder {
    pub(crate) fn new(stream: &EventStream, name: String) -> Self {
        Self {
            stream: stream.clone(),
            name,
            start: Start::default(),
            wanted: Wanted::default(),
            buffer: 128,
            block: Duration::from_secs(5),
            ack_grace: Duration::from_secs(30),
            max_deliveries: None,
            acks: Acks::Explicit,
        }
    }

    /// Sets where a sink begins that no instance ever joined; later ones go on at the shared cursor. Default:
    /// [`Start::Newest`].
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    filter_options!(" The others are acknowledged for this sink, whichever instance gets them.");

    /// Sets how many events may wait for the subscriber of this instance. They are kept from other instances, so a
    /// small buffer spreads slow work better, and a large one carries quick work faster. Default 128.
    pub fn buffer(mut self, events: usize) -> Self {
        self.buffer = events;
        self
    }

    /// Sets how long one read waits at the backend for an event. New events end the wait at once, so this is no
    /// latency. At most a year. Default 5 s.
    pub fn block(mut self, time: Duration) -> Self {
        self.block = time;
        self
    }

    /// Sets how long a delivery may stay unacknowledged before it is made again; at most about a third longer passes
    /// until an instance notices. At most a year. Default 30 s.
    pub fn ack_grace(mut self, time: Duration) -> Self {
        self.ack_grace = time;
        self
    }

    /// Sets how often an event is delivered at most. One that was not acknowledged by then goes to the
    /// [dead letters](crate::DeadLetters) of the sink instead of being delivered once more. Default: no bound.
    pub fn max_deliveries(mut self, deliveries: u64) -> Self {
        self.max_deliveries = Some(deliveries);
        self
    }

    /// Takes events as acknowledged when they are read: each goes to one instance, at most once. What an instance had
    /// read and not handed out when it ended is lost. [`ack`](crate::Delivery::ack) then does nothing, and events
    /// cannot be given back. Faster, for work that is worth less than its repetition. Default: events are to be
    /// acknowledged.
    pub fn no_ack(mut self) -> Self {
        self.acks = Acks::None;
        self
    }

    /// Joins the sink, creating its cursor, and the stream, if need be. Where a new sink begins is settled when this
    /// returns: every event added from then on is delivered.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], [`Error::InvalidOption`], [`Error::InvalidPattern`], and [`Error::Backend`] if the
    /// cursor could not be made.
    pub async fn join(self) -> Result<Sink, Error> {
        check_buffer(self.stream.id(), self.buffer)?;
        check_block(self.stream.id(), self.block)?;
        check_ack_grace(self.stream.id(), self.ack_grace)?;
        check_max_deliveries(self.stream.id(), self.max_deliveries)?;
        let shared = Shared {
            group: Group::new(&self.name).map_err(Error::name)?,
            filter: self.wanted.compile(self.stream.id())?,
            timing: Timing { grace: self.ack_grace, block: self.block },
            max_deliveries: self.max_deliveries,
            acks: self.acks,
            streams: Streams::default(),
            closing: CancellationToken::new(),
            abandon: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let sink = Sink { buffer: Buffer::new(self.buffer), shared: Arc::new(shared) };
        sink.add_stream(&self.stream, self.start).await?;
        Ok(sink)
    }
}
