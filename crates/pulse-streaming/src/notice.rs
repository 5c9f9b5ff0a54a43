//! What a subscription tells its subscriber besides events.
//!
//! Readers and sinks heal by themselves: a lost connection, a restarted server or a failover is waited out, and the
//! subscriber notices nothing but the pause. A [`Notice`] says what healing cannot undo, or what only a human can mend.

use pulse_core::{EventId, StreamId};

/// Something the subscriber should know. The subscription goes on after it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Notice {
    /// Events that had been handed out to the sink were deleted from the stream before they were acknowledged. They
    /// will not be delivered again.
    #[error("{} unacknowledged events of stream {stream} were deleted from it and are lost to sink {sink}", .ids.len())]
    Lost {
        /// The stream.
        stream: StreamId,
        /// The sink.
        sink: String,
        /// The events, oldest first.
        ids: Vec<EventId>,
    },
    /// The stream or the sink's cursor on it was destroyed, and the sink has begun anew: with every event of a stream
    /// that is new, or after the last event that this instance knew of. Events that were pending at that time are
    /// not delivered again.
    #[error("sink {sink} lost its cursor on stream {stream} and goes on after {after}")]
    CursorLost {
        /// The stream.
        stream: StreamId,
        /// The sink.
        sink: String,
        /// The events after this one are delivered.
        after: EventId,
    },
    /// Reading fails for a reason that will hardly pass by itself, such as a missing permission or a key that holds
    /// something else. It is tried again all the same; this is said once until reading works again.
    #[error("stream {stream} cannot be read")]
    Failing {
        /// The stream.
        stream: StreamId,
        /// Why.
        #[source]
        source: pulse_core::Error,
    },
}
