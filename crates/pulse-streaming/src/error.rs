//! What can go wrong with a stream, cut by what the caller can do about it.

use std::{fmt, time::Duration};

use pulse_core::{EventId, StreamId};

/// Why a call on a stream, reader or sink failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name of a stream, scope or sink is empty or too long.
    #[error("cannot use this name for a stream, scope or sink")]
    InvalidName {
        /// Which name, and what is wrong with it.
        #[source]
        source: pulse_core::Error,
    },
    /// An option of a reader or sink makes no sense.
    #[error("invalid {option} of {value:?} for stream {stream}: {reason}")]
    InvalidOption {
        /// The stream.
        stream: StreamId,
        /// The option.
        option: &'static str,
        /// Its value.
        value: OptionValue,
        /// What would be right.
        reason: &'static str,
    },
    /// A pattern for topics is no regular expression.
    #[error("invalid pattern {pattern:?} for topics of stream {stream}")]
    InvalidPattern {
        /// The stream.
        stream: StreamId,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        #[source]
        source: pulse_core::Source,
    },
    /// The reader or sink does not read this stream.
    #[error("stream {stream} is not read here, so it cannot be removed")]
    NotAdded {
        /// The stream.
        stream: StreamId,
    },
    /// The stream has as many events as it may have, so nothing was added.
    #[error(
        "stream {stream} is full: it has {length} events and may have {capacity}; add again when some were dropped or consumed"
    )]
    Full {
        /// The stream.
        stream: StreamId,
        /// How many events it has.
        length: u64,
        /// How many it may have.
        capacity: u64,
    },
    /// A payload could not be encoded, or does not decode as the type that was asked for.
    #[error("cannot {operation} stream {stream}: the payload is no such value")]
    Payload {
        /// What was asked.
        operation: Operation,
        /// The stream.
        stream: StreamId,
        /// What is wrong with it.
        #[source]
        source: pulse_core::Source,
    },
    /// The payload of a dead letter did not fit into it, and the original is not in the stream any more.
    #[error("the payload of event {id} of stream {stream} is gone: its dead letter had no room for it")]
    PayloadGone {
        /// The stream.
        stream: StreamId,
        /// The event.
        id: EventId,
    },
    /// The reader or sink reads this stream already; reading it twice would hand every event out twice.
    #[error("stream {stream} was added already: add each stream once")]
    AlreadyAdded {
        /// The stream.
        stream: StreamId,
    },
    /// The delivery is not this instance's any more: the ack grace period passed and another delivery of the event was
    /// made, or the event was acknowledged, or somebody took it from the group.
    #[error(
        "event {id} of stream {stream} is no longer held here: it was delivered again, acknowledged or taken from the sink; stop working on it"
    )]
    Superseded {
        /// The stream.
        stream: StreamId,
        /// The event.
        id: EventId,
    },
    /// The partitioned stream was made with another number of partitions, which decides where each key lives.
    #[error("stream {stream} has {recorded} partitions and cannot be used with {asked}: open it with {recorded}")]
    PartitionsDiffer {
        /// The name of the stream.
        stream: String,
        /// How many partitions it was opened with here.
        asked: u32,
        /// How many it has.
        recorded: u32,
    },
    /// The reader or sink was closed.
    #[error("cannot {operation} stream {stream}: the reader or sink is closed")]
    Closed {
        /// What was asked.
        operation: Operation,
        /// The stream.
        stream: StreamId,
    },
    /// The backend could not do it.
    #[error("cannot {operation} stream {stream}")]
    Backend {
        /// What was asked.
        operation: Operation,
        /// The stream.
        stream: StreamId,
        /// Why.
        #[source]
        source: pulse_core::Error,
    },
}

/// The value of an option that was refused.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionValue {
    /// A time.
    Duration(Duration),
    /// A number of events.
    Count(usize),
}

impl fmt::Debug for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duration(duration) => duration.fmt(f),
            Self::Count(count) => count.fmt(f),
        }
    }
}

/// What was to be done with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Adding events.
    Add,
    /// Dropping events.
    Remove,
    /// Decoding an event.
    Decode,
    /// Asking for its state or that of a sink.
    Describe,
    /// Removing it.
    Destroy,
    /// Removing one of its sinks.
    RemoveSink,
    /// Beginning to read it.
    Read,
    /// Joining a sink.
    Join,
    /// Acknowledging an event.
    Ack,
    /// Giving an event back.
    Nack,
    /// Keeping an event from being delivered again.
    Extend,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add to",
            Self::Remove => "drop events of",
            Self::Decode => "decode an event of",
            Self::Describe => "describe",
            Self::Destroy => "destroy",
            Self::RemoveSink => "remove a sink of",
            Self::Read => "read",
            Self::Join => "join a sink of",
            Self::Ack => "acknowledge an event of",
            Self::Nack => "give back an event of",
            Self::Extend => "extend a delivery of",
        })
    }
}

impl Error {
    /// Whether the same call may succeed later without anybody changing anything here.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. }) || self.backend().is_some_and(pulse_core::Error::is_retryable)
    }

    /// Whether the request may have taken effect although it failed: an event may stand in the stream, say. Repeating
    /// an acknowledgement is always safe; repeating an add may add the event twice.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        self.backend().is_some_and(pulse_core::Error::is_outcome_unknown)
    }

    /// Whether the reader, the sink or the whole client was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Backend { source: pulse_core::Error::Closed, .. })
    }

    /// The backend's error, if that is the cause.
    #[must_use]
    pub fn backend(&self) -> Option<&pulse_core::Error> {
        match self {
            Self::Backend { source, .. } => Some(source),
            _ => None,
        }
    }

    pub(crate) fn name(source: pulse_core::Error) -> Self {
        Self::InvalidName { source }
    }

    /// Makes the error of a failed call on the backend; for `map_err`.
    pub(crate) fn on(operation: Operation, stream: &StreamId) -> impl Fn(pulse_core::Error) -> Self + use<> {
        let stream = stream.clone();
        move |source| Self::Backend { operation, stream: stream.clone(), source }
    }
}
