//! Headers, which go wherever the job goes.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use pulse_core::Transaction;
use pulse_pool::{Error, HandlerError, Job, JobHandler, JobKey, NewJob, RetryPolicy};
use tests::{Subject, eventually, on_every_backend};

use crate::{keys, mortal_node, node, orchestra};

on_every_backend!(
    a_job_is_started_with_the_headers_that_it_was_dispatched_with,
    headers_go_with_a_job_that_moves_or_whose_node_dies,
    headers_stay_through_retries_and_death_and_replay,
    every_job_of_a_batch_and_of_a_crowd_keeps_its_own_headers,
    a_payload_that_looks_like_headers_is_a_payload,
    headers_that_a_stranger_has_damaged_are_an_error_of_that_job,
);

/// The headers of a job, in their order.
type Said = Vec<(String, String)>;

/// Notes what every job was started with.
#[derive(Debug, Clone, Default)]
struct Notes(Arc<Mutex<Vec<(String, Bytes, Said)>>>);

impl Notes {
    fn take_down(&self, job: &Job) {
        let headers = job.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.0.lock().unwrap().push((job.key().to_string(), job.payload().clone(), headers));
    }

    /// The payload and the headers of each start of a key.
    fn of(&self, key: &str) -> Vec<(Bytes, Said)> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|(of, ..)| of == key).map(|(_, payload, said)| (payload.clone(), said.clone())).collect()
    }

    async fn has(&self, key: &str, starts: usize) -> Vec<(Bytes, Said)> {
        eventually("it was started so often", async || match self.of(key) {
            found if found.len() == starts => Ok(found),
            found => Err(found),
        })
        .await
    }
}

#[pulse_pool::async_trait]
impl JobHandler for Notes {
    async fn start(&self, job: Job) -> Result<(), HandlerError> {
        self.take_down(&job);
        Ok(())
    }

    async fn stop(&self, _: &JobKey) -> Result<(), HandlerError> {
        Ok(())
    }
}

