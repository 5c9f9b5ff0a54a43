use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use pulse_core::{
    Client, LeaseId, Limits, Memory, Session, Transaction,
    testing::{Fault, Faulty, Operation},
};

use super::*;
use crate::{
    Epoch, Error, JobKey, Node, NodeId, WorkerId,
    group::{Group, MOST},
    id::DispatchId,
    record::{JobRecord, Phase, Terms, WorkerRecord},
    tables::{Dispatch, Done, Started},
};

const W: WorkerId = WorkerId(1);
const OTHER: WorkerId = WorkerId(2);
const LONG: Duration = Duration::from_secs(1000);

/// A pool of two workers, with as many jobs as there are names, which their handlers have accepted a moment ago.
struct Fixture {
    link: Faulty,
    client: Client,
    writing: Writing,
    session: Session,
}

impl Fixture {
    async fn with_jobs(names: &[&str]) -> Self {
        let link = Faulty::new(Arc::new(Memory::with_limits(Limits::default())), 1);
        let client = Client::from_backend(Arc::new(link.clone()));
        let tables = Arc::new(Tables::join(&client, "pool", NodeId(1), true).await.unwrap());
        let session = Session::open(&client, tables.scope(), LONG).await.unwrap();
        let writing = Writing { tables, max_queued: 10, is_full: Arc::default() };
        let this = Self { link, client, writing, session };
        let workers = [W, OTHER].map(|id| (id, this.worker()));
        this.commit(this.tables().register(&workers, this.session.lease())).await;
        let new: Vec<Entry> = names.iter().map(|name| this.new_job(name, W)).collect();
        assert!(this.write_down(new).await.into_iter().all(|wrote| wrote));
        this
    }

    fn tables(&self) -> &Tables {
        &self.writing.tables
    }

    async fn commit(&self, change: Transaction) {
        self.client.commit(change).await.unwrap();
    }

    fn worker(&self) -> Bytes {
        let record = WorkerRecord { node: NodeId(1), weight: 1, draining: false, labels: Vec::new() };
        self.tables().workers.encode(&record).unwrap()
    }

    fn encode(&self, record: &JobRecord) -> Bytes {
        self.tables().jobs.encode(record).unwrap()
    }

    async fn record(&self, name: &str) -> (Bytes, JobRecord) {
        let raw = self.tables().read_record(&JobKey::new(name).unwrap()).await.unwrap().unwrap();
        (raw.clone(), JobRecord::read(&raw).unwrap())
    }

    fn new_job(&self, name: &str, owner: WorkerId) -> Entry {
        let record = JobRecord::dispatched(DispatchId(7), Terms::default(), Some(owner), None);
        Entry::Dispatched(Dispatch {
            key: JobKey::new(name).unwrap(),
            trace: None,
            record: self.encode(&record),
            entry: Bytes::from_static(b"payload"),
            owner: Some((owner, self.worker())),
        })
    }

    async fn started(&self, name: &str) -> Entry {
        let (old, record) = self.record(name).await;
        let new = self.encode(&record.running(Epoch(1)));
        Entry::Started(Started { key: JobKey::new(name).unwrap(), old, new, lease: self.session.lease() })
    }

    async fn done(&self, name: &str, lease: LeaseId) -> Entry {
        let (old, _) = self.record(name).await;
        let result = Bytes::from_static(b"result");
        Entry::Done(Done { key: JobKey::new(name).unwrap(), old, result, keep_for: LONG, lease })
    }

    /// Which of them are written.
    async fn write_down(&self, entries: Vec<Entry>) -> Vec<bool> {
        let wrote = self.writing.ask(entries).await;
        wrote.into_iter().map(|wrote| matches!(wrote, Wrote::Yes(_))).collect()
    }

    fn commits(&self) -> u64 {
        self.link.calls(Operation::Commit)
    }

    async fn phases(&self) -> Vec<(String, Phase)> {
        let records: BTreeMap<_, _> = self.tables().all_records().await.unwrap();
        records.iter().map(|(key, raw)| (key.to_string(), JobRecord::read(raw).unwrap().phase)).collect()
    }

    /// What stands in a map.
    async fn get(&self, map: &str, key: &str) -> Option<Bytes> {
        let map = self.tables().scope().map(map).unwrap();
        self.client.backend().map_get(&map, &[key]).await.unwrap().remove(0)
    }
}

