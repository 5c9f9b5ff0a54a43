//! The subscriber's handle of one instance of a partitioned sink, and its options.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::try_join_all;
use pulse_core::{Group, Session, StreamId};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    PartitionedStream,
    control::Control,
    coordinator::{Coordinator, Life},
};
use crate::{
    Delivery, Error, Notice, Operation, Start,
    filter::{Wanted, filter_options},
    options::{check_ack_grace, check_block, check_buffer, check_in_flight, check_lease, check_max_deliveries},
    sink::ordered::{Lanes, Ordered},
};

/// One instance of a sink of a [`PartitionedStream`]. Each partition belongs to one instance at a time.
///
/// It is a `futures::Stream` of [`Delivery`]s, with an `Err` of [`Notice`] where there is something to be said. Made
/// by [`PartitionedStream::sink`].
///
/// # What it promises
///
/// - **At least once**, as every sink: an event is delivered until it is acknowledged.
/// - **Order**: the events of a partition, and so those of a key, are handed out for the first time in their order,
///   across all instances. The next owner of a partition gets everything that is unacknowledged of it, oldest first,
///   before anything newer.
/// - **An event that is given back** ([`Delivery::nack`]) comes again before anything of its partition that had not
///   been handed out. What had been handed out before it was given back is in the user's hands already. With
///   [`in_flight(1)`](PartitionedSinkBuilder::in_flight) there is no such thing, and nothing newer is handed out before
///   everything older is done.
/// - **An event that is dropped without a word, or held for longer than the ack grace period**, comes again after that
///   period and before anything of its partition that still waits; newer ones may have been handed out meanwhile.
///   Again `in_flight(1)` excludes that.
///
/// # Instances that come and go
///
/// Partitions are assigned by rendezvous hashing over the living instances: one that comes takes only the
/// partitions that it wins, one that leaves moves only its own. Before a partition goes from a living owner to
/// another one, the old owner hands out nothing more of it and waits until what the user holds of it is acknowledged,
/// given back or dropped, for the ack grace period at most.
///
/// An instance proves by a lease, kept by the server's clock, that it is alive. If it dies, its partitions and all
/// that was pending of them go to others once the lease has run out ([`lease`](PartitionedSinkBuilder::lease)). If it
/// is cut off or stopped for so long, it hands nothing out any more, even before others may take over, and joins again
/// when it can. What the user holds at that moment is delivered to others too; acknowledging it late does no harm.
///
/// # Limits
///
/// An instance that lives keeps its partitions, whether or not it takes anything. Every event is to be acknowledged:
/// what moves with a partition to the next owner is what is pending. There is no use in more instances than partitions.
/// The hashes decide who owns how many: with many more partitions than instances the shares are about equal. A machine
/// that sleeps as a whole does not notice it before its next renewal is refused.
///
/// [`close`](Self::close) hands everything over. Dropping the sink is like a crash.
#[derive(Debug)]
pub struct PartitionedSink {
    group: Group,
    ack_grace: Duration,
    lanes: Arc<Lanes>,
    /// The partitions that it reads.
    owned: watch::Receiver<Vec<u32>>,
    /// Ends it in good order.
    closing: CancellationToken,
    /// Ends it at once.
    abandon: CancellationToken,
    tasks: TaskTracker,
}

impl PartitionedSink {
    /// The name that the instances share.
    #[must_use]
    pub fn name(&self) -> &str {
        self.group.as_str()
    }

    pub(crate) fn ack_grace(&self) -> Duration {
        self.ack_grace
    }

    /// The partitions that this instance owns at the moment, in ascending order.
    #[must_use]
    pub fn owned(&self) -> Vec<u32> {
        self.owned.borrow().clone()
    }

    /// Waits for the next delivery or notice; `None` once the sink or its client is closed. The same as
    /// `futures::StreamExt::next`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Delivery, Notice>> {
        self.next_of(|_| true).await
    }

    /// Waits for the next delivery of a partition of which one is wanted, or notice.
    pub(crate) async fn next_of(&self, is_wanted: impl Fn(&StreamId) -> bool) -> Option<Result<Delivery, Notice>> {
        std::future::poll_fn(|cx| self.lanes.poll_next(cx, &is_wanted)).await
    }

    /// Hands over the partitions and leaves. Nothing is handed out afterwards.
    ///
    /// As in every hand-over, it waits for the deliveries that the user still holds, for the ack grace period at most:
    /// settle or drop them first, or from another task. Safe to call twice. Ends soon after that period even if the
    /// backend does not answer.
    pub async fn close(&self) {
        self.lanes.close();
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl futures::Stream for PartitionedSink {
    type Item = Result<Delivery, Notice>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.lanes.poll_next(cx, |_| true)
    }
}

impl Drop for PartitionedSink {
    fn drop(&mut self) {
        self.abandon.cancel();
    }
}

