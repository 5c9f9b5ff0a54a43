//! What a subscription tells its subscriber besides events.
//!
//! Readers and sinks heal by themselves: a lost connection, a restarted server or a failover is waited out, and the
//! subscriber notices nothing but the pause. A [`Notice`] says what healing cannot undo, or what only a human can mend.

use pulse_core::{EventId, StreamId};

use crate::{meter::Meter, reader::Missed};

/// Something the subscriber should know. The subscription goes on after it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Notice {
    /// Events were dropped from the stream, by its retention or with its end, before this reader or any instance of
    /// this sink had them. They will not be delivered.
    #[error("{} of stream {stream} after {after} were dropped before they were delivered", counted(*.events))]
    Missed {
        /// The stream.
        stream: StreamId,
        /// The sink, `None` for a reader.
        sink: Option<String>,
        /// The last event before them.
        after: EventId,
        /// The first event after them, `None` if the stream ended.
        before: Option<EventId>,
        /// How many. `None` if that cannot be told: where a stream ended, where reading began after an event that was
        /// gone by then, or where single events had been removed. It may then be that none was missed.
        events: Option<u64>,
    },
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

fn counted(events: Option<u64>) -> String {
    events.map_or_else(|| "perhaps some events".into(), |events| format!("{events} events"))
}

impl Missed {
    /// Counts and logs it, and says it to the subscriber.
    pub(crate) fn told(self, stream: &StreamId, sink: Option<&str>, meter: &Meter) -> Notice {
        let Self { after, before, events } = self;
        meter.missed(events.unwrap_or(0).try_into().unwrap_or(usize::MAX));
        meter.gaps(1);
        tracing::warn!(%stream, sink, %after, events, "events were dropped before they were delivered");
        Notice::Missed { stream: stream.clone(), sink: sink.map(str::to_owned), after, before, events }
    }
}
