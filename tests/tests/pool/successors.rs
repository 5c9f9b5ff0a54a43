//! A run that is over writes nothing over what its successor has written.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use pulse_pool::{Error, HandlerError, Job, JobHandler, JobKey, Node, RetryPolicy};
use tests::{Subject, eventually, on_every_backend};

use crate::{faulty_client, mortal_node, node};

on_every_backend!(
    a_run_whose_job_has_moved_notes_no_progress,
    a_run_that_has_failed_notes_no_progress_of_the_next_attempt,
    a_run_whose_node_was_cut_off_notes_no_progress,
    a_start_that_has_failed_does_not_end_the_job,
    a_run_that_is_asked_to_stop_goes_on_noting_progress,
    a_start_notes_progress_before_it_is_written_down,
);

/// The runs of a job, in their order, each of which has noted its number as progress.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Vec<Job>>>);

impl Runs {
    fn begin(&self, job: &Job) -> usize {
        let mut runs = self.0.lock().unwrap();
        runs.push(job.clone());
        runs.len()
    }

    async fn of(&self, node: &Node, number: usize) -> Job {
        eventually("the run has noted its progress", async || match node.progress::<usize>("aria").await.unwrap() {
            Some(noted) if noted == number => Ok(()),
            other => Err(other),
        })
        .await;
        self.0.lock().unwrap()[number - 1].clone()
    }

    /// A function that goes on until it is stopped, or, the first time, fails if it shall.
    fn work(
        &self,
        fails_first: bool,
    ) -> impl Fn(Job) -> futures::future::BoxFuture<'static, Result<(), HandlerError>> + use<> {
        let runs = self.clone();
        move |job| {
            let number = runs.begin(&job);
            Box::pin(async move {
                job.progress(&number).await?;
                if fails_first && number == 1 {
                    return Err("no ink".into());
                }
                job.stopped().await;
                Err("stopped".into())
            })
        }
    }
}

fn quick() -> RetryPolicy {
    RetryPolicy::new().pauses(Duration::from_millis(10), Duration::from_millis(20))
}

async fn is_over(stale: &Job, node: &Node, progress: usize) {
    let noted = stale.progress(&77_usize).await;
    assert!(matches!(&noted, Err(Error::RunOver { key, .. }) if key.as_str() == "aria"), "{noted:?}");
    assert_eq!(node.progress::<usize>("aria").await.unwrap(), Some(progress));
}

async fn a_run_whose_job_has_moved_notes_no_progress(subject: Subject) {
    let a = node().join(&subject.client().await).await.unwrap();
    let b = node().join(&subject.client().await).await.unwrap();
    let runs = Runs::default();
    let worker = a.worker_fn(runs.work(false)).await.unwrap();
    a.dispatch("aria", "").await.unwrap();
    let first = runs.of(&a, 1).await;
    b.worker_fn(runs.work(false)).await.unwrap();
    a.remove_worker(worker).await.unwrap();
    runs.of(&b, 2).await;
    assert!(!first.may_run());
    is_over(&first, &b, 2).await;
    a.close().await.unwrap();
    b.close().await.unwrap();
}

async fn a_run_that_has_failed_notes_no_progress_of_the_next_attempt(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    let runs = Runs::default();
    node.worker_fn(runs.work(true)).retry(quick()).await.unwrap();
    node.dispatch("aria", "").await.unwrap();
    runs.of(&node, 2).await;
    let first = runs.0.lock().unwrap()[0].clone();
    is_over(&first, &node, 2).await;
    // Nor does it end what it has no say in any more.
    first.finish();
    node.notify("aria", "").await.unwrap_err();
    is_over(&first, &node, 2).await;
    node.close().await.unwrap();
}

async fn a_run_whose_node_was_cut_off_notes_no_progress(subject: Subject) {
    let (link, client) = faulty_client(&subject).await;
    link.set_patience(Duration::from_millis(500));
    let a = mortal_node().join(&client).await.unwrap();
    let b = node().join(&subject.client().await).await.unwrap();
    let runs = Runs::default();
    a.worker_fn(runs.work(false)).await.unwrap();
    a.dispatch("aria", "").await.unwrap();
    let first = runs.of(&a, 1).await;
    link.partition();
    b.worker_fn(runs.work(false)).await.unwrap();
    runs.of(&b, 2).await;
    link.heal();
    is_over(&first, &b, 2).await;
    drop(a);
    b.close().await.unwrap();
}

/// Fails when it starts for the second and third time, and hands on what it was to run.
struct Moody(Runs);

#[pulse_pool::async_trait]
impl JobHandler for Moody {
    async fn start(&self, job: Job) -> Result<(), HandlerError> {
        let number = self.0.begin(&job);
        job.progress(&number).await?;
        if number == 2 || number == 3 { Err("not now".into()) } else { Ok(()) }
    }

    async fn stop(&self, _: &JobKey) -> Result<(), HandlerError> {
        Ok(())
    }
}

async fn a_start_that_has_failed_does_not_end_the_job(subject: Subject) {
    let a = node().join(&subject.client().await).await.unwrap();
    let b = node().join(&subject.client().await).await.unwrap();
    let runs = Runs::default();
    let worker = a.add_worker(Moody(runs.clone())).await.unwrap();
    a.dispatch("aria", "").await.unwrap();
    b.add_worker(Moody(runs.clone())).await.unwrap();
    a.remove_worker(worker).await.unwrap();
    runs.of(&b, 4).await;
    let stale: Vec<Job> = runs.0.lock().unwrap()[..3].to_vec();
    for job in &stale {
        is_over(job, &b, 4).await;
        job.give_up("it has no say");
    }
    runs.of(&b, 4).await;
    b.stop("aria").await.unwrap();
    assert_eq!(b.dead_jobs().await.unwrap(), []);
    a.close().await.unwrap();
    b.close().await.unwrap();
}

async fn a_run_that_is_asked_to_stop_goes_on_noting_progress(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    let noted = Arc::<Mutex<Vec<bool>>>::default();
    let note = noted.clone();
    let work = move |job: Job| {
        let note = note.clone();
        async move {
            job.progress(&1).await?;
            job.stopped().await;
            let ok = job.progress(&2).await.is_ok();
            note.lock().unwrap().push(ok);
            Err::<(), _>("stopped".into())
        }
    };
    node.worker_fn(work).await.unwrap();
    node.dispatch("aria", "").await.unwrap();
    eventually("it has begun", async || node.progress::<u8>("aria").await.unwrap().ok_or(())).await;
    node.stop("aria").await.unwrap();
    assert_eq!(*noted.lock().unwrap(), [true]);
    node.close().await.unwrap();
}

async fn a_start_notes_progress_before_it_is_written_down(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    let runs = Runs::default();
    node.add_worker(Moody(runs.clone())).await.unwrap();
    node.dispatch("aria", "").await.unwrap();
    let first = runs.of(&node, 1).await;
    first.progress(&5).await.unwrap();
    assert_eq!(node.progress::<u8>("aria").await.unwrap(), Some(5));
    node.close().await.unwrap();
}
