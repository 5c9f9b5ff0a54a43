//! Jobs of one priority start in the order in which they were dispatched.

use std::sync::{Arc, Mutex};

use pulse_pool::{NewJob, Node};
use tests::{Subject, eventually, on_every_backend};

use crate::node;

on_every_backend!(
    a_batch_starts_in_its_order,
    jobs_that_waited_for_a_worker_start_in_the_order_of_their_dispatch,
    of_equals_the_first_and_of_others_the_urgent_start_first,
    what_several_tasks_dispatch_starts_in_the_order_of_each,
);

/// The keys of the jobs, in the order in which they started.
#[derive(Clone, Default)]
struct Starts(Arc<Mutex<Vec<String>>>);

impl Starts {
    /// Adds a worker with room for one, which notes what it starts.
    async fn add_worker(&self, node: &Node) {
        let starts = self.0.clone();
        let work = move |job: pulse_pool::Job| {
            starts.lock().unwrap().push(job.key().to_string());
            async move {
                tokio::task::yield_now().await;
                Ok(())
            }
        };
        node.worker_fn(work).concurrency(1).await.unwrap();
    }

    async fn all(&self, count: usize) -> Vec<String> {
        let all = async || {
            let starts = self.0.lock().unwrap().clone();
            if starts.len() == count { Ok(starts) } else { Err(starts) }
        };
        eventually("all have started", all).await
    }
}

/// Of which the alphabet has another order.
fn numbered(count: usize) -> Vec<String> {
    (1..=count).rev().map(|number| format!("job-{number}")).collect()
}

async fn a_batch_starts_in_its_order(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    let (starts, keys) = (Starts::default(), numbered(60));
    starts.add_worker(&node).await;
    let recorded = node.enqueue_batch(keys.iter().map(|key| (key, ""))).await;
    assert!(recorded.iter().all(Result::is_ok), "{recorded:?}");
    assert_eq!(starts.all(60).await, keys);
    node.close().await.unwrap();
}

async fn jobs_that_waited_for_a_worker_start_in_the_order_of_their_dispatch(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    let (starts, keys) = (Starts::default(), numbered(24));
    let (one_by_one, batch) = keys.split_at(12);
    for key in one_by_one {
        node.enqueue(key, "").await.unwrap();
    }
    node.enqueue_batch(batch.iter().map(|key| (key, ""))).await;
    starts.add_worker(&node).await;
    assert_eq!(starts.all(24).await, keys);
    node.close().await.unwrap();
}

async fn of_equals_the_first_and_of_others_the_urgent_start_first(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    let (starts, keys) = (Starts::default(), numbered(20));
    let job = |(index, key): (usize, &String)| NewJob::new(key, "").priority(i32::from(index % 2 == 1));
    node.enqueue_batch(keys.iter().enumerate().map(job)).await;
    starts.add_worker(&node).await;
    let every_other = |first| keys.iter().skip(first).step_by(2).cloned();
    assert_eq!(starts.all(20).await, every_other(1).chain(every_other(0)).collect::<Vec<_>>());
    node.close().await.unwrap();
}

async fn what_several_tasks_dispatch_starts_in_the_order_of_each(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    let starts = Starts::default();
    starts.add_worker(&node).await;
    let task = async |task: usize| {
        for key in numbered(10) {
            node.enqueue(format!("{task} {key}"), "").await.unwrap();
        }
    };
    futures::future::join_all((0..8).map(task)).await;
    let all = starts.all(80).await;
    for task in 0..8 {
        let of_task: Vec<_> = all.iter().filter_map(|key| key.strip_prefix(&format!("{task} "))).collect();
        assert_eq!(of_task, numbered(10));
    }
    node.close().await.unwrap();
}
