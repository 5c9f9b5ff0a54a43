//! Jobs that end by themselves: results, retries, the dead, and being put back.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pulse_core::testing::{Chances, Operation};
use pulse_pool::{Error, HandlerError, Job, JobHandler, JobKey, JobState, NewJob, Node, Requeue, RetryPolicy};
use tests::{Subject, eventually, on_every_backend, soon};
use tokio::sync::Notify;

use crate::{faulty_client, keys, mortal_node, node};

on_every_backend!(
    a_result_reaches_whoever_waits_for_it_wherever_the_job_ran,
    what_fails_is_tried_again_and_then_is_dead_until_it_is_replayed,
    panics_and_time_outs_are_failures,
    no_more_run_at_once_than_there_is_room_for,
    a_function_that_is_stopped_may_come_to_its_end,
    a_function_that_does_not_stop_is_dropped,
    what_ends_while_it_moves_does_not_run_twice,
    a_job_whose_node_dies_is_an_attempt_and_too_many_deaths_end_it,
    a_job_that_kills_its_node_at_once_is_given_up_after_its_attempts,
    an_attempt_that_its_node_stopped_because_it_was_cut_off_does_not_count,
    every_function_is_called_although_answers_are_lost,
    a_job_that_has_ended_before_its_dispatcher_saw_anything_of_it_has_run,
    a_handler_can_end_its_job,
    a_start_can_put_the_job_back,
    a_stop_can_put_the_job_back,
    progress_is_seen_while_the_job_is_there,
    a_job_that_somebody_stops_is_an_error_for_whoever_waits,
    a_key_is_free_again_once_its_job_has_ended,
);

fn quick() -> RetryPolicy {
    RetryPolicy::new().attempts(3).pauses(Duration::from_millis(10), Duration::from_millis(20))
}

async fn gone(node: &Node, key: &str) {
    eventually("the job is gone", async || node.job(key).await.unwrap().map_or(Ok(()), Err)).await;
}

async fn a_result_reaches_whoever_waits_for_it_wherever_the_job_ran(subject: Subject) {
    let (one, two) = (subject.client().await, subject.client().await);
    let (a, b) = (node().join(&one).await.unwrap(), node().join(&two).await.unwrap());
    for node in [&a, &b] {
        node.worker_fn(|job| async move { Ok(job.decode::<u64>()? * 2) }).await.unwrap();
    }
    let jobs = keys(20).into_iter().enumerate().map(async |(number, key)| {
        let doubled: u64 = a.dispatch_and_wait(NewJob::with_value(&key, &number).unwrap()).await.unwrap();
        assert_eq!(doubled, number as u64 * 2);
        assert_eq!(b.result::<u64>(&key).await.unwrap(), Some(doubled));
        assert!(matches!(b.result::<String>(&key).await, Err(Error::Decode { .. })));
    });
    futures::future::join_all(jobs).await;
    assert_eq!(a.result::<u64>("another").await.unwrap(), None);
    eventually("nothing is left", async || {
        if b.jobs().await.unwrap().is_empty() { Ok(()) } else { Err(b.jobs().await.unwrap()) }
    })
    .await;
    a.close().await.unwrap();
    b.close().await.unwrap();
}

