//! Life in one scope while its servers are harmed: a writer, a follower of the feed, and a consumer of the stream.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use pulse_core::{
    Acks, Client, Consumer, Error, EventId, FeedItem, GapCause, Group, GroupStart, MapId, NewEvent, Scope, StreamId,
    Transaction, Version,
};
use tests::eventually;
use tokio::{sync::watch, task::JoinHandle};

/// How long a call may take: longer than a failover.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(15);

type Trouble = Arc<Mutex<Option<Error>>>;

/// What goes on in one scope.
pub(crate) struct Life {
    client: Client,
    scope: Scope,
    /// Commits that were confirmed.
    sure: Arc<AtomicU64>,
    /// What was last said about one that was not.
    trouble: Trouble,
    enough: Arc<AtomicBool>,
    writer: JoinHandle<u64>,
    /// Where the follower of the feed stands.
    at: watch::Receiver<Option<Version>>,
    follower: JoinHandle<Gaps>,
    consumed: watch::Receiver<BTreeSet<EventId>>,
    consumer: JoinHandle<()>,
}

/// What the feed said of holes.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    pub(crate) disconnected: u32,
    pub(crate) resubscribed: u32,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Report {
    #[cfg(feature = "cluster")]
    pub(crate) unknown: u64,
    pub(crate) gaps: Gaps,
}

impl Life {
    pub(crate) async fn begin(client: &Client, scope: Scope) -> Self {
        let (map, stream) = (scope.map("m").unwrap(), scope.stream("s").unwrap());
        let group = Group::new("g").unwrap();
        client.backend().group_create(&stream, &group, GroupStart::Oldest).await.unwrap();
        let (sure, trouble, enough) = <(Arc<AtomicU64>, Trouble, Arc<AtomicBool>)>::default();
        let writer = tokio::spawn(write(client.clone(), scope.clone(), sure.clone(), trouble.clone(), enough.clone()));
        let (at_sender, at) = watch::channel(None);
        let follower = tokio::spawn(follow(client.clone(), map, at_sender));
        let (consumed_sender, consumed) = watch::channel(BTreeSet::new());
        let consumer = tokio::spawn(consume(client.clone(), stream, group, consumed_sender));
        Self { client: client.clone(), scope, sure, trouble, enough, writer, at, follower, consumed, consumer }
    }

