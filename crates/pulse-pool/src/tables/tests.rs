use pulse_core::Session;

use super::*;
use crate::{
    Epoch, NodeId,
    id::DispatchId,
    record::Terms,
    write::{Written, write},
};

/// A pool with a job of one worker, `W`, and the lease of its node.
struct Fixture {
    client: Client,
    tables: Tables,
    key: JobKey,
    job: JobRecord,
    session: Session,
}

const W: WorkerId = WorkerId(1);
const OTHER: WorkerId = WorkerId(2);

fn dispatch(key: &JobKey, record: Bytes, owner: &KnownWorker) -> Dispatch {
    Dispatch { key: key.clone(), trace: None, record, entry: Bytes::new(), owner: Some(owner.clone()) }
}

impl Fixture {
    async fn new() -> Self {
        let client = pulse_core::connect("memory:").await.unwrap();
        let tables = Tables::join(&client, "pool", NodeId(1), true).await.unwrap();
        let session = Session::open(&client, tables.scope(), Duration::from_secs(10)).await.unwrap();
        let workers = [W, OTHER].map(|id| (id, tables.workers.encode(&Self::worker()).unwrap()));
        client.commit(tables.register(&workers[..1], session.lease())).await.unwrap();
        let (key, job) =
            (JobKey::new("key").unwrap(), JobRecord::dispatched(DispatchId(7), Terms::default(), Some(W), None));
        let record = tables.jobs.encode(&job).unwrap();
        let dispatch = tables.dispatch([dispatch(&key, record, &workers[0])].iter(), 10);
        let version = client.commit(dispatch).await.unwrap().version(JOBS.text());
        tables.jobs.wait_for(version).await.unwrap();
        Self { client, tables, key, job, session }
    }

    fn worker() -> WorkerRecord {
        WorkerRecord { node: NodeId(1), weight: 1, draining: false, labels: Vec::new() }
    }

    fn encode(&self, record: &JobRecord) -> Bytes {
        self.tables.jobs.encode(record).unwrap()
    }

    async fn try_to(&self, change: &Transaction) -> Written {
        write(&self.client, change, None, None).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_node_writes_after_its_lease_is_refused() {
    let pool = Fixture::new().await;
    let (tables, key, lease) = (&pool.tables, &pool.key, pool.session.lease());
    let old = pool.encode(&pool.job);
    let expired = Transaction::new(tables.scope()).drop_lease(lease);
    pool.client.commit(expired).await.unwrap();
    let late = [
        tables.running(lease, key, &old, &pool.encode(&pool.job.running(Epoch(1)))),
        tables.reject(key, &old, lease, pool.encode(&pool.job.rejected("late"))),
        tables.hand_over(key, &old, None, lease, pool.encode(&pool.job.assigned_to(None, None))),
        tables.register(&[(W, Bytes::new())], lease),
    ];
    for change in &late {
        assert_eq!(pool.try_to(change).await, Written::Refused(Refusal::Membership));
    }
    assert_eq!(tables.read_record(key).await.unwrap(), Some(old));
}

#[tokio::test(start_paused = true)]
async fn a_job_is_taken_over_only_from_a_worker_that_is_gone_and_only_once() {
    let pool = Fixture::new().await;
    let (tables, key, old) = (&pool.tables, &pool.key, pool.encode(&pool.job));
    let session = Session::open(&pool.client, tables.scope(), Duration::from_secs(10)).await.unwrap();
    let other = (OTHER, tables.workers.encode(&Fixture::worker()).unwrap());
    pool.client.commit(tables.register(std::slice::from_ref(&other), session.lease())).await.unwrap();
    let pull = |new: &JobRecord| tables.pull(key, &old, Some(W), &other, session.lease(), pool.encode(new));
    let first = pool.job.assigned_to(Some(OTHER), None);
    assert_eq!(pool.try_to(&pull(&first)).await, Written::Refused(Refusal::Membership));
    let dead = Transaction::new(tables.scope()).drop_lease(pool.session.lease());
    pool.client.commit(dead).await.unwrap();
    let pulled = write(&pool.client, &pull(&first), None, None).await.unwrap();
    assert!(matches!(pulled, Written::Done(_)), "{pulled:?}");
    let again = write(&pool.client, &pull(&pool.job.assigned_to(Some(OTHER), None)), None, None).await.unwrap();
    assert_eq!(again, Written::Refused(Refusal::Record(Some(tables.jobs.encode(&first).unwrap()))));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_assigned_to_a_worker_that_has_changed() {
    let pool = Fixture::new().await;
    let (tables, key) = (&pool.tables, JobKey::new("another").unwrap());
    let known = (W, tables.workers.encode(&Fixture::worker()).unwrap());
    let draining = WorkerRecord { draining: true, ..Fixture::worker() };
    let draining = (W, tables.workers.encode(&draining).unwrap());
    pool.client.commit(tables.register(&[draining], pool.session.lease())).await.unwrap();
    let record = pool.encode(&JobRecord::dispatched(DispatchId(8), Terms::default(), Some(W), None));
    let change = tables.dispatch([dispatch(&key, record, &known)].iter(), 10);
    assert_eq!(pool.try_to(&change).await, Written::Refused(Refusal::Membership));
}
