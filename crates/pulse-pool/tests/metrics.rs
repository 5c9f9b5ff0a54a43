//! What is counted, gauged and measured, as a collector sees it.
#![cfg(feature = "metrics")]

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::Debug,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use pulse_core::{Scope, Transaction, testing::Faulty};
use pulse_pool::{Client, HandlerError, Job, JobHandler, JobKey, NewJob, Node, Requeue, RetryPolicy};

/// Runs a program whose metrics are collected. The clock is paused, and runs ahead while everybody waits.
fn collected<F: Future<Output = ()>>(program: impl FnOnce(Collector) -> F) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let collector = Collector { snapshotter, figures: RefCell::default(), measured: RefCell::default() };
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(program(collector));
    });
}

/// Adds up what was collected: the recorder gives each value once.
struct Collector {
    snapshotter: Snapshotter,
    figures: RefCell<BTreeMap<String, f64>>,
    measured: RefCell<BTreeMap<String, Vec<f64>>>,
}

impl Collector {
    fn look(&self) {
        for (key, _, _, value) in self.snapshotter.snapshot().into_vec() {
            let key = key.key();
            let labels: BTreeMap<&str, &str> = key.labels().map(|label| (label.key(), label.value())).collect();
            // The crates below have metrics of their own.
            let Some(name) = key.name().strip_prefix("pulse_pool_") else { continue };
            assert!(labels.contains_key("pool"), "{key}");
            let others: String =
                labels.iter().filter(|(label, _)| **label != "pool").map(|(_, value)| format!(" {value}")).collect();
            let figure = |more: f64| *self.figures.borrow_mut().entry(format!("{name}{others}")).or_default() += more;
            match value {
                DebugValue::Counter(count) => figure(f64::from(u32::try_from(count).unwrap())),
                DebugValue::Gauge(gauge) => figure(gauge.into_inner()),
                DebugValue::Histogram(values) => {
                    let mut measured = self.measured.borrow_mut();
                    measured.entry(name.to_owned()).or_default().extend(values.iter().map(|value| **value));
                }
            }
        }
    }

    /// The counters and gauges that are not zero, by name without `pulse_pool_` and the value of the label beside
    /// `pool`.
    fn figures(&self) -> BTreeMap<String, f64> {
        self.look();
        let figures = self.figures.borrow();
        figures.iter().filter(|(_, value)| **value != 0.0).map(|(name, value)| (name.clone(), *value)).collect()
    }

    fn figure(&self, name: &str) -> f64 {
        self.figures().remove(name).unwrap_or_default()
    }

    /// What was measured since the last look, sorted.
    fn measured(&self, name: &str) -> Vec<f64> {
        self.look();
        let mut measured = self.measured.borrow_mut().remove(name).unwrap_or_default();
        measured.sort_by(f64::total_cmp);
        measured
    }

    /// Where the jobs stand, once the nodes have told.
    async fn standing(&self) -> BTreeMap<String, f64> {
        tokio::time::sleep(Duration::from_secs(6)).await;
        let jobs =
            self.figures().into_iter().filter_map(|(name, jobs)| Some((name.strip_prefix("jobs ")?.to_owned(), jobs)));
        jobs.collect()
    }
}