    /// Waits until so many more commits were confirmed.
    pub(crate) async fn goes_on(&self, commits: u64) {
        let goal = self.sure.load(Ordering::Relaxed) + commits;
        // Longer than one patience: a call that waits for a failover may have to wait for the next one too.
        for _ in 0..2 {
            let reached = async {
                while self.sure.load(Ordering::Relaxed) < goal {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            if tokio::time::timeout(TIMEOUT, reached).await.is_ok() {
                return;
            }
        }
        panic!("writing to {} did not go on: {:?}", self.scope, self.trouble.lock().unwrap());
    }

    /// Ends it, and checks that everything that was confirmed is there, once, and was heard of.
    pub(crate) async fn end(self) -> Report {
        self.enough.store(true, Ordering::Relaxed);
        let unknown = self.writer.await.unwrap();
        let sure = self.sure.load(Ordering::Relaxed);
        let (map, stream) = (self.scope.map("m").unwrap(), self.scope.stream("s").unwrap());
        let backend = self.client.backend();
        let counter = backend.map_get(&map, &["n"]).await.unwrap()[0].clone().unwrap();
        let counter: u64 = std::str::from_utf8(&counter).unwrap().parse().unwrap();
        assert!(
            (sure..=sure + unknown).contains(&counter),
            "{}: {sure} were confirmed, {unknown} are unknown, {counter} are there",
            self.scope
        );
        let version = backend.map_version(&map).await.unwrap();
        assert_eq!(version.map(|version| version.revision.0), Some(counter), "one revision for each");
        let mut events = BTreeSet::new();
        let mut after = EventId::ZERO;
        loop {
            let page = backend.stream_read(&stream, after, 1000, Duration::ZERO).await.unwrap().entries;
            let Some(last) = page.last() else { break };
            after = last.id;
            events.extend(page.iter().map(|entry| entry.id));
        }
        assert_eq!(events.len() as u64, counter, "{}: an event for each, in the same transaction", self.scope);
        eventually("the follower has come to the end", async || {
            let at = *self.at.borrow();
            if at == version { Ok(()) } else { Err((at, version)) }
        })
        .await;
        eventually("the consumer has had every event", async || {
            let missing = events.difference(&self.consumed.borrow()).count();
            if missing == 0 { Ok(()) } else { Err(missing) }
        })
        .await;
        self.consumer.abort();
        drop(self.at);
        let gaps = self.follower.await.unwrap();
        Report {
            #[cfg(feature = "cluster")]
            unknown,
            gaps,
        }
    }
}

/// Counts, and appends an event for each count; returns how many ended without anybody knowing.
async fn write(client: Client, scope: Scope, sure: Arc<AtomicU64>, trouble: Trouble, enough: Arc<AtomicBool>) -> u64 {
    let mut unknown = 0;
    while !enough.load(Ordering::Relaxed) {
        let count = Transaction::new(&scope).add("m", "n", 1).append("s", NewEvent::new("e", "p"));
        match client.commit(count).await {
            Ok(_) => {
                sure.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                if error.is_outcome_unknown() {
                    unknown += 1;
                } else {
                    assert!(error.is_retryable(), "{error:?}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                *trouble.lock().unwrap() = Some(error);
            }
        }
    }
    unknown
}

/// Follows the map as a replica does: commits that continue, and a new look after each gap.
async fn follow(client: Client, map: MapId, at: watch::Sender<Option<Version>>) -> Gaps {
    let mut gaps = Gaps::default();
    let mut feed = client.backend().map_feed(&map).await.unwrap();
    let mut version = look(&client, &map).await;
    loop {
        at.send_replace(version);
        let item = tokio::select! {
            item = feed.next() => item.expect("the feed goes on"),
            () = at.closed() => return gaps,
        };
        match item {
            FeedItem::Commit(commit) if commit.continues(version) => version = commit.version(),
            FeedItem::Commit(commit) => {
                let known = version.is_some_and(|version| {
                    version.incarnation == commit.incarnation && version.revision >= commit.after
                });
                assert!(known, "a silent hole between {version:?} and {commit:?}");
            }
            FeedItem::Gap(cause) => {
                match cause {
                    GapCause::Disconnected => gaps.disconnected += 1,
                    GapCause::Resubscribed => gaps.resubscribed += 1,
                    _ => {}
                }
                version = look(&client, &map).await;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Where the map stands, asked until somebody answers.
async fn look(client: &Client, map: &MapId) -> Option<Version> {
    let deadline = Instant::now() + 2 * TIMEOUT;
    loop {
        match client.backend().map_version(map).await {
            Ok(version) => return version,
            Err(error) => assert!(Instant::now() < deadline, "{map} cannot be read: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn consume(client: Client, stream: StreamId, group: Group, consumed: watch::Sender<BTreeSet<EventId>>) {
    let consumer = Consumer::new("c").unwrap();
    loop {
        let wait = Duration::from_millis(500);
        let read = client.backend().group_read(&stream, &group, &consumer, 100, wait, Acks::Explicit).await;
        // What an answer that was lost had handed out is pending, and is claimed.
        let claimed = client.backend().group_claim(&stream, &group, &consumer, Duration::from_secs(1), 100).await;
        let claimed = claimed.map(|claimed| claimed.deliveries);
        for result in [read, claimed] {
            match result {
                Ok(deliveries) => {
                    consumed.send_modify(|seen| seen.extend(deliveries.iter().map(|delivery| delivery.entry.id)));
                    let ids: Vec<EventId> = deliveries.iter().map(|delivery| delivery.entry.id).collect();
                    if !ids.is_empty() {
                        let ack = Transaction::new(stream.scope()).ack(stream.name().clone(), &group, ids);
                        // What could not be acknowledged comes again.
                        let _ = client.commit(ack).await;
                    }
                }
                Err(error) => {
                    assert!(error.is_retryable() || error.is_outcome_unknown() || lost_group(&error), "{error:?}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}

/// While a slot moves, its stream may for a moment be on neither side.
fn lost_group(error: &Error) -> bool {
    matches!(error, Error::NoGroup { .. })
}