fn said(headers: &[(&str, &str)]) -> Said {
    headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

async fn a_job_is_started_with_the_headers_that_it_was_dispatched_with(subject: Subject) {
    let client = subject.client().await;
    let (node, notes) = (node().join(&client).await.unwrap(), Notes::default());
    node.add_worker(notes.clone()).await.unwrap();
    let job = NewJob::new("violin", "allegro").header("for", "Clara").header("in", "ré").header("for", "Robert");
    node.dispatch_job(job).await.unwrap();
    node.dispatch("viola", "andante").await.unwrap();
    let headers = said(&[("for", "Robert"), ("in", "ré")]);
    assert_eq!(notes.of("violin"), [(Bytes::from_static(b"allegro"), headers)]);
    assert_eq!(notes.of("viola"), [(Bytes::from_static(b"andante"), vec![])]);
    assert_eq!(node.job_payload("violin").await.unwrap().as_deref(), Some(&b"allegro"[..]));
    let stored = client.backend().map_get(&payloads(), &["viola"]).await.unwrap();
    assert_eq!(stored, [Some(Bytes::from_static(b"andante"))], "without headers nothing is added");
    node.stop("violin").await.unwrap();
    assert_eq!(node.job_payload("violin").await.unwrap(), None);
    node.close().await.unwrap();
}

async fn headers_go_with_a_job_that_moves_or_whose_node_dies(subject: Subject) {
    let notes = Notes::default();
    let a = mortal_node().join(&subject.client().await).await.unwrap();
    let b = mortal_node().join(&subject.client().await).await.unwrap();
    let c = mortal_node().join(&subject.client().await).await.unwrap();
    a.add_worker(notes.clone()).await.unwrap();
    c.dispatch_job(NewJob::new("violin", "allegro").header("for", "Clara")).await.unwrap();
    b.add_worker(notes.clone()).await.unwrap();
    a.close().await.unwrap();
    // It may have moved when the second worker joined.
    let starts = notes.has("violin", 2).await;
    drop(b);
    c.add_worker(notes.clone()).await.unwrap();
    let mut all = notes.has("violin", 3).await;
    all.dedup();
    assert_eq!(all, [(Bytes::from_static(b"allegro"), said(&[("for", "Clara")]))], "{starts:?}");
    c.close().await.unwrap();
}

async fn headers_stay_through_retries_and_death_and_replay(subject: Subject) {
    let client = subject.client().await;
    let (node, notes) = (node().join(&client).await.unwrap(), Notes::default());
    let noted = notes.clone();
    let work = move |job: Job| {
        noted.take_down(&job);
        async move { if job.header("for") == Some("Clara") { Err::<(), _>("no ink".into()) } else { Ok(()) } }
    };
    let retry = RetryPolicy::new().attempts(2).pauses(Duration::from_millis(10), Duration::from_millis(20));
    node.worker_fn(work).retry(retry).await.unwrap();
    let job = NewJob::new("letter", "paper").header("for", "Clara");
    for round in 1..=2 {
        if round == 1 {
            let failed = node.dispatch_and_wait::<()>(job.clone()).await;
            assert!(matches!(failed, Err(Error::Failed { .. })), "{failed:?}");
        } else {
            node.replay("letter").await.unwrap();
        }
        notes.has("letter", 2 * round).await;
        eventually("it is dead", async || match node.dead_jobs().await.unwrap().len() {
            1 => Ok(()),
            found => Err(found),
        })
        .await;
    }
    let mut all = notes.of("letter");
    all.dedup();
    assert_eq!(all, [(Bytes::from_static(b"paper"), said(&[("for", "Clara")]))]);
    node.close().await.unwrap();
}

async fn every_job_of_a_batch_and_of_a_crowd_keeps_its_own_headers(subject: Subject) {
    let client = subject.client().await;
    let (node, notes) = (node().join(&client).await.unwrap(), Notes::default());
    node.add_worker(notes.clone()).await.unwrap();
    let job = |key: &String| NewJob::new(key, "").header("name", key);
    let batch: Vec<String> = keys(40).iter().map(|key| format!("batch {key}")).collect();
    let crowd: Vec<String> = keys(40).iter().map(|key| format!("crowd {key}")).collect();
    let outcomes = node.dispatch_batch(batch.iter().map(job)).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let outcomes = futures::future::join_all(crowd.iter().map(|key| node.dispatch_job(job(key)))).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    for key in batch.iter().chain(&crowd) {
        assert_eq!(notes.of(key), [(Bytes::new(), said(&[("name", key)]))]);
    }
    node.close().await.unwrap();
}

fn payloads() -> pulse_core::MapId {
    orchestra().map("pool:payloads").unwrap()
}

/// What the entry of a job with the header `for: Clara` is like.
const ENTRY: &[u8] = b"\xc1pulseh\x01\0\0\0\x01\0\0\0\x03for\0\0\0\x05Claraallegro";

async fn a_payload_that_looks_like_headers_is_a_payload(subject: Subject) {
    let client = subject.client().await;
    let (node, notes) = (node().join(&client).await.unwrap(), Notes::default());
    node.add_worker(notes.clone()).await.unwrap();
    for (number, payload) in [ENTRY, &ENTRY[..7], b"\xc1pulseh\x02later"].into_iter().enumerate() {
        let key = format!("violin {number}");
        node.dispatch(&key, payload).await.unwrap();
        assert_eq!(notes.of(&key), [(Bytes::from_static(payload), vec![])]);
        assert_eq!(node.job_payload(&key).await.unwrap().as_deref(), Some(payload));
    }
    node.close().await.unwrap();
}

async fn headers_that_a_stranger_has_damaged_are_an_error_of_that_job(subject: Subject) {
    let client = subject.client().await;
    let (node, notes) = (node().join(&client).await.unwrap(), Notes::default());
    let damaged: [&[u8]; 5] = [
        &ENTRY[..7],
        &ENTRY[..20],
        b"\xc1pulseh\x02\0\0\0\0",
        b"\xc1pulseh\x01\xff\xff\xff\xff\xff\xff\xff\xffa",
        b"\xc1pulseh\x01\0\0\0\x01\0\0\0\x01\xff\0\0\0\x01a",
    ];
    for (number, damaged) in damaged.into_iter().enumerate() {
        let key = format!("violin {number}");
        node.enqueue(&key, "allegro").await.unwrap();
        let scope = orchestra();
        client.commit(Transaction::new(&scope).put("pool:payloads", key.as_str(), damaged)).await.unwrap();
        let payload = node.job_payload(&key).await;
        let named = payload.as_ref().err().map(|error| format!("{error:?}"));
        assert!(named.is_some_and(|error| error.contains(&key) && error.contains("damaged")), "{payload:?}");
    }
    node.enqueue("viola", "andante").await.unwrap();
    node.add_worker(notes.clone()).await.unwrap();
    notes.has("viola", 1).await;
    eventually("the damaged ones are refused", async || match node.job_keys().await.unwrap() {
        keys if keys.len() == 1 => Ok(()),
        keys => Err(keys),
    })
    .await;
    assert_eq!(notes.0.lock().unwrap().len(), 1, "no handler was called with what is damaged");
    // Keys are as free as ever.
    node.dispatch_job(NewJob::new("violin 0", "allegro").header("for", "Clara")).await.unwrap();
    assert_eq!(notes.of("violin 0"), [(Bytes::from_static(b"allegro"), said(&[("for", "Clara")]))]);
    node.close().await.unwrap();
}
