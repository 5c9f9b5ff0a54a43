//! An event as subscribers see it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pulse_core::{EventId, Headers, StreamId, message_pack};
use serde::de::DeserializeOwned;

use crate::{Error, Operation};

/// An event that was read from a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    stream: StreamId,
    event: pulse_core::Event,
}

impl Event {
    pub(crate) fn new(stream: StreamId, event: pulse_core::Event) -> Self {
        Self { stream, event }
    }

    pub(crate) fn into_core(self) -> pulse_core::Event {
        self.event
    }

    pub(crate) fn core(&self) -> &pulse_core::Event {
        &self.event
    }

    /// Its place in the stream.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.event.id
    }

    /// The stream that it was read from.
    #[must_use]
    pub fn stream(&self) -> &StreamId {
        &self.stream
    }

    /// The span in which the event was added, if its headers tell (`traceparent`, `tracestate`): to link to it, or to
    /// go on as its child. [`Sink::run`](crate::Sink::run) links by itself.
    #[cfg(feature = "opentelemetry")]
    #[must_use]
    pub fn trace_context(&self) -> Option<opentelemetry::trace::SpanContext> {
        crate::trace::w3c::read(self.headers())
    }

    /// What happened.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.event.name
    }

    /// The topic, if it has one.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        self.event.topic.as_deref()
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.event.headers
    }

    /// The payload. Cloning it copies nothing.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.event.payload
    }

    /// Takes the payload out.
    #[must_use]
    pub fn into_payload(self) -> Bytes {
        self.event.payload
    }

    /// Decodes the payload, which was encoded as MessagePack.
    ///
    /// # Errors
    ///
    /// [`Error::Payload`] if it is no such value.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        message_pack::decode(&self.event.payload).map_err(|source| Error::Payload {
            operation: Operation::Decode,
            stream: self.stream.clone(),
            source,
        })
    }

    /// When it was added, by the server's clock, at a resolution of one millisecond.
    #[must_use]
    pub fn created_at(&self) -> SystemTime {
        // An id that a stranger made up may lie beyond what the clock can show; it is then as old as can be.
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_millis(self.event.id.millis))
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}