async fn what_fails_is_tried_again_and_then_is_dead_until_it_is_replayed(subject: Subject) {
    let client = subject.client().await;
    let node = node().join(&client).await.unwrap();
    let (attempts, mended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let (made, is_mended) = (attempts.clone(), mended.clone());
    let work = move |job: Job| {
        let (made, is_mended) = (made.clone(), is_mended.clone());
        async move {
            made.lock().unwrap().push((job.key().to_string(), job.attempt(), job.epoch()));
            match job.key().as_str() {
                "second time" if job.attempt() == 2 => Ok(job.attempt()),
                "never" if is_mended.load(Ordering::SeqCst) == 1 => Ok(0),
                _ => Err("no ink".into()),
            }
        }
    };
    node.worker_fn(work).retry(quick()).await.unwrap();
    assert_eq!(node.dispatch_and_wait::<u32>(("second time", "")).await.unwrap(), 2);
    let given_up = node.dispatch_and_wait::<u32>(("never", "paper")).await;
    assert!(matches!(&given_up, Err(Error::Failed { reason, .. }) if reason == "no ink"), "{given_up:?}");
    let dead = node.dead_jobs().await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].key.as_str(), dead[0].reason.as_str(), dead[0].failed), ("never", "no ink", 2));
    {
        let attempts = attempts.lock().unwrap();
        let of = |key: &str| attempts.iter().filter(|(of, ..)| of == key).map(|(_, n, _)| *n).collect::<Vec<_>>();
        assert_eq!((of("second time"), of("never")), (vec![1, 2], vec![1, 2, 3]));
        assert!(
            attempts.iter().filter(|(of, ..)| of == "never").is_sorted_by(|one, next| one.2 < next.2),
            "epochs grow"
        );
    }
    mended.store(1, Ordering::SeqCst);
    node.replay("never").await.unwrap();
    eventually("it has ended well", async || match node.result::<u32>("never").await {
        Ok(Some(0)) => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(node.dead_jobs().await.unwrap(), []);
    let nobody = node.replay("never").await;
    assert!(matches!(nobody, Err(Error::UnknownJob { .. })), "{nobody:?}");
    node.forget_dead("never").await.unwrap();
    node.close().await.unwrap();
}

async fn panics_and_time_outs_are_failures(subject: Subject) {
    let client = subject.client().await;
    let node = node().join(&client).await.unwrap();
    let work = |job: Job| async move {
        match job.key().as_str() {
            "panics" => panic!("out of tune"),
            _ => std::future::pending::<Result<(), HandlerError>>().await,
        }
    };
    node.worker_fn(work).retry(quick().attempts(2)).timeout(Duration::from_millis(50)).await.unwrap();
    let (panics, hangs) =
        tokio::join!(node.dispatch_and_wait::<()>(("panics", "")), node.dispatch_and_wait::<()>(("hangs", "")));
    assert!(matches!(&panics, Err(Error::Failed { reason, .. }) if reason.contains("out of tune")), "{panics:?}");
    assert!(matches!(&hangs, Err(Error::Failed { reason, .. }) if reason.contains("longer than 50ms")), "{hangs:?}");
    node.close().await.unwrap();
}

async fn no_more_run_at_once_than_there_is_room_for(subject: Subject) {
    let client = subject.client().await;
    let node = node().join(&client).await.unwrap();
    let (now, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (running, peak) = (now.clone(), most.clone());
    let work = move |_| {
        let (running, peak) = (running.clone(), peak.clone());
        async move {
            peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    };
    node.worker_fn(work).concurrency(4).await.unwrap();
    let keys = keys(100);
    let waits = keys.iter().map(|key| node.dispatch_and_wait::<()>((key, "")));
    let outcomes = futures::future::join_all(waits).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!((most.load(Ordering::SeqCst), now.load(Ordering::SeqCst)), (4, 0));
    node.close().await.unwrap();
}

async fn a_function_that_is_stopped_may_come_to_its_end(subject: Subject) {
    let client = subject.client().await;
    let node = node().join(&client).await.unwrap();
    let (begun, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begin, end) = (begun.clone(), ended.clone());
    let work = move |job: Job| {
        let (begin, end) = (begin.clone(), end.clone());
        async move {
            begin.notify_one();
            job.stopped().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            end.notify_one();
            Err::<(), _>("interrupted".into())
        }
    };
    node.worker_fn(work).await.unwrap();
    node.dispatch("sonata", "").await.unwrap();
    begun.notified().await;
    node.stop("sonata").await.unwrap();
    tokio::time::timeout(Duration::from_millis(1), ended.notified()).await.expect("it ended before the stop returned");
    assert_eq!(node.result::<()>("sonata").await.unwrap(), None);
    assert_eq!(node.dead_jobs().await.unwrap(), [], "to be stopped is no failure");
    node.close().await.unwrap();
}

async fn a_function_that_does_not_stop_is_dropped(subject: Subject) {
    let client = subject.client().await;
    let node = node().join(&client).await.unwrap();
    let held = Arc::new(());
    let holding = held.clone();
    let work = move |_| {
        let holding = holding.clone();
        async move {
            let _held = holding;
            std::future::pending::<Result<(), HandlerError>>().await
        }
    };
    node.worker_fn(work).stop_grace(Duration::from_millis(50)).await.unwrap();
    node.dispatch("sonata", "").await.unwrap();
    eventually("the function is called", async || match Arc::strong_count(&held) {
        3 => Ok(()),
        other => Err(other),
    })
    .await;
    node.stop("sonata").await.unwrap();
    assert_eq!(Arc::strong_count(&held), 2);
    node.close().await.unwrap();
}

async fn what_ends_while_it_moves_does_not_run_twice(subject: Subject) {
    let (one, two) = (subject.client().await, subject.client().await);
    let (a, b) = (node().join(&one).await.unwrap(), node().join(&two).await.unwrap());
    let calls = Arc::<AtomicUsize>::default();
    let work = |calls: &Arc<AtomicUsize>| {
        let calls = calls.clone();
        move |job: Job| {
            let calls = calls.clone();
            async move {
                calls.fetch_add(1, Ordering::SeqCst);
                job.stopped().await;
                Ok(job.attempt())
            }
        }
    };
    a.worker_fn(work(&calls)).await.unwrap();
    for key in keys(20) {
        b.dispatch(key, "").await.unwrap();
    }
    b.worker_fn(work(&calls)).await.unwrap();
    a.close().await.unwrap();
    eventually("all have ended", async || {
        if b.jobs().await.unwrap().is_empty() { Ok(()) } else { Err(b.jobs().await.unwrap()) }
    })
    .await;
    assert_eq!(calls.load(Ordering::SeqCst), 20);
    for key in keys(20) {
        assert_eq!(b.result::<u32>(&key).await.unwrap(), Some(1));
    }
    b.close().await.unwrap();
}

async fn a_job_whose_node_dies_is_an_attempt_and_too_many_deaths_end_it(subject: Subject) {
    let client = subject.client().await;
    let watcher = node().join(&client).await.unwrap();
    let attempts = Arc::<Mutex<Vec<u32>>>::default();
    watcher.enqueue("fatal", "").await.unwrap();
    for death in 1..=3 {
        let doomed = mortal_node().join(&subject.client().await).await.unwrap();
        let noted = attempts.clone();
        let work = move |job: Job| {
            noted.lock().unwrap().push(job.attempt());
            std::future::pending::<Result<(), HandlerError>>()
        };
        doomed.worker_fn(work).retry(quick()).await.unwrap();
        attempted(&attempts, death).await;
        drop(doomed);
    }
    watcher.worker_fn(|_| async { Ok(()) }).retry(quick()).await.unwrap();
    gone(&watcher, "fatal").await;
    assert_eq!(*attempts.lock().unwrap(), [1, 2, 3]);
    let given_up = watcher.result::<()>("fatal").await;
    assert!(matches!(&given_up, Err(Error::Failed { reason, .. }) if reason.contains("3 attempts")), "{given_up:?}");
    watcher.close().await.unwrap();
}

/// Waits until so many attempts have begun.
async fn attempted(attempts: &Mutex<Vec<u32>>, times: usize) {
    eventually("it is attempted", async || match attempts.lock().unwrap().len() {
        made if made == times => Ok(()),
        made => Err(made),
    })
    .await;
}

async fn a_job_that_kills_its_node_at_once_is_given_up_after_its_attempts(subject: Subject) {
    let client = subject.client().await;
    let watcher = node().join(&client).await.unwrap();
    let attempts = Arc::<Mutex<Vec<u32>>>::default();
    watcher.enqueue("fatal", "").await.unwrap();
    for death in 1..=3 {
        let (link, client) = faulty_client(&subject).await;
        // So that it takes a while to write anything down.
        let delay = Duration::from_millis(20);
        link.set_chances_of(Operation::Commit, Chances::none().with_delay(delay..=delay));
        let doomed = mortal_node().join(&client).await.unwrap();
        let noted = attempts.clone();
        let work = move |job: Job| {
            // Nothing that has not reached the backend by now ever does.
            link.kill();
            noted.lock().unwrap().push(job.attempt());
            std::future::pending::<Result<(), HandlerError>>()
        };
        doomed.worker_fn(work).retry(quick()).await.unwrap();
        attempted(&attempts, death).await;
    }
    watcher.worker_fn(|_| async { Ok(()) }).retry(quick()).await.unwrap();
    gone(&watcher, "fatal").await;
    assert_eq!(*attempts.lock().unwrap(), [1, 2, 3]);
    let given_up = watcher.result::<()>("fatal").await;
    assert!(matches!(&given_up, Err(Error::Failed { reason, .. }) if reason.contains("3 attempts")), "{given_up:?}");
    watcher.close().await.unwrap();
}

async fn an_attempt_that_its_node_stopped_because_it_was_cut_off_does_not_count(subject: Subject) {
    let (link, client) = faulty_client(&subject).await;
    link.set_patience(Duration::from_millis(500));
    let node = mortal_node().join(&client).await.unwrap();
    let attempts = Arc::<Mutex<Vec<u32>>>::default();
    let noted = attempts.clone();
    let work = move |job: Job| {
        let mut attempts = noted.lock().unwrap();
        attempts.push(job.attempt());
        let is_first = attempts.len() == 1;
        async move { if is_first { std::future::pending().await } else { Ok(()) } }
    };
    node.worker_fn(work).retry(quick().attempts(1)).await.unwrap();
    node.dispatch("etude", "").await.unwrap();
    eventually("it is begun", async || if attempts.lock().unwrap().is_empty() { Err(()) } else { Ok(()) }).await;
    link.partition();
    eventually("the node is cut off", async || if node.is_cut_off() { Ok(()) } else { Err(()) }).await;
    link.heal();
    eventually("it has ended well", async || match node.result::<()>("etude").await {
        Ok(Some(())) => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(*attempts.lock().unwrap(), [1, 1]);
    assert_eq!(node.dead_jobs().await.unwrap(), []);
    node.close().await.unwrap();
}

async fn every_function_is_called_although_answers_are_lost(subject: Subject) {
    let (link, client) = faulty_client(&subject).await;
    let node = node().join(&client).await.unwrap();
    node.worker_fn(|job: Job| async move { Ok(job.decode::<usize>()?) }).await.unwrap();
    // Slow, so that many go together.
    let delay = Duration::from_millis(2);
    link.set_chances_of(Operation::Commit, Chances::none().with_delay(delay..=delay).with_failures_after(0.3));
    let jobs = keys(100).into_iter().enumerate();
    let waits = jobs.map(|(number, key)| node.dispatch_and_wait::<usize>(NewJob::with_value(&key, &number).unwrap()));
    let outcomes = soon("all have ended", futures::future::join_all(waits)).await;
    for (number, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(outcome.unwrap(), number);
    }
    link.set_chances(Chances::none());
    node.close().await.unwrap();
}

/// Does in each method what its job's payload says.
#[derive(Debug, Default)]
struct Puppet {
    starts: AtomicUsize,
    stops: AtomicUsize,
}

#[pulse_pool::async_trait]
impl JobHandler for &'static Puppet {
    async fn start(&self, job: Job) -> Result<(), HandlerError> {
        let start = self.starts.fetch_add(1, Ordering::SeqCst);
        match job.payload().as_ref() {
            b"finish" => job.finish_with("the end")?,
            b"give up" => job.give_up("no audience"),
            b"requeue" if start == 0 => job.requeue(Duration::from_millis(10)),
            b"not yet" if start < 2 => return Err(Requeue::after(Duration::from_millis(10)).into()),
            _ => {}
        }
        Ok(())
    }

    async fn stop(&self, key: &JobKey) -> Result<(), HandlerError> {
        let stop = self.stops.fetch_add(1, Ordering::SeqCst);
        if key.as_str() == "stubborn" && stop == 0 { Err(Requeue::soon().into()) } else { Ok(()) }
    }
}

async fn puppet(subject: &Subject) -> (Node, &'static Puppet) {
    let puppet: &'static Puppet = Box::leak(Box::default());
    let node = node().join(&subject.client().await).await.unwrap();
    node.add_worker(puppet).await.unwrap();
    (node, puppet)
}

async fn a_job_that_has_ended_before_its_dispatcher_saw_anything_of_it_has_run(subject: Subject) {
    let b = node().join(&subject.client().await).await.unwrap();
    b.worker_fn(|job: Job| async move { Ok(job.payload().len()) }).await.unwrap();
    for (builder, key) in [(node(), "sum"), (node().client_only(), "other sum")] {
        let (link, client) = faulty_client(&subject).await;
        let a = builder.join(&client).await.unwrap();
        a.dispatch("warm", "up").await.unwrap();
        eventually("it is over", async || a.job("warm").await.unwrap().map_or(Ok(()), Err)).await;
        link.mute();
        let unseen = async {
            eventually("it has run", async || b.result::<usize>(key).await.unwrap().ok_or(())).await;
            link.unmute();
        };
        let (dispatched, ()) = tokio::join!(a.dispatch(key, "123"), unseen);
        assert_eq!(dispatched.unwrap().key.as_str(), key);
        a.close().await.unwrap();
    }
    b.close().await.unwrap();
}

async fn a_handler_can_end_its_job(subject: Subject) {
    let (node, puppet) = puppet(&subject).await;
    assert_eq!(node.dispatch_and_wait::<String>(("one", "finish")).await.unwrap(), "the end");
    let given_up = node.dispatch_and_wait::<()>(("two", "give up")).await;
    assert!(matches!(&given_up, Err(Error::Failed { reason, .. }) if reason == "no audience"), "{given_up:?}");
    assert_eq!((puppet.starts.load(Ordering::SeqCst), puppet.stops.load(Ordering::SeqCst)), (2, 0));
    node.close().await.unwrap();
    assert_eq!(puppet.stops.load(Ordering::SeqCst), 0, "nothing was left to be stopped");
}

async fn a_start_can_put_the_job_back(subject: Subject) {
    let (node, puppet) = puppet(&subject).await;
    let job = node.dispatch("violin", "not yet").await.unwrap();
    assert_eq!((job.state, job.failed, puppet.starts.load(Ordering::SeqCst)), (JobState::Running, 0, 3));
    node.stop("violin").await.unwrap();
    puppet.starts.store(0, Ordering::SeqCst);
    node.dispatch("viola", "requeue").await.unwrap();
    eventually("it runs again", async || match puppet.starts.load(Ordering::SeqCst) {
        2 => Ok(()),
        other => Err(other),
    })
    .await;
    node.close().await.unwrap();
}

async fn a_stop_can_put_the_job_back(subject: Subject) {
    let (node, puppet) = puppet(&subject).await;
    node.dispatch("stubborn", "").await.unwrap();
    let stopped = node.stop("stubborn").await;
    assert!(matches!(stopped, Err(Error::Requeued { ref key, .. }) if key.as_str() == "stubborn"), "{stopped:?}");
    eventually("it runs again", async || match node.job("stubborn").await.unwrap().map(|job| job.state) {
        Some(JobState::Running) => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(puppet.starts.load(Ordering::SeqCst), 2);
    node.stop("stubborn").await.unwrap();
    assert_eq!(node.jobs().await.unwrap(), []);
    node.close().await.unwrap();
}

async fn progress_is_seen_while_the_job_is_there(subject: Subject) {
    let client = subject.client().await;
    let node = node().join(&client).await.unwrap();
    let go_on = Arc::new(Notify::new());
    let (told, waits) = (Arc::new(Notify::new()), go_on.clone());
    let tells = told.clone();
    let work = move |job: Job| {
        let (tells, waits) = (tells.clone(), waits.clone());
        async move {
            job.progress(&(3, "of 7")).await?;
            tells.notify_one();
            waits.notified().await;
            Ok(())
        }
    };
    node.worker_fn(work).await.unwrap();
    node.dispatch("etude", "").await.unwrap();
    told.notified().await;
    let progress = node.progress::<(u8, String)>("etude").await.unwrap();
    assert_eq!(progress, Some((3, "of 7".to_owned())));
    go_on.notify_one();
    gone(&node, "etude").await;
    assert_eq!(node.progress::<(u8, String)>("etude").await.unwrap(), None);
    node.close().await.unwrap();
}

async fn a_job_that_somebody_stops_is_an_error_for_whoever_waits(subject: Subject) {
    let client = subject.client().await;
    let node = node().join(&client).await.unwrap();
    let work = |job: Job| async move {
        job.stopped().await;
        Err::<(), _>("stopped".into())
    };
    node.worker_fn(work).await.unwrap();
    let stop = async {
        eventually("it runs", async || match node.job("etude").await.unwrap().map(|job| job.state) {
            Some(JobState::Running) => Ok(()),
            other => Err(other),
        })
        .await;
        node.stop("etude").await.unwrap();
    };
    let (waited, ()) = tokio::join!(node.dispatch_and_wait::<()>(("etude", "")), stop);
    assert!(matches!(waited, Err(Error::Stopped { .. })), "{waited:?}");
    node.close().await.unwrap();
}

async fn a_key_is_free_again_once_its_job_has_ended(subject: Subject) {
    let client = subject.client().await;
    let node = node().join(&client).await.unwrap();
    node.worker_fn(|job: Job| async move { Ok(job.decode::<u32>()?) }).await.unwrap();
    for number in 0..20 {
        let job = NewJob::with_value("again", &number).unwrap();
        assert_eq!(node.dispatch_and_wait::<u32>(job).await.unwrap(), number);
    }
    node.close().await.unwrap();
}
