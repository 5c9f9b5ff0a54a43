//! Whatever of the user's panics, the job comes to an end that is written down, and nothing spins.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use pulse_pool::{Error, HandlerError, Job, JobHandler, JobKey, Plan, RetryPolicy};
use serde::{Serialize, Serializer};
use tests::{Subject, eventually, on_every_backend, soon};

use crate::node;

on_every_backend!(
    a_function_whose_future_panics_when_its_time_is_up_has_failed,
    a_function_whose_future_panics_when_it_is_stopped_is_stopped,
    an_error_that_panics_when_it_is_read_is_a_failure,
    a_result_that_panics_when_it_is_encoded_is_the_end_of_the_job,
    a_value_that_panics_when_it_is_dropped_changes_nothing,
    a_start_whose_error_panics_when_it_is_read_refuses_the_job_once,
    a_stop_and_a_notification_whose_errors_panic_are_over,
    a_handler_that_panics_when_it_is_dropped_leaves_its_node_alone,
    a_producer_whose_error_panics_when_it_is_read_is_asked_again,
);

fn twice() -> RetryPolicy {
    RetryPolicy::new().attempts(2).pauses(Duration::from_millis(10), Duration::from_millis(20))
}

/// Panics when it is dropped, as the runtime of a blocking client does within another runtime.
struct Bomb;

impl Serialize for Bomb {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(7)
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("cannot drop a runtime here");
    }
}

/// Panics when it is printed.
struct Unreadable;

impl fmt::Display for Unreadable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("no words");
    }
}

impl fmt::Debug for Unreadable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("no words either");
    }
}

impl std::error::Error for Unreadable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        panic!("no reason");
    }
}

async fn a_function_whose_future_panics_when_its_time_is_up_has_failed(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    let calls = Arc::<AtomicUsize>::default();
    let count = calls.clone();
    let work = move |_: Job| {
        count.fetch_add(1, Ordering::SeqCst);
        async {
            let _bomb = Bomb;
            std::future::pending::<Result<(), HandlerError>>().await
        }
    };
    node.worker_fn(work).retry(twice()).timeout(Duration::from_millis(50)).concurrency(1).await.unwrap();
    let waits = ["one", "two"].map(|key| node.dispatch_and_wait::<()>((key, "")));
    for outcome in soon("all have ended", futures::future::join_all(waits)).await {
        assert!(matches!(&outcome, Err(Error::Failed { reason, .. }) if reason.contains("longer than")), "{outcome:?}");
    }
    assert_eq!((calls.load(Ordering::SeqCst), node.dead_jobs().await.unwrap().len()), (4, 2));
    node.close().await.unwrap();
}

async fn a_function_whose_future_panics_when_it_is_stopped_is_stopped(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    let work = |_: Job| async {
        let _bomb = Bomb;
        std::future::pending::<Result<(), HandlerError>>().await
    };
    node.worker_fn(work).stop_grace(Duration::from_millis(20)).await.unwrap();
    node.dispatch("aria", "").await.unwrap();
    node.stop("aria").await.unwrap();
    assert_eq!(node.jobs().await.unwrap(), []);
    node.close().await.unwrap();
}

async fn an_error_that_panics_when_it_is_read_is_a_failure(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    node.worker_fn(|_| async { Err::<(), HandlerError>(Unreadable.into()) }).retry(twice()).await.unwrap();
    let outcome = soon("it has ended", node.dispatch_and_wait::<()>(("aria", ""))).await;
    assert!(matches!(&outcome, Err(Error::Failed { reason, .. }) if reason.contains("no words")), "{outcome:?}");
    assert_eq!(node.dead_jobs().await.unwrap()[0].failed, 1);
    node.close().await.unwrap();
}

