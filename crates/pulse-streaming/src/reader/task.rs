//! The task that reads one stream for a reader.

use std::{convert::Infallible, time::Duration};

use pulse_core::{Client, Entry, Event as CoreEvent, EventId, StreamId};

use super::continuity::{Continuity, Missed};
use crate::{
    Event, EventStream, Notice, backoff::Backoff, buffer::Producer, dead::letter::is_for, filter::Filter, meter::Meter,
    streams::Reading, trouble::Trouble,
};

/// Reads one stream into the buffer of its reader, batch by batch, from a position that only it knows.
pub(super) struct ReaderTask {
    client: Client,
    stream: StreamId,
    continuity: Continuity,
    filter: Filter,
    /// How long one read waits at the backend.
    block: Duration,
    /// Emptied by the subscriber.
    output: Producer<Result<Event, Notice>>,
    /// Ends when the reader is closed or dropped, or the stream removed.
    reading: Reading,
    trouble: Trouble,
    meter: Meter,
}

impl ReaderTask {
    pub(super) fn new(
        stream: &EventStream,
        continuity: Continuity,
        filter: Filter,
        block: Duration,
        output: Producer<Result<Event, Notice>>,
        reading: Reading,
    ) -> Self {
        Self {
            client: stream.client().clone(),
            stream: stream.id().clone(),
            continuity,
            filter,
            block,
            output,
            reading,
            trouble: Trouble::new(Backoff::default()),
            meter: Meter::new(stream.id(), ""),
        }
    }

    /// Tells what is missing at the start.
    pub(super) fn begins(&self, missed: Option<Missed>) {
        self.output.push(missed.map(|missed| Err(missed.told(&self.stream, None, &self.meter))));
    }

    pub(super) async fn run(mut self) {
        let Reading { stop, ended } = self.reading.clone();
        let _ended = ended.drop_guard();
        tokio::select! {
            () = stop.cancelled() => self.output.retain(|item| match item {
                Ok(event) => *event.stream() != self.stream,
                Err(_) => true,
            }),
            closed = self.read_for_ever() => {
                let Err(error) = closed;
                tracing::debug!(stream = %self.stream, %error, "reader ends");
            }
        }
    }

    /// Returns only when the client is closed.
    async fn read_for_ever(&mut self) -> Result<Infallible, pulse_core::Error> {
        loop {
            match self.step().await {
                Ok(()) => self.trouble.over(&self.stream),
                Err(error @ pulse_core::Error::Closed) => return Err(error),
                Err(error) => {
                    let (pause, notice) = self.trouble.met(&self.stream, error);
                    self.output.push(notice.map(Err));
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    async fn step(&mut self) -> Result<(), pulse_core::Error> {
        let room = self.output.room().await;
        let backend = self.client.backend();
        // Who is behind and finds nothing has missed something, and should learn it now.
        let wait = if self.continuity.caught_up() { self.block } else { Duration::ZERO };
        let read = backend.stream_read(&self.stream, self.continuity.position(), room, wait).await?;
        let ids: Vec<EventId> = read.entries.iter().map(|entry| entry.id).collect();
        let full = ids.len() >= room;
        if self.continuity.doubts(read.stands, &ids) {
            // Should this fail, nothing was taken yet, and the same is read again.
            let info = backend.stream_info(&self.stream).await?;
            let missed = self.continuity.verify(&ids, full, info.as_ref());
            self.output.push(missed.map(|missed| Err(missed.told(&self.stream, None, &self.meter))));
        } else {
            self.continuity.follows(&ids, full);
        }
        self.hand_over(read.entries);
        Ok(())
    }

    fn hand_over(&self, entries: Vec<Entry>) {
        let events: Vec<_> = entries.into_iter().filter_map(|entry| self.wanted(entry)).collect();
        self.meter.delivered(events.len());
        self.output.push(events.into_iter().map(|event| Ok(Event::new(self.stream.clone(), event))));
    }

    fn wanted(&self, entry: Entry) -> Option<CoreEvent> {
        match entry.event {
            Ok(event) if !is_for(&event, None) => None,
            Ok(event) => self.filter.pass(&self.stream, event).ok(),
            Err(malformed) => {
                self.meter.malformed(1);
                tracing::warn!(stream = %self.stream, id = %entry.id, %malformed, "entry skipped");
                None
            }
        }
    }
}
