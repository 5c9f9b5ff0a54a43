//! Everything public can be sent to another thread, shared between threads, and shown in a log.

use std::fmt::Debug;

/// A future may be polled by one thread at a time only.
fn good_future<T: Send + Debug>() {}

fn good<T: Send + Sync + Debug + ?Sized>() {}

macro_rules! all_good {
    ($($type:ty),+ $(,)?) => { $(good::<$type>();)+ };
}

#[test]
fn the_types_of_the_core_are_send_and_sync_and_debug() {
    use pulse_core::*;
    all_good![
        dyn Backend,
        Binding,
        Change,
        Claimed,
        Client,
        ClientBuilder,
        Committed,
        Consumer,
        ConsumerInfo,
        Cursor,
        Deadline,
        Delivery,
        Duplicates,
        Entry,
        Error,
        Event,
        EventId,
        Expectation,
        FailedExpectation,
        FeedItem,
        FeedSender,
        Found,
        GapCause,
        Group,
        GroupInfo,
        GroupStart,
        Headers,
        Incarnation,
        LeaseId,
        Limits,
        Malformed,
        MapCommit,
        MapFeed,
        MapId,
        MapPage,
        Memory,
        NewEvent,
        Outcome,
        ParseEventIdError,
        PendingEvent,
        PendingQuery,
        Reconnect,
        Revision,
        Scope,
        ServerTime,
        Session,
        SessionState,
        Source,
        StreamId,
        StreamInfo,
        SweepGuard,
        Swept,
        Tls,
        Transaction,
        Trim,
        Version,
        Write,
        WriteResult,
    ];
    use pulse_core::{conformance, testing};
    all_good![
        conformance::Case,
        conformance::Subject,
        testing::Chances,
        testing::Fault,
        testing::Faulty,
        testing::FeedChances,
        testing::Operation,
    ];
}

#[test]
fn the_types_of_the_maps_are_send_and_sync_and_debug() {
    use pulse_rmap::*;
    all_good![
        Batch<'static, String>,
        Change<String>,
        ChangeKind,
        Changed,
        Changes<String>,
        Cleared,
        Counted,
        Counter,
        Deleted<String>,
        Error,
        KeyFilter,
        List,
        Listed,
        Map<String>,
        MapBuilder<String>,
        Previous<String>,
        Set<String>,
        Snapshot<String>,
        Update<String>,
        Updated<String>,
    ];
}

#[test]
fn the_types_of_the_streams_are_send_and_sync_and_debug() {
    use pulse_streaming::*;
    good_future::<Settlement>();
    all_good![
        Delivery,
        Error,
        Event,
        EventStream,
        Notice,
        Operation,
        OptionValue,
        Reader,
        ReaderBuilder,
        Sink,
        SinkBuilder,
        Start,
    ];
}

#[test]
fn the_types_of_the_pool_are_send_and_sync_and_debug() {
    use pulse_pool::*;
    all_good![
        Cadence,
        DeadJob,
        Epoch,
        Error,
        Job,
        JobInfo,
        JobKey,
        JobState,
        MissedTicks,
        NewJob,
        Node,
        NodeBuilder,
        NodeId,
        Plan,
        PoolStats,
        Requeue,
        RetryPolicy,
        Schedule,
        Tick,
        Ticker,
        WorkerId,
        WorkerInfo,
        WorkerOptions,
    ];
}

/// Named, so that it need not be called to be checked.
#[allow(dead_code, reason = "it is there to be compiled")]
fn every_call_of_a_pool_can_be_spawned(node: &'static pulse_pool::Node, handler: impl pulse_pool::JobHandler) {
    use pulse_pool::{NewJob, Plan};
    let job = || NewJob::new("key", "");
    tokio::spawn(node.add_worker(handler));
    tokio::spawn(node.dispatch("key", ""));
    tokio::spawn(node.dispatch_job(job()));
    tokio::spawn(node.dispatch_batch([job()]));
    tokio::spawn(node.enqueue("key", ""));
    tokio::spawn(node.enqueue_batch(vec![job()]));
    tokio::spawn(async move { node.dispatch_and_wait::<u32>(job()).await });
    tokio::spawn(async move { node.result::<u32>("key").await });
    tokio::spawn(async move { node.progress::<u32>("key").await });
    tokio::spawn(node.worker_fn(|_| async { Ok(()) }).into_future());
    tokio::spawn(node.stop("key"));
    tokio::spawn(node.notify("key", ""));
    tokio::spawn(node.job_payload("key"));
    tokio::spawn(node.dead_jobs());
    tokio::spawn(node.replay("key"));
    tokio::spawn(node.forget_dead("key"));
    tokio::spawn(async move {
        node.ticker("beat", std::time::Duration::MAX).await?.next().await;
        Ok::<_, pulse_pool::Error>(())
    });
    tokio::spawn(node.schedule("plan", std::time::Duration::MAX, |_| async { Ok(Plan::new()) }));
    tokio::spawn(node.close());
    tokio::spawn(node.shutdown());
}
