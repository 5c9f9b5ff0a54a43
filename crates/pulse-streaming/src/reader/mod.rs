//! Readers: every reader sees every event.
//!
//! [`Reader`] is the subscriber's handle; one task for each stream ([`task`]) reads into the buffer that they share.

mod builder;
mod continuity;
mod task;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::builder::ReaderBuilder;
pub(crate) use self::continuity::Missed;
use self::{continuity::Continuity, task::ReaderTask};
use crate::{
    Error, Event, EventStream, Notice, Operation, Start,
    buffer::Buffer,
    filter::Filter,
    streams::{Reading, Streams},
};

/// Reads every event of one or more streams, in the order of each stream.
///
/// It is a `futures::Stream` of events, with an `Err` of [`Notice`] where there is something to be said; see there.
/// It heals by itself and goes on exactly where it was, whatever happened to the connection. Made by
/// [`EventStream::reader`].
///
/// Events wait in a bounded buffer; when the subscriber is slow, reading pauses, and the events stay in the stream.
/// Dropping a reader, with all that [subscribe](Self::subscribe) to it, ends its tasks.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use pulse_streaming::{EventStream, Start};
///
/// let client = pulse_streaming::connect("memory:").await?;
/// let orders = EventStream::new(&client, "orders")?;
/// orders.add("placed", "order 7").await?;
///
/// let mut reader = orders.reader().start(Start::Oldest).join().await?;
/// let event = reader.next().await.expect("open until closed")?;
/// assert_eq!((event.name(), &event.payload()[..]), ("placed", &b"order 7"[..]));
/// reader.close().await;
/// assert!(reader.next().await.is_none());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Reader {
    buffer: Buffer<Result<Event, Notice>>,
    shared: Arc<Shared>,
}

/// What the subscribers of a reader share. With the last of them it goes, and the tasks end.
#[derive(Debug)]
struct Shared {
    filter: Filter,
    block: Duration,
    /// What is read, so that nothing is read twice.
    streams: Streams,
    /// Ends the tasks.
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Reader {
    /// Waits for the next event or notice; `None` once the reader or its client is closed. The same as
    /// `futures::StreamExt::next`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Event, Notice>> {
        std::future::poll_fn(|cx| self.buffer.poll_copy(cx)).await
    }

    /// Begins to read another stream too.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the stream is not read, and can be added again.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyAdded`], [`Error::Closed`], and [`Error::Backend`] if the start could not be settled.
    pub async fn add_stream(&self, stream: &EventStream, start: Start) -> Result<(), Error> {
        if self.shared.cancel.is_cancelled() {
            return Err(Error::Closed { operation: Operation::Read, stream: stream.id().clone() });
        }
        let adding = self.shared.streams.add(stream.id())?;
        let reading = self.begin(stream, start).await?;
        if self.shared.cancel.is_cancelled() {
            // Closed meanwhile: whoever closed it does not wait for what began after that.
            reading.ended.cancelled().await;
            return Err(Error::Closed { operation: Operation::Read, stream: stream.id().clone() });
        }
        adding.done(reading);
        Ok(())
    }

    /// Stops reading a stream, and drops what waits of it. Returns when none of its events will be handed out any more.
    /// The subscription ends with its last stream.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the stream is not read any more either, but its place is not free for
    /// [`add_stream`](Self::add_stream) until this is called again.
    ///
    /// # Errors
    ///
    /// [`Error::NotAdded`].
    pub async fn remove_stream(&self, stream: &EventStream) -> Result<(), Error> {
        self.shared.streams.remove(stream.id()).await
    }

    async fn begin(&self, stream: &EventStream, start: Start) -> Result<Reading, Error> {
        let (continuity, missed) = Continuity::begin(start, stream.info().await?.as_ref());
        let output = self.buffer.producer();
        let reading = Reading::under(&self.shared.cancel);
        let (filter, block) = (self.shared.filter.clone(), self.shared.block);
        let task = ReaderTask::new(stream, continuity, filter, block, output, reading.clone());
        task.begins(missed);
        self.shared.tasks.spawn(task.run());
        Ok(reading)
    }

    /// Another subscriber of this reader in this process: it gets every event and notice that is read from now on, as
    /// this one does, at the price of one read for all. The buffer is common too, so that the slowest of them slows the
    /// reading down; one that is dropped holds nobody up. Streams are added and removed, and [`close`](Self::close)
    /// closes, for all of them.
    #[must_use = "it slows the others down if nobody takes its events"]
    pub fn subscribe(&self) -> Self {
        Self { buffer: self.buffer.seeing(), shared: self.shared.clone() }
    }

    /// Stops reading and waits for the tasks to end. Nothing is handed out afterwards; what was buffered stays in the
    /// stream. Safe to call twice, and whether or not the subscriber still takes events.
    pub async fn close(&self) {
        self.buffer.close();
        self.shared.cancel.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl futures::Stream for Reader {
    type Item = Result<Event, Notice>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.buffer.poll_copy(cx)
    }
}
