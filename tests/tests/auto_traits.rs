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
        Epoch,
        Error,
        Job,
        JobInfo,
        JobKey,
        JobState,
        Node,
        NodeBuilder,
        NodeId,
        WorkerId,
        WorkerInfo,
        WorkerOptions,
    ];
}
