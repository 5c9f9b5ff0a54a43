//! Sinks: instances with one name share one cursor, and each event goes to one of them until it is acknowledged.
//!
//! [`Sink`] is the subscriber's handle of one instance. For each stream, one task ([`task`]) reads, claims and tidies,
//! and one ([`settler`]) carries acknowledgements; they share the [`member`]. What they decide is in [`plan`] and
//! [`ledger`].

mod builder;
mod delivery;
mod ledger;
mod member;
pub(crate) mod ordered;
pub(crate) mod plan;
mod run;
mod settler;
mod slot;
mod task;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pulse_core::{Acks, Group};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    builder::SinkBuilder,
    delivery::{Delivery, Settlement},
    run::{Attempt, BatchRunner, Ran, RetryPolicy, Runner},
};
use self::{
    member::{Instance, Member},
    plan::Timing,
    settler::Settler,
    slot::Slot,
    task::SinkTask,
};
use crate::{
    Error, EventStream, Notice, Operation, Start,
    buffer::Buffer,
    filter::Filter,
    streams::{Reading, Streams},
};

/// One instance of a sink. Each event goes to one instance, at least once, until one acknowledges it.
///
/// It is a `futures::Stream` of [`Delivery`]s, with an `Err` of [`Notice`] where there is something to be said; see
/// there. Made by [`EventStream::sink`].
///
/// - **Abandoned deliveries** are made again. An event that is not acknowledged within the ack grace period, because
///   its instance died or its delivery was dropped or took too long, is claimed by any instance that has room, also the
///   same one, with a delivery count one higher. The grace period begins when the event is handed out;
///   [`Delivery::in_progress`] begins it anew.
/// - **Waiting events** in the buffer belong to this instance as long as its subscriber takes at least one per grace
///   period; otherwise other instances may claim them, and they are not handed out here any more.
/// - **Dead instances** leave nothing behind: once what they held is claimed, live ones remove them from the group.
/// - **A slow subscriber** slows the reading down; the buffer is bounded.
/// - **Order**: an instance hands out the first deliveries of a stream's events in the order of the stream.
///
/// [`close`](Self::close) gives what was not handed out to other instances at once. Dropping a sink, with all that
/// [subscribe](Self::subscribe) to it, without closing it is like a crash: other instances get those events after the
/// grace period.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use pulse_streaming::{EventStream, Start};
///
/// let client = pulse_streaming::connect("memory:").await?;
/// let orders = EventStream::new(&client, "orders")?;
/// orders.add("placed", "order 7").await?;
///
/// let mut billing = orders.sink("billing").start(Start::Oldest).join().await?;
/// let delivery = billing.next().await.expect("open until closed")?;
/// assert_eq!((delivery.name(), delivery.deliveries()), ("placed", 1));
/// delivery.ack().await?; // never delivered to "billing" again
/// billing.close().await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Sink {
    buffer: Buffer<Slot>,
    shared: Arc<Shared>,
}

/// What the subscribers of an instance share. With the last of them it goes, and the tasks end.
#[derive(Debug)]
struct Shared {
    group: Group,
    filter: Filter,
    timing: Timing,
    /// How often an event is delivered at most.
    max_deliveries: Option<u64>,
    acks: Acks,
    /// What is read, so that nothing is read twice.
    streams: Streams,
    /// Ends the tasks in good order.
    closing: CancellationToken,
    /// Ends them at once.
    abandon: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.abandon.cancel();
    }
}

impl Sink {
    /// The name that the instances share.
    #[must_use]
    pub fn name(&self) -> &str {
        self.shared.group.as_str()
    }