/// Options of a [`PartitionedSink`]; made by [`PartitionedStream::sink`], used up by [`join`](Self::join). All
/// instances of a sink should have the same.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it joins"]
pub struct PartitionedSinkBuilder {
    stream: PartitionedStream,
    name: String,
    start: Start,
    wanted: Wanted,
    buffer: usize,
    in_flight: Option<usize>,
    block: Duration,
    ack_grace: Duration,
    lease: Duration,
    max_deliveries: Option<u64>,
}

impl PartitionedSinkBuilder {
    pub(super) fn new(stream: &PartitionedStream, name: String) -> Self {
        Self {
            stream: stream.clone(),
            name,
            start: Start::default(),
            wanted: Wanted::default(),
            buffer: 128,
            in_flight: None,
            block: Duration::from_secs(5),
            ack_grace: Duration::from_secs(30),
            lease: Duration::from_secs(10),
            max_deliveries: None,
        }
    }

    /// Sets where a sink begins that no instance ever joined; later ones go on at the shared cursors. Default:
    /// [`Start::Newest`].
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    filter_options!(" The others are acknowledged for this sink.");

    /// Sets how many events of each partition may wait for the subscriber. Default 128.
    pub fn buffer(mut self, events: usize) -> Self {
        self.buffer = events;
        self
    }

    /// Sets how many events of one partition may be handed out and not acknowledged at once. With 1, an event is handed
    /// out only when everything older of its partition is done. Default: any number, so that the work of a partition
    /// can be pipelined.
    pub fn in_flight(mut self, events: usize) -> Self {
        self.in_flight = Some(events);
        self
    }

    /// Sets how long one read waits at the backend for an event. New events end the wait at once, so this is no
    /// latency. At most a year. Default 5 s.
    pub fn block(mut self, time: Duration) -> Self {
        self.block = time;
        self
    }

    /// Sets how long a delivery may stay unacknowledged before it is made again; at most about a third longer passes
    /// until the instance notices. It is also how long a hand-over waits for the user. At most a year. Default 30 s.
    pub fn ack_grace(mut self, time: Duration) -> Self {
        self.ack_grace = time;
        self
    }

    /// Sets how long the lease of an instance lasts without a renewal, and so how long after its death others take over
    /// its partitions. From a tenth of a second to a year. Default 10 s.
    pub fn lease(mut self, time: Duration) -> Self {
        self.lease = time;
        self
    }

    /// Sets how often an event is delivered at most. One that was not acknowledged by then goes to the
    /// [dead letters](PartitionedStream::dead_letters) of the sink instead of being delivered once more, and what
    /// follows it in its partition goes on. Default: no bound.
    pub fn max_deliveries(mut self, deliveries: u64) -> Self {
        self.max_deliveries = Some(deliveries);
        self
    }

    /// Joins the sink, creating its cursors, and the partitions, if need be. Where a new sink begins is settled when
    /// this returns: every event added from then on is delivered.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], [`Error::InvalidOption`], [`Error::InvalidPattern`], [`Error::PartitionsDiffer`], and
    /// [`Error::Backend`] if a cursor could not be made or the instance could not be written down.
    pub async fn join(self) -> Result<PartitionedSink, Error> {
        let stream = self.stream;
        let id = stream.partition(0).id();
        check_buffer(id, self.buffer)?;
        check_block(id, self.block)?;
        check_ack_grace(id, self.ack_grace)?;
        check_lease(id, self.lease)?;
        check_max_deliveries(id, self.max_deliveries)?;
        let filter = self.wanted.compile(id)?;
        self.in_flight.map_or(Ok(()), |events| check_in_flight(id, events))?;
        let group = Group::new(&self.name).map_err(Error::name)?;
        stream.settle().await?;
        let start = self.start.group_start();
        let cursors = stream.partitions().iter().map(async |partition| {
            let created = stream.client().backend().group_create(partition.id(), &group, start).await;
            created.map_err(Error::on(Operation::Join, partition.id()))
        });
        try_join_all(cursors).await?;
        let control = Control::new(stream.client(), stream.scope(), &group)?;
        let failed = stream.failed(Operation::Join)?;
        let session = Session::open(stream.client(), stream.scope(), self.lease).await.map_err(&failed)?;
        let life = Life::begin(&control, session).await.map_err(&failed)?;

        let lanes = Arc::new(Lanes::default());
        let (owned_by_now, owned) = watch::channel(Vec::new());
        let (closing, abandon) = (CancellationToken::new(), CancellationToken::new());
        let tasks = TaskTracker::new();
        let ordered = Ordered {
            group: group.clone(),
            ack_grace: self.ack_grace,
            block: self.block,
            buffer: self.buffer,
            in_flight: self.in_flight,
            max_deliveries: self.max_deliveries,
            filter,
            tasks: tasks.clone(),
        };
        let coordinator =
            Coordinator::new(stream, control, ordered, lanes.clone(), owned_by_now, life, closing.clone());
        let ended = abandon.clone();
        tasks.spawn(async move {
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                () = coordinator.run() => {}
            }
        });
        Ok(PartitionedSink { group, ack_grace: self.ack_grace, lanes, owned, closing, abandon, tasks })
    }
}
