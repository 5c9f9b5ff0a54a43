//! Options of workers, and what their jobs may ask for.

use std::time::Duration;

use pulse_pool::{
    Error, HandlerError, Job, JobHandler, JobKey, Node, Requeue, RetryPolicy, WorkerOptions, async_trait,
};
use tests::{Subject, eventually, on_every_backend, soon};

use crate::NANOSECOND;

on_every_backend!(
    a_worker_takes_any_weight_and_concurrency,
    a_function_takes_any_time_but_a_time_out_of_nothing,
    a_job_that_failed_is_put_back_for_any_time,
);

async fn node(subject: &Subject) -> Node {
    Node::join(&subject.client().await, subject.scope().as_str()).await.unwrap()
}

async fn a_worker_takes_any_weight_and_concurrency(subject: Subject) {
    for (weight, runs) in [(0, false), (1, true), (u32::MAX, true)] {
        for concurrency in [0, 1, usize::MAX] {
            let node = node(&subject).await;
            let worker = node.worker_fn(|_| async { Ok(()) }).weight(weight).concurrency(concurrency).label("");
            worker.label("l".repeat(1 << 10)).await.unwrap();
            // The other one, so that weights are compared.
            node.worker_fn(|_| async { Ok(()) }).weight(weight.wrapping_sub(1).min(weight)).await.unwrap();
            if runs {
                soon("the job", node.dispatch_and_wait::<()>(("job", ""))).await.unwrap();
            } else {
                node.enqueue("job", "").await.unwrap();
                soon("its end", node.stop("job")).await.unwrap();
            }
            soon("the end", node.close()).await.unwrap();
        }
    }
}

async fn a_function_takes_any_time_but_a_time_out_of_nothing(subject: Subject) {
    let node = node(&subject).await;
    for none in [Duration::ZERO, NANOSECOND] {
        let refused = node.worker_fn(|_| async { Ok(()) }).timeout(none).await;
        assert!(matches!(refused, Err(Error::InvalidOption { .. })), "{none:?} met {refused:?}");
    }
    for time in [Duration::ZERO, NANOSECOND, Duration::MAX] {
        let worker = node.worker_fn(|job: Job| async move { Ok(job.payload().len()) });
        let worker = worker.timeout(Duration::MAX).keep_result(time).stop_grace(time).await.unwrap();
        let length = soon("the job", node.dispatch_and_wait::<usize>(("job", "123"))).await;
        match length {
            Ok(3) => {}
            // A result that is kept for no time may be gone before it is read.
            Err(_) if time < Duration::MAX => {}
            other => panic!("{time:?} met {other:?}"),
        }
        eventually("the job has ended", async || match node.job_keys().await.unwrap() {
            none if none.is_empty() => Ok(()),
            some => Err(some),
        })
        .await;
        soon("the end of the worker", node.remove_worker(worker)).await.unwrap();
    }
    soon("the end", node.close()).await.unwrap();
}

/// Puts each job back once, when it starts or later, for a moment or for ever, as its key says.
struct PutsBack;

#[async_trait]
impl JobHandler for PutsBack {
    async fn start(&self, job: Job) -> Result<(), HandlerError> {
        let time = if job.key().as_str().ends_with("MAX") { Duration::MAX } else { NANOSECOND };
        if job.attempt() > 1 {
            return Ok(());
        }
        if job.key().as_str().starts_with("at once") {
            return Err(Requeue::after(time).into());
        }
        job.requeue(time);
        Ok(())
    }

    async fn stop(&self, _: &JobKey) -> Result<(), HandlerError> {
        Ok(())
    }
}

async fn a_job_that_failed_is_put_back_for_any_time(subject: Subject) {
    for shortest in [Duration::ZERO, Duration::MAX] {
        for longest in [Duration::ZERO, Duration::MAX] {
            let node = node(&subject).await;
            let policy = RetryPolicy::new().attempts(2).pauses(shortest, longest);
            node.worker_fn(|_| async { Err::<(), _>("no such card".into()) }).retry(policy).await.unwrap();
            node.enqueue("job", "").await.unwrap();
            let waits = shortest.min(longest) == Duration::MAX;
            eventually("it has failed as often as it may", async || {
                let dead = node.dead_jobs().await.unwrap().len();
                if waits || dead == 1 { Ok(()) } else { Err(dead) }
            })
            .await;
            if waits {
                soon("its end", node.stop("job")).await.unwrap();
            }
            soon("the end", node.close()).await.unwrap();
        }
    }
    let node = node(&subject).await;
    node.add_worker_with(PutsBack, WorkerOptions::default()).await.unwrap();
    for key in ["at once, MAX", "at once, 1", "later, MAX", "later, 1"] {
        node.enqueue(key, "").await.unwrap();
    }
    for key in ["at once, MAX", "at once, 1", "later, MAX", "later, 1"] {
        soon("its end", node.stop(key)).await.unwrap_or_else(|error| panic!("{key} met {error:?}"));
    }
    soon("the end", node.close()).await.unwrap();
}
