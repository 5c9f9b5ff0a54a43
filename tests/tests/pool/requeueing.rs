//! What is not an attempt: what a function says once it was told to stop, and what puts the job back.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use pulse_pool::{Error, HandlerError, Job, NewJob, Node, Requeue, RetryPolicy};
use tests::{Subject, eventually, on_every_backend, soon};

use crate::node;

on_every_backend!(
    what_a_function_says_because_it_moves_is_not_an_attempt,
    a_function_that_panics_because_it_moves_has_not_failed,
    a_function_that_is_stopped_does_not_come_back,
    a_function_puts_its_job_back_without_counting_it,
);

/// The attempts that were made, by their numbers.
type Attempts = Arc<Mutex<Vec<u32>>>;

fn once() -> RetryPolicy {
    RetryPolicy::new().attempts(1)
}

async fn made(attempts: &Attempts, count: usize) {
    eventually("that many attempts are made", async || match attempts.lock().unwrap().len() {
        made if made >= count => Ok(()),
        made => Err(made),
    })
    .await;
}

/// Moves the job of a worker that `work` makes from one node to the other, a few times.
async fn moves<R>(subject: Subject, work: impl Fn(Job) -> R + Clone + Send + Sync + 'static, attempts: &Attempts)
where
    R: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    let client = subject.client().await;
    let nodes = [node().join(&client).await.unwrap(), node().join(&subject.client().await).await.unwrap()];
    let mut worker = nodes[0].worker_fn(work.clone()).retry(once()).await.unwrap();
    nodes[0].dispatch("aria", "").await.unwrap();
    for round in 1..=4 {
        made(attempts, round).await;
        let next = nodes[round % 2].worker_fn(work.clone()).retry(once()).await.unwrap();
        nodes[(round + 1) % 2].remove_worker(worker).await.unwrap();
        worker = next;
    }
    made(attempts, 5).await;
    assert!(attempts.lock().unwrap().iter().all(|attempt| *attempt == 1), "{attempts:?}");
    for node in &nodes {
        assert_eq!(node.dead_jobs().await.unwrap(), []);
        node.close().await.unwrap();
    }
}

async fn what_a_function_says_because_it_moves_is_not_an_attempt(subject: Subject) {
    let attempts = Attempts::default();
    let noted = attempts.clone();
    let work = move |job: Job| {
        noted.lock().unwrap().push(job.attempt());
        async move {
            job.stopped().await;
            Err("cancelled".into())
        }
    };
    moves(subject, work, &attempts).await;
}

async fn a_function_that_panics_because_it_moves_has_not_failed(subject: Subject) {
    let attempts = Attempts::default();
    let noted = attempts.clone();
    let work = move |job: Job| {
        noted.lock().unwrap().push(job.attempt());
        async move {
            job.stopped().await;
            panic!("it was not done");
        }
    };
    moves(subject, work, &attempts).await;
}

async fn a_function_that_is_stopped_does_not_come_back(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    let attempts = Attempts::default();
    let noted = attempts.clone();
    let work = move |job: Job| {
        noted.lock().unwrap().push(job.attempt());
        async move {
            job.stopped().await;
            Err::<(), _>(Requeue::soon().into())
        }
    };
    node.worker_fn(work).await.unwrap();
    node.dispatch("aria", "").await.unwrap();
    made(&attempts, 1).await;
    node.stop("aria").await.unwrap();
    assert_eq!((node.jobs().await.unwrap(), node.dead_jobs().await.unwrap()), (vec![], vec![]));
    node.close().await.unwrap();
}

/// An error with its cause, as most are.
#[derive(Debug)]
struct Because(HandlerError);

impl std::fmt::Display for Because {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the hall is closed")
    }
}

impl std::error::Error for Because {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

/// Stands in the place of the error in it, words and cause, as what `anyhow` makes of it.
#[derive(Debug)]
struct Erased(Requeue);

impl std::fmt::Display for Erased {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Erased {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.0)
    }
}

async fn a_function_puts_its_job_back_without_counting_it(subject: Subject) {
    let node: Node = node().join(&subject.client().await).await.unwrap();
    let attempts = Attempts::default();
    let noted = attempts.clone();
    let work = move |job: Job| {
        let mut attempts = noted.lock().unwrap();
        attempts.push(job.attempt());
        let after = Duration::from_millis(20);
        let error: Option<HandlerError> = match attempts.len() {
            1 => Some(Requeue::after(after).into()),
            2 => Some(Because(Requeue::after(after).into()).into()),
            3 => Some(Erased(Requeue::after(after)).into()),
            4 => Some(Because(Erased(Requeue::after(after)).into()).into()),
            _ => None,
        };
        async move { error.map_or(Ok(job.attempt()), Err) }
    };
    node.worker_fn(work).retry(once()).await.unwrap();
    let outcome: Result<u32, Error> = soon("it has ended", node.dispatch_and_wait(NewJob::new("aria", ""))).await;
    assert_eq!((outcome.unwrap(), attempts.lock().unwrap().as_slice()), (1, [1; 5].as_slice()));
    node.close().await.unwrap();
}
