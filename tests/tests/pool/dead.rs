//! Jobs that were given up, while the backend does not do its part.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use pulse_core::testing::{Chances, Fault, Operation};
use pulse_pool::{HandlerError, Job, Node, RetryPolicy};
use tests::{Subject, eventually, on_every_backend, soon};

use crate::{faulty_client, keys, node};

on_every_backend!(
    a_payload_that_cannot_be_read_for_a_while_is_kept_with_the_dead,
    a_replay_whose_answer_is_lost_runs_the_job_once,
    the_reason_of_a_dead_job_has_every_cause_once,
);

/// What a function was called with.
#[derive(Debug, Clone, Default)]
struct Calls(Arc<Mutex<Vec<(String, Bytes)>>>);

impl Calls {
    fn note(&self, job: &Job) {
        self.0.lock().unwrap().push((job.key().to_string(), job.payload().clone()));
    }

    fn with(&self, key: &str) -> Vec<Bytes> {
        self.0.lock().unwrap().iter().filter(|(of, _)| of == key).map(|(_, payload)| payload.clone()).collect()
    }
}

fn once() -> RetryPolicy {
    RetryPolicy::new().attempts(1)
}

async fn are_dead(node: &Node, count: usize) {
    eventually("the jobs are given up", async || match node.dead_jobs().await.unwrap().len() {
        dead if dead == count => Ok(()),
        dead => Err(dead),
    })
    .await;
}

async fn a_payload_that_cannot_be_read_for_a_while_is_kept_with_the_dead(subject: Subject) {
    let (link, client) = faulty_client(&subject).await;
    let other = subject.client().await;
    let (a, b) = (node().join(&client).await.unwrap(), node().join(&other).await.unwrap());
    let (calls, unreadable) = (Calls::default(), link.clone());
    let noted = calls.clone();
    let work = move |job: Job| {
        unreadable.set_chances_of(Operation::MapGet, Chances::none().with_failures_before(1.0));
        noted.note(&job);
        async move { Err::<(), HandlerError>("out of tune".into()) }
    };
    a.worker_fn(work).retry(once()).await.unwrap();
    b.enqueue("etude", "for the left hand").await.unwrap();
    eventually("it has failed", async || match calls.with("etude").len() {
        1 => Ok(()),
        count => Err(count),
    })
    .await;
    let before = link.calls(Operation::MapGet);
    eventually("its payload is asked for in vain", async || match link.calls(Operation::MapGet) {
        count if count > before + 3 => Ok(()),
        count => Err(count),
    })
    .await;
    assert_eq!(b.dead_jobs().await.unwrap(), []);
    link.set_chances(Chances::none());
    are_dead(&b, 1).await;
    b.replay("etude").await.unwrap();
    eventually("it is called again", async || match calls.with("etude") {
        payloads if payloads == ["for the left hand"; 2] => Ok(()),
        payloads => Err(payloads),
    })
    .await;
    link.set_chances(Chances::none());
    a.close().await.unwrap();
    b.close().await.unwrap();
}

async fn a_replay_whose_answer_is_lost_runs_the_job_once(subject: Subject) {
    let (link, client) = faulty_client(&subject).await;
    // No worker here and a long lease, so that the next commit is the replay.
    let a = node().worker_ttl(Duration::from_secs(60)).join(&client).await.unwrap();
    let b = node().join(&subject.client().await).await.unwrap();
    let calls = Calls::default();
    let noted = calls.clone();
    let work = move |job: Job| {
        noted.note(&job);
        let is_first = noted.with(job.key().as_str()).len() == 1;
        async move { if is_first { Err("out of tune".into()) } else { Ok(()) } }
    };
    b.worker_fn(work).retry(once()).await.unwrap();
    let keys = keys(8);
    for key in &keys {
        b.enqueue(key, "").await.unwrap();
    }
    are_dead(&b, keys.len()).await;
    for key in &keys {
        link.script(Operation::Commit, 1, Fault::FailAfter);
        soon("the replay is known to have worked", a.replay(key)).await.unwrap();
    }
    eventually("all have run again", async || match keys.iter().filter(|key| calls.with(key).len() < 2).count() {
        0 => Ok(()),
        count => Err(count),
    })
    .await;
    eventually("all have ended", async || match b.jobs().await.unwrap() {
        jobs if jobs.is_empty() => Ok(()),
        jobs => Err(jobs),
    })
    .await;
    assert!(keys.iter().all(|key| calls.with(key).len() == 2), "{calls:?}");
    assert_eq!(b.dead_jobs().await.unwrap(), []);
    a.close().await.unwrap();
    b.close().await.unwrap();
}

/// An error with a cause, as those of libraries are.
#[derive(Debug)]
struct Layer(&'static str, Option<Box<Self>>);

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Layer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.1.as_deref().map(|source| source as _)
    }
}

async fn the_reason_of_a_dead_job_has_every_cause_once(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    let work = |_: Job| async {
        let cause = Layer("reading template", Some(Box::new(Layer("no such file", None))));
        Err::<(), HandlerError>(Box::new(Layer("rendering the mail", Some(Box::new(cause)))))
    };
    node.worker_fn(work).retry(once()).await.unwrap();
    node.enqueue("mail", "").await.unwrap();
    are_dead(&node, 1).await;
    assert_eq!(node.dead_jobs().await.unwrap()[0].reason, "rendering the mail: reading template: no such file");
}