fn phases<const N: usize>(phases: [(&str, Phase); N]) -> Vec<(String, Phase)> {
    phases.map(|(key, phase)| (key.to_owned(), phase)).to_vec()
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_jobs_is_written_down_in_one_transaction() {
    let pool = Fixture::with_jobs(&["ends", "starts"]).await;
    let before = pool.commits();
    let lease = pool.session.lease();
    let entries = vec![pool.new_job("new", W), pool.started("starts").await, pool.done("ends", lease).await];
    assert_eq!(pool.write_down(entries).await, [true; 3]);
    assert_eq!(pool.commits(), before + 1);
    assert_eq!(pool.phases().await, phases([("new", Phase::Assigned), ("starts", Phase::Running)]));
    for (key, is_queued, payload) in
        [("ends", false, None), ("new", true, Some("payload")), ("starts", false, Some("payload"))]
    {
        assert_eq!(pool.get("pool:queue", key).await.is_some(), is_queued, "{key}");
        assert_eq!(pool.get("pool:payloads", key).await, payload.map(Bytes::from), "{key}");
    }
    assert_eq!(pool.get("pool:results", "ends").await, Some(Bytes::from_static(b"result")));
}

#[tokio::test(start_paused = true)]
async fn a_queue_without_room_for_all_takes_the_first_and_holds_up_nobody_else() {
    let mut pool = Fixture::with_jobs(&["starts"]).await;
    pool.writing.max_queued = 3;
    let before = pool.commits();
    let new = ["a", "b", "c", "d"].map(|name| pool.new_job(name, W));
    let entries = new.into_iter().chain([pool.started("starts").await]).collect();
    assert_eq!(pool.write_down(entries).await, [true, true, false, false, true]);
    assert_eq!(pool.commits(), before + 2);
    // Of fewer places than would go together, none is left empty.
    let new = ["c", "d"].map(|name| pool.new_job(name, W)).into();
    assert_eq!(pool.write_down(new).await, [true, false]);
    assert!(!pool.writing.is_full.load(Ordering::Relaxed), "it may have been the last place");
    assert_eq!(pool.write_down(vec![pool.new_job("d", W)]).await, [false]);
    assert!(pool.writing.is_full.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_holds_up_no_new_job() {
    let pool = Fixture::with_jobs(&["ends", "starts"]).await;
    let other = Session::open(&pool.client, pool.tables().scope(), LONG).await.unwrap();
    let lost = pool.session.lease();
    pool.commit(pool.tables().register(&[(W, pool.worker())], other.lease())).await;
    let entries = vec![pool.started("starts").await, pool.new_job("new", W), pool.done("ends", lost).await];
    pool.commit(Transaction::new(pool.tables().scope()).drop_lease(lost)).await;
    assert_eq!(pool.write_down(entries).await, [false, true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_gone_holds_up_the_jobs_of_no_other() {
    let pool = Fixture::with_jobs(&["starts"]).await;
    pool.commit(pool.tables().unregister(OTHER)).await;
    let entries =
        vec![pool.new_job("a", OTHER), pool.new_job("b", W), pool.new_job("c", OTHER), pool.started("starts").await];
    assert_eq!(pool.write_down(entries).await, [false, true, false, true]);
}

#[tokio::test(start_paused = true)]
async fn new_jobs_that_are_refused_again_and_again_hold_up_nothing_else() {
    let mut pool = Fixture::with_jobs(&["starts"]).await;
    pool.writing.max_queued = 100;
    let gone: Vec<WorkerId> = (10..20).map(WorkerId).collect();
    let mut entries: Vec<Entry> = gone.iter().map(|worker| pool.new_job(&format!("of {worker}"), *worker)).collect();
    entries.extend([pool.started("starts").await, pool.new_job("well", W)]);
    let before = pool.commits();
    let wrote = pool.write_down(entries).await;
    assert_eq!(wrote.iter().filter(|wrote| **wrote).count(), 1, "{wrote:?}");
    assert!(wrote[10], "what has started");
    assert_eq!(pool.commits(), before + 3, "however many workers are gone");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_fails_after_a_refusal_is_asked_nothing_more() {
    let pool = Fixture::with_jobs(&["there"]).await;
    let before = pool.commits();
    pool.link.script(Operation::MapGet, 1, Fault::FailBefore);
    assert_eq!(pool.write_down(vec![pool.new_job("there", W), pool.new_job("new", W)]).await, [false, false]);
    assert_eq!(pool.commits(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_holds_up_nothing_that_ends() {
    let pool = Fixture::with_jobs(&["ends"]).await;
    let lease = pool.session.lease();
    let mark = pool.tables().mark(NodeId(1)).unwrap();
    pool.commit(pool.tables().begin_shutdown(mark, lease)).await;
    let entries = vec![pool.new_job("new", W), pool.done("ends", lease).await];
    assert_eq!(pool.write_down(entries).await, [false, true]);
}

#[tokio::test(start_paused = true)]
async fn records_that_have_changed_hold_up_no_other_job() {
    let names: Vec<String> = (0..8).map(|number| format!("there {number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut pool = Fixture::with_jobs(&names).await;
    pool.writing.max_queued = 100;
    let stale = pool.started("there 0").await;
    let (old, record) = pool.record("there 0").await;
    let moved = pool.encode(&record.assigned_to(Some(OTHER), None));
    pool.commit(pool.tables().replace(&JobKey::new("there 0").unwrap(), &old, moved)).await;
    let before = pool.commits();
    let mut entries: Vec<Entry> = names.iter().skip(1).map(|name| pool.new_job(name, W)).collect();
    entries.extend([pool.new_job("new", W), stale]);
    let wrote = pool.write_down(entries).await;
    assert_eq!(wrote.iter().position(|wrote| *wrote), Some(7), "{wrote:?}");
    assert_eq!(wrote.iter().filter(|wrote| **wrote).count(), 1);
    assert_eq!(pool.commits(), before + 2, "however many they are");
}

#[tokio::test(start_paused = true)]
async fn of_a_key_the_first_is_in_company_and_of_two_leases_those_of_the_first() {
    let pool = Fixture::with_jobs(&["ends", "starts"]).await;
    let (lost, now) = (pool.session.lease(), Session::open(&pool.client, pool.tables().scope(), LONG).await.unwrap());
    let entries = vec![
        pool.new_job("new", W),
        pool.new_job("new", W),
        pool.started("starts").await,
        pool.done("ends", now.lease()).await,
        pool.done("starts", lost).await,
    ];
    assert_eq!(pool.write_down(entries).await, [true, false, true, false, false]);
    // Also where the first is the one that was lost: those of the other go alone, one after the other.
    let entries = vec![pool.done("ends", lost).await, pool.done("starts", now.lease()).await, pool.new_job("more", W)];
    let dropped = Transaction::new(pool.tables().scope()).drop_lease(lost);
    pool.commit(dropped).await;
    pool.commit(pool.tables().register(&[(W, pool.worker())], now.lease())).await;
    assert_eq!(pool.write_down(entries).await, [false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_written_is_not_written_again_and_what_failed_is_said() {
    let pool = Fixture::with_jobs(&["starts"]).await;
    let before = pool.commits();
    pool.link.script(Operation::Commit, 1, Fault::FailAfter);
    let wrote = pool.writing.ask(vec![pool.new_job("a", W), pool.started("starts").await]).await;
    assert!(wrote.iter().all(|wrote| matches!(wrote, Wrote::Perhaps)), "{wrote:?}");
    assert_eq!(pool.commits(), before + 1);
    assert_eq!(pool.phases().await, phases([("a", Phase::Assigned), ("starts", Phase::Running)]));

    pool.link.script(Operation::Commit, 1, Fault::FailBefore);
    let wrote = pool.writing.ask(vec![pool.new_job("b", W), pool.new_job("c", W)]).await;
    assert!(wrote.iter().all(|wrote| matches!(wrote, Wrote::No)), "{wrote:?}");

    // A refusal, and then no answer: only those who were in the second are in doubt.
    pool.link.script(Operation::Commit, 2, Fault::FailAfter);
    let wrote = pool.writing.ask(vec![pool.new_job("a", W), pool.new_job("d", W)]).await;
    assert!(matches!(wrote[..], [Wrote::No, Wrote::Perhaps]), "{wrote:?}");
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_written_has_each_go_on_alone() {
    let pool = Fixture::with_jobs(&["starts"]).await;
    let mut large = pool.new_job("large", W);
    let Entry::Dispatched(job) = &mut large else { unreachable!() };
    job.entry = vec![0; Limits::default().value_bytes + 1].into();
    let entries = vec![large, pool.started("starts").await];
    assert_eq!(pool.write_down(entries).await, [false, false]);
    assert_eq!(pool.write_down(vec![pool.started("starts").await]).await, [true]);
}

/// How many commits it takes to dispatch so many at once.
async fn commits_of(link: &Faulty, node: &Node, keys: std::ops::Range<u32>) -> u64 {
    let before = link.calls(Operation::Commit);
    for recorded in join_all(keys.map(|key| node.enqueue(key.to_string(), ""))).await {
        recorded.unwrap();
    }
    link.calls(Operation::Commit) - before
}

#[tokio::test(start_paused = true)]
async fn jobs_go_together_until_the_queue_is_full_and_when_it_has_room_again() {
    let link = Faulty::new(Arc::new(Memory::with_limits(Limits::default())), 1);
    let client = Client::from_backend(Arc::new(link.clone()));
    let node = Node::builder("pool").max_queued(40).join(&client).await.unwrap();
    assert!(commits_of(&link, &node, 0..40).await < 10);
    let before = link.calls(Operation::Commit);
    let refused = join_all((40..60).map(|key| node.enqueue(key.to_string(), ""))).await;
    assert!(refused.iter().all(|refused| matches!(refused, Err(Error::QueueFull { .. }))), "{refused:?}");
    // Those who came first learned of it in company.
    assert!(link.calls(Operation::Commit) - before < 20 + 10);
    let again = join_all((40..60).map(|key| node.enqueue(key.to_string(), ""))).await;
    assert!(again.iter().all(|refused| matches!(refused, Err(Error::QueueFull { .. }))), "{again:?}");
    for key in 0..40 {
        node.stop(key.to_string()).await.unwrap();
    }
    assert_eq!(commits_of(&link, &node, 40..41).await, 1);
    assert!(commits_of(&link, &node, 41..80).await < 10);
    client.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_there_is_dispatched_again_alone() {
    let link = Faulty::new(Arc::new(Memory::with_limits(Limits::default())), 1);
    let client = Client::from_backend(Arc::new(link.clone()));
    let node = Node::join(&client, "pool").await.unwrap();
    node.enqueue("there", "").await.unwrap();
    while node.jobs().await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let before = link.calls(Operation::Commit);
    let refused = node.enqueue("there", "").await;
    assert!(matches!(refused, Err(Error::Exists { .. })), "{refused:?}");
    assert_eq!(link.calls(Operation::Commit), before + 1);
    client.close().await;
}

/// Waits until so many commits were sent, whether they are answered or not.
async fn sent(link: &Faulty, commits: u64) {
    for _ in 0..1000 {
        if link.calls(Operation::Commit) >= commits {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{} were sent", link.calls(Operation::Commit));
}

#[tokio::test(start_paused = true)]
async fn a_job_does_not_wait_for_the_answer_to_another_and_what_has_begun_goes_before_a_crowd() {
    let pool = Fixture::with_jobs(&["starts"]).await;
    let (link, before) = (pool.link.clone(), pool.commits());
    let started = pool.started("starts").await;
    let new: Vec<Entry> = (0..150).map(|number| pool.new_job(&number.to_string(), W)).collect();
    let client = pool.client.clone();
    let group = Arc::new(Group::new(Writing { max_queued: 1000, ..pool.writing }));
    let ask = |entry| {
        let group = group.clone();
        tokio::spawn(async move { group.ask(entry).await })
    };
    link.pause();
    let mut calls = Vec::new();
    let mut new = new.into_iter();
    for alone in 1..=2 {
        calls.extend(new.next().map(ask));
        sent(&link, before + alone).await;
    }
    // All of these wait, and the one that has begun came last.
    calls.extend(new.map(ask));
    let started = ask(started);
    tokio::task::yield_now().await;
    link.resume();
    let Some(Wrote::Yes(Some(of_started))) = started.await.unwrap() else { panic!("it was not written") };
    let mut later = 0;
    for call in calls {
        let Some(Wrote::Yes(Some(of_new))) = call.await.unwrap() else { panic!("one was not written") };
        later += usize::from(!of_started.includes(&of_new));
    }
    // A hundred went with it.
    assert_eq!(later, 150 - 2 - MOST);
    client.close().await;
}