fn figures<const N: usize>(all: [(&str, f64); N]) -> BTreeMap<String, f64> {
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

async fn client() -> Client {
    pulse_pool::connect("memory:").await.unwrap()
}

/// Waits until something is as expected.
async fn until<T: PartialEq + Debug>(expected: T, probe: impl AsyncFn() -> T) {
    for _ in 0..1000 {
        if probe().await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(probe().await, expected);
}

/// Does what the payload says.
#[derive(Debug, Default)]
struct Player {
    starts: AtomicUsize,
    stops: AtomicUsize,
}

#[pulse_pool::async_trait]
impl JobHandler for Player {
    async fn start(&self, job: Job) -> Result<(), HandlerError> {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        match job.payload().as_ref() {
            b"refuse" => return Err("I do not play this".into()),
            b"slow" => tokio::time::sleep(Duration::from_secs(2)).await,
            b"not yet" if start == 0 => return Err(Requeue::after(Duration::from_secs(3)).into()),
            _ => {}
        }
        Ok(())
    }

    async fn stop(&self, _: &JobKey) -> Result<(), HandlerError> {
        match self.stops.fetch_add(1, Ordering::Relaxed) {
            0 => Err(Requeue::soon().into()),
            _ => Ok(()),
        }
    }
}

#[test]
fn what_becomes_of_jobs_is_counted() {
    collected(async |collector| {
        let client = client().await;
        let node = Node::join(&client, "orchestra").await.unwrap();
        node.add_worker(Player::default()).await.unwrap();
        // The first start puts the job back, for three seconds.
        node.dispatch("horn", "not yet").await.unwrap();
        assert_eq!(collector.figures(), figures([("started_total", 1.0), ("retries_total requeued", 1.0)]));
        let waits = collector.measured("queue_wait_seconds");
        assert!(
            waits.len() == 2 && waits[1] < 1.0,
            "the second counts from the time that it was put back to: {waits:?}"
        );
        // So does the first stop.
        node.stop("horn").await.unwrap_err();
        until(2.0, async || collector.figure("started_total")).await;
        node.stop("horn").await.unwrap();
        node.dispatch("tuba", "refuse").await.unwrap_err();
        node.close().await.unwrap();
        let after = figures([("rejected_total", 1.0), ("started_total", 2.0), ("retries_total requeued", 2.0)]);
        assert_eq!(collector.figures(), after);
    });
}

#[test]
fn ends_and_retries_are_counted() {
    collected(async |collector| {
        let client = client().await;
        let node = Node::join(&client, "letters").await.unwrap();
        let work = async |job: Job| -> Result<(), HandlerError> {
            if job.payload().is_empty() { Ok(()) } else { Err("no ink".into()) }
        };
        node.worker_fn(work).retry(RetryPolicy::new().attempts(3)).await.unwrap();
        node.dispatch_and_wait::<()>(("well", "")).await.unwrap();
        assert_eq!(collector.figures(), figures([("started_total", 1.0), ("done_total", 1.0)]));
        node.dispatch_and_wait::<()>(("ill", "fail")).await.unwrap_err();
        node.close().await.unwrap();
        let after = [("started_total", 4.0), ("done_total", 1.0), ("retries_total failed", 2.0), ("dead_total", 1.0)];
        assert_eq!(collector.figures(), figures(after));
    });
}

#[test]
fn moves_are_counted_by_their_cause() {
    collected(async |collector| {
        let client = client().await;
        let join = async || Node::builder("orchestra").worker_ttl(Duration::from_secs(2)).join(&client).await.unwrap();
        let moves = || {
            let all = collector.figures().into_iter();
            all.filter(|(name, _)| name.contains("moves") || name.contains("over")).collect::<BTreeMap<_, _>>()
        };
        let (a, b) = (join().await, join().await);
        for number in 0..40 {
            a.enqueue(format!("part {number}"), "").await.unwrap();
        }
        let settled = async |jobs: usize| {
            until((jobs, 0), async || {
                let stats = b.stats().await.unwrap();
                (stats.running, stats.jobs - stats.running)
            })
            .await;
        };
        let first = a.add_worker(Board).await.unwrap();
        settled(40).await;
        assert_eq!(moves(), figures([("moves_total waiting", 40.0), ("taken_over_total", 40.0)]));
        b.add_worker(Board).await.unwrap();
        until(true, async || b.stats().await.unwrap().jobs_here > 5).await;
        settled(40).await;
        let moved = b.stats().await.unwrap().jobs_here as f64;
        until(moved, async || collector.figure("moves_total membership")).await;
        assert_eq!(collector.figure("handed_over_total"), moved);
        // Its own jobs go, because it goes.
        a.remove_worker(first).await.unwrap();
        settled(40).await;
        assert_eq!(
            (collector.figure("moves_total drain"), collector.figure("moves_total membership")),
            (40.0 - moved, moved)
        );
        a.add_worker(Board).await.unwrap();
        until(true, async || b.stats().await.unwrap().jobs_here < 35).await;
        settled(40).await;
        let of_a = 40 - b.stats().await.unwrap().jobs_here;
        assert_eq!(collector.figure("moves_total death"), 0.0);
        drop(a);
        settled(40).await;
        until(of_a as f64, async || collector.figure("moves_total death")).await;
        assert_eq!(collector.figure("taken_over_total"), 40.0 + of_a as f64);
        b.close().await.unwrap();
    });
}

/// Takes whatever comes.
struct Board;

#[pulse_pool::async_trait]
impl JobHandler for Board {
    async fn start(&self, _: Job) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn stop(&self, _: &JobKey) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[test]
fn the_wait_for_the_first_start_and_the_start_are_measured() {
    collected(async |collector| {
        let client = client().await;
        let node = Node::join(&client, "orchestra").await.unwrap();
        let waited = || collector.measured("queue_wait_seconds");
        let is = |found: &[f64], expected: &[f64]| {
            let alike = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 0.2);
            assert!(found.len() == expected.len() && alike, "{found:?} is not {expected:?}");
        };
        node.enqueue("violin", "").await.unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
        node.add_worker(Player::default()).await.unwrap();
        node.dispatch("viola", "slow").await.unwrap();
        until(2, async || node.stats().await.unwrap().running).await;
        is(&waited(), &[0.0, 4.0]);
        is(&collector.measured("start_seconds"), &[0.0, 2.0]);
        // What waits on purpose does not count, and to start again is no first start.
        node.enqueue_job(NewJob::new("late", "").run_in(Duration::from_secs(10))).await.unwrap();
        until(3, async || node.stats().await.unwrap().running).await;
        is(&waited(), &[0.0]);
        node.stop("late").await.unwrap_err();
        until(3, async || node.stats().await.unwrap().running).await;
        is(&waited(), &[]);
        node.close().await.unwrap();
    });
}

#[test]
fn jobs_are_gauged_by_state_once_in_the_whole_fleet() {
    collected(async |collector| {
        let client = client().await;
        let join = async || Node::builder("orchestra").worker_ttl(Duration::from_secs(2)).join(&client).await.unwrap();
        let (a, b, c) = (join().await, join().await, join().await);
        let observer = Node::builder("orchestra").client_only().join(&client).await.unwrap();
        for number in 0..12 {
            observer.enqueue(format!("part {number}"), "").await.unwrap();
        }
        assert_eq!(collector.standing().await, figures([("waiting", 12.0)]));
        a.add_worker(Board).await.unwrap();
        b.add_worker(Board).await.unwrap();
        observer.enqueue_job(NewJob::new("late", "").run_in(Duration::from_secs(3600))).await.unwrap();
        observer.enqueue_job(NewJob::new("special", "").requires("a tuba")).await.unwrap();
        let all = figures([("running", 12.0), ("delayed", 1.0), ("waiting", 1.0)]);
        assert_eq!(collector.standing().await, all);
        // Whoever answered for those that nobody has, somebody does.
        let mut nodes = [a, b, c];
        nodes.sort_by_key(Node::id);
        let [first, second, third] = nodes;
        first.close().await.unwrap();
        drop(second);
        third.add_worker(Board).await.unwrap();
        assert_eq!(collector.standing().await, all);
        third.close().await.unwrap();
        observer.close().await.unwrap();
        assert_eq!(collector.standing().await, figures([]), "nobody is there to tell");
    });
}

#[test]
fn a_node_is_fenced_once_however_long_it_cannot_be_heard() {
    collected(async |collector| {
        let link = Faulty::new(client().await.backend().clone(), 1);
        let client = Client::from_backend(std::sync::Arc::new(link.clone()));
        let ttl = Duration::from_secs(2);
        let node = Node::builder("orchestra").worker_ttl(ttl).join(&client).await.unwrap();
        node.add_worker(Board).await.unwrap();
        node.dispatch("violin", "").await.unwrap();
        // The node asks for another lease meanwhile. When that is granted at last, it is over.
        link.pause();
        tokio::time::sleep(ttl * 4).await;
        link.resume();
        until(1, async || node.stats().await.unwrap().running).await;
        tokio::time::sleep(ttl).await;
        assert_eq!((collector.figure("fenced_total"), node.is_cut_off()), (1.0, false));
        node.close().await.unwrap();
    });
}

#[test]
fn lost_jobs_and_fenced_nodes_are_counted() {
    collected(async |collector| {
        let link = Faulty::new(client().await.backend().clone(), 1);
        let client = Client::from_backend(std::sync::Arc::new(link.clone()));
        let node = Node::builder("orchestra").worker_ttl(Duration::from_secs(2)).join(&client).await.unwrap();
        node.add_worker(Board).await.unwrap();
        node.dispatch("violin", "").await.unwrap();
        node.dispatch("viola", "").await.unwrap();
        let scope = Scope::new("orchestra").unwrap();
        client.commit(Transaction::new(&scope).delete("pool:jobs", "violin")).await.unwrap();
        until(1, async || node.lost_jobs()).await;
        assert_eq!(collector.figure("lost_total"), 1.0);
        link.partition();
        until(1.0, async || collector.figure("fenced_total")).await;
        assert_eq!(collector.standing().await, figures([]), "a node that is cut off answers for nothing");
        link.heal();
        until(1, async || node.stats().await.unwrap().running).await;
        assert_eq!(collector.standing().await, figures([("running", 1.0)]));
        assert_eq!(collector.figure("lost_total"), 1.0);
        node.close().await.unwrap();
    });
}
