//! The task that reads one stream for a reader.

use std::{convert::Infallible, time::Duration};

use pulse_core::{Client, Entry, Event as CoreEvent, EventId, StreamId};
use tokio_util::sync::CancellationToken;

use crate::{
    Event, EventStream, Notice, backoff::Backoff, buffer::Producer, filter::Filter, meter::Meter, trouble::Trouble,
};

/// Reads one stream into the buffer of its reader, batch by batch, from a position that only it knows.
pub(super) struct ReaderTask {
    client: Client,
    stream: StreamId,
    /// The last entry that was read; the next read begins after it.
    position: EventId,
    filter: Filter,
    /// How long one read waits at the backend.
    block: Duration,
    /// Emptied by the subscriber.
    output: Producer<Result<Event, Notice>>,
    /// Cancelled when the reader is closed or dropped.
    cancel: CancellationToken,
    trouble: Trouble,
    meter: Meter,
}

impl ReaderTask {
    pub(super) fn new(
        stream: &EventStream,
        position: EventId,
        filter: Filter,
        block: Duration,
        output: Producer<Result<Event, Notice>>,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            client: stream.client().clone(),
            stream: stream.id().clone(),
            position,
            filter,
            block,
            output,
            cancel,
            trouble: Trouble::new(Backoff::default()),
            meter: Meter::new(stream.id(), ""),
        }
    }

    pub(super) async fn run(mut self) {
        let cancel = self.cancel.clone();
        tokio::select! {
            () = cancel.cancelled() => {}
            closed = self.read_for_ever() => {
                let Err(error) = closed;
                tracing::debug!(stream = %self.stream, %error, "reader ends");
            }
        }
    }

    /// Returns only when the client is closed.
    async fn read_for_ever(&mut self) -> Result<Infallible, pulse_core::Error> {
        loop {
            match self.read().await {
                Ok(entries) => {
                    self.trouble.over(&self.stream);
                    self.hand_over(entries);
                }
                Err(error @ pulse_core::Error::Closed) => return Err(error),
                Err(error) => {
                    let (pause, notice) = self.trouble.met(&self.stream, error);
                    self.output.push(notice.map(Err));
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    async fn read(&self) -> Result<Vec<Entry>, pulse_core::Error> {
        let room = self.output.room().await;
        Ok(self.client.backend().stream_read(&self.stream, self.position, room, self.block).await?.entries)
    }

    fn hand_over(&mut self, entries: Vec<Entry>) {
        let Some(last) = entries.last() else { return };
        self.position = self.position.max(last.id);
        let events: Vec<_> = entries.into_iter().filter_map(|entry| self.wanted(entry)).collect();
        self.meter.delivered(events.len());
        self.output.push(events.into_iter().map(|event| Ok(Event::new(self.stream.clone(), event))));
    }

    fn wanted(&self, entry: Entry) -> Option<CoreEvent> {
        match entry.event {
            Ok(event) => self.filter.accepts(&event).then_some(event),
            Err(malformed) => {
                self.meter.malformed(1);
                tracing::warn!(stream = %self.stream, id = %entry.id, %malformed, "entry skipped");
                None
            }
        }
    }
}