    /// Waits for the next delivery or notice; `None` once the sink or its client is closed. The same as
    /// `futures::StreamExt::next`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Delivery, Notice>> {
        std::future::poll_fn(|cx| self.poll_delivery(cx)).await
    }

    /// Begins to read another stream too, through the cursor of the same name on that stream. The start counts only if
    /// the stream has no sink of that name yet.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the stream is not read, and can be added again; its cursor may have been made all the
    /// same, and then stays where this start put it.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyAdded`], [`Error::Closed`], and [`Error::Backend`] if the cursor could not be made.
    pub async fn add_stream(&self, stream: &EventStream, start: Start) -> Result<(), Error> {
        if self.shared.closing.is_cancelled() {
            return Err(Error::Closed { operation: Operation::Read, stream: stream.id().clone() });
        }
        let adding = self.shared.streams.add(stream.id())?;
        let reading = self.begin(stream, start).await?;
        if self.shared.closing.is_cancelled() {
            // Closed meanwhile: whoever closed it does not wait for what began after that.
            reading.ended.cancelled().await;
            return Err(Error::Closed { operation: Operation::Read, stream: stream.id().clone() });
        }
        adding.done(reading);
        Ok(())
    }

    /// Stops reading a stream, settles what is on its way, and gives what waits of it back to the other instances, as
    /// [`close`](Self::close) does with all of them. Deliveries that the user still holds stay valid. The subscription
    /// ends with its last stream.
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
        let (client, id) = (stream.client(), stream.id());
        let joined = async {
            client.backend().group_create(id, &self.shared.group, start.group_start()).await?;
            client.backend().group_info(id, &self.shared.group).await
        };
        let info = joined.await.map_err(Error::on(Operation::Join, id))?;
        let known = info.map(|info| info.last_delivered).unwrap_or_default();

        let (requests, received) = mpsc::unbounded_channel();
        let member = Arc::new(Member::new(self.instance(), client, id, requests)?);
        let stop = CancellationToken::new();
        let settler = Settler { member: member.clone(), requests: received, stop: stop.clone() };
        let settler = self.shared.tasks.spawn(settler.run());
        let output = self.buffer.producer();
        let reading = Reading::under(&self.shared.closing);
        let (filter, abandon) = (self.shared.filter.clone(), self.shared.abandon.clone());
        let task = SinkTask::new(member, filter, known, output, (settler, stop), reading.clone(), abandon);
        self.shared.tasks.spawn(task.run());
        Ok(reading)
    }

    fn instance(&self) -> Instance {
        Instance {
            group: self.shared.group.clone(),
            timing: self.shared.timing,
            max_deliveries: self.shared.max_deliveries,
            acks: self.shared.acks,
            closing: self.shared.closing.clone(),
            tasks: self.shared.tasks.clone(),
        }
    }

    /// Another subscriber of this instance in this process. They take turns: each delivery and notice goes to one of
    /// them. Streams are added and removed, and [`close`](Self::close) closes, for all of them; so does a
    /// [`run`](Self::run) that ends.
    #[must_use = "it takes its share of the deliveries only if somebody asks it for them"]
    pub fn subscribe(&self) -> Self {
        Self { buffer: self.buffer.sharing(), shared: self.shared.clone() }
    }

    /// Stops reading, settles the acknowledgements that are on their way, and gives what was not handed out back to the
    /// other instances. Nothing is handed out afterwards.
    ///
    /// Deliveries that the user still holds stay valid: they can be acknowledged as before, and are delivered again
    /// after the grace period otherwise. Safe to call twice, and whether or not the subscriber still takes events. Ends
    /// after ten seconds even if the backend does not answer.
    pub async fn close(&self) {
        self.buffer.close();
        self.shared.closing.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    fn poll_delivery(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery, Notice>>> {
        loop {
            match std::task::ready!(self.buffer.poll_next(cx)) {
                None => return Poll::Ready(None),
                Some(Slot::Notice(notice)) => return Poll::Ready(Some(Err(notice))),
                Some(Slot::Event(buffered)) => {
                    if let Some(delivery) = buffered.hand_out() {
                        return Poll::Ready(Some(Ok(delivery)));
                    }
                }
            }
        }
    }
}

impl futures::Stream for Sink {
    type Item = Result<Delivery, Notice>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_delivery(cx)
    }
}