async fn a_result_that_panics_when_it_is_encoded_is_the_end_of_the_job(subject: Subject) {
    struct Unwritable;

    impl Serialize for Unwritable {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("cannot be written");
        }
    }

    let node = node().join(&subject.client().await).await.unwrap();
    node.worker_fn(|_| async { Ok(Unwritable) }).retry(twice()).await.unwrap();
    let outcome = soon("it has ended", node.dispatch_and_wait::<()>(("aria", ""))).await;
    assert!(
        matches!(&outcome, Err(Error::Failed { reason, .. }) if reason.contains("cannot be written")),
        "{outcome:?}"
    );
    node.close().await.unwrap();
}

async fn a_value_that_panics_when_it_is_dropped_changes_nothing(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    node.worker_fn(|_| async { Ok(Bomb) }).retry(twice()).await.unwrap();
    let outcome = soon("it has ended", node.dispatch_and_wait::<u8>(("aria", ""))).await;
    assert_eq!(outcome.unwrap(), 7);
    assert_eq!(node.dead_jobs().await.unwrap(), []);
    node.close().await.unwrap();
}

/// Panics in all that it leaves behind.
#[derive(Default)]
struct Bad {
    starts: Arc<AtomicUsize>,
    /// Whether it takes jobs.
    starts_well: bool,
    _bomb: Option<Bomb>,
}

#[pulse_pool::async_trait]
impl JobHandler for Bad {
    async fn start(&self, _: Job) -> Result<(), HandlerError> {
        self.starts.fetch_add(1, Ordering::SeqCst);
        if self.starts_well { Ok(()) } else { Err(Unreadable.into()) }
    }

    async fn stop(&self, _: &JobKey) -> Result<(), HandlerError> {
        Err(Unreadable.into())
    }

    async fn notify(&self, _: &JobKey, _: Bytes) -> Result<(), HandlerError> {
        Err(Unreadable.into())
    }
}

async fn a_start_whose_error_panics_when_it_is_read_refuses_the_job_once(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    let bad = Bad::default();
    let starts = bad.starts.clone();
    node.add_worker(bad).await.unwrap();
    let refused = node.dispatch("aria", "").await;
    assert!(matches!(&refused, Err(Error::Rejected { message, .. }) if message.contains("no words")), "{refused:?}");
    assert_eq!(starts.load(Ordering::SeqCst), 1);
    node.close().await.unwrap();
}

async fn a_stop_and_a_notification_whose_errors_panic_are_over(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    node.add_worker(Bad { starts_well: true, ..Bad::default() }).await.unwrap();
    node.dispatch("aria", "").await.unwrap();
    let told = node.notify("aria", "").await;
    assert!(matches!(&told, Err(Error::NotifyFailed { message, .. }) if message.contains("no words")), "{told:?}");
    node.stop("aria").await.unwrap();
    node.close().await.unwrap();
}

async fn a_handler_that_panics_when_it_is_dropped_leaves_its_node_alone(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    let worker = node.add_worker(Bad { _bomb: Some(Bomb), ..Bad::default() }).await.unwrap();
    node.remove_worker(worker).await.unwrap();
    node.worker_fn(|_| async { Ok(7) }).await.unwrap();
    assert_eq!(soon("it has ended", node.dispatch_and_wait::<u32>(("aria", ""))).await.unwrap(), 7);
    node.close().await.unwrap();
}

async fn a_producer_whose_error_panics_when_it_is_read_is_asked_again(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    let asked = Arc::<AtomicUsize>::default();
    let count = asked.clone();
    let producer = move |_| {
        let times = count.fetch_add(1, Ordering::SeqCst);
        async move { if times == 0 { Err(Unreadable.into()) } else { Ok(Plan::new().start(("aria", "")).end()) } }
    };
    let mut schedule = node.schedule("arias", Duration::from_millis(20), producer).await.unwrap();
    soon("its last plan is carried out", schedule.finished()).await;
    eventually("its job is there", async || node.job("aria").await.unwrap().ok_or(())).await;
    node.close().await.unwrap();
}
