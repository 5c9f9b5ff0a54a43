//! Plans of schedules: in which order they are carried out, and what they concern.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use pulse_pool::{HandlerError, Node, Plan, Schedule, Tick};
use tests::{Subject, eventually, on_every_backend};
use tokio::sync::Semaphore;

use crate::{faulty_client, node};

on_every_backend!(
    a_producer_is_dropped_when_a_later_plan_is_carried_out,
    a_plan_that_is_older_than_the_last_one_is_not_carried_out,
    producers_that_take_longer_than_the_interval_come_to_their_end,
    schedules_leave_the_jobs_of_others_alone,
    a_key_that_is_taken_already_stays_with_whoever_has_it,
    a_plan_for_the_whole_pool_stops_what_others_have_started,
);

const OFTEN: Duration = Duration::from_millis(50);

async fn has_jobs(node: &Node, keys: &[&str]) {
    eventually("those jobs are there, and no others", async || {
        let mut found: Vec<String> = node.job_keys().await.unwrap().iter().map(ToString::to_string).collect();
        found.sort();
        if found == keys { Ok(()) } else { Err(found) }
    })
    .await;
}

async fn reaches(what: &str, count: &AtomicUsize, least: usize) {
    eventually(what, async || match count.load(Ordering::SeqCst) {
        now if now >= least => Ok(()),
        now => Err(now),
    })
    .await;
}

/// Says that it was dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

async fn a_producer_is_dropped_when_a_later_plan_is_carried_out(subject: Subject) {
    let a = node().join(&subject.client().await).await.unwrap();
    let b = node().join(&subject.client().await).await.unwrap();
    let (calls, dropped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let (count, gone) = (calls.clone(), dropped.clone());
    let slow = move |_: Tick| {
        let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
        let guard = is_first.then(|| Dropped(gone.clone()));
        async move {
            let _guard = guard;
            if is_first { std::future::pending().await } else { Ok::<_, HandlerError>(Plan::new()) }
        }
    };
    a.schedule("programme", OFTEN, slow).await.unwrap();
    reaches("the first plan is being made", &calls, 1).await;
    assert!(!dropped.load(Ordering::SeqCst));
    let there = b.schedule("programme", OFTEN, |_| async { Ok(Plan::new().start(("new", ""))) }).await.unwrap();
    has_jobs(&b, &["new"]).await;
    eventually("it is dropped", async || if dropped.load(Ordering::SeqCst) { Ok(()) } else { Err(()) }).await;
    there.close();
    reaches("the node goes on with later ticks", &calls, 2).await;
    a.close().await.unwrap();
    b.close().await.unwrap();
}

async fn a_plan_that_is_older_than_the_last_one_is_not_carried_out(subject: Subject) {
    let (link, client) = faulty_client(&subject).await;
    let a = node().join(&client).await.unwrap();
    let b = node().join(&subject.client().await).await.unwrap();
    let (calls, may_end) = (Arc::<AtomicUsize>::default(), Arc::new(Semaphore::new(0)));
    let (count, waits) = (calls.clone(), may_end.clone());
    let slow = move |_: Tick| {
        let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
        let waits = waits.clone();
        async move {
            if !is_first {
                return Ok(Plan::new());
            }
            waits.acquire().await?.forget();
            Ok(Plan::new().start(("old", "")).only_in_pool())
        }
    };
    a.schedule("programme", OFTEN, slow).await.unwrap();
    reaches("the first plan is being made", &calls, 1).await;
    // So that it does not hear of the later one.
    link.mute();
    let there = b.schedule("programme", OFTEN, |_| async { Ok(Plan::new().start(("new", ""))) }).await.unwrap();
    has_jobs(&b, &["new"]).await;
    there.close();
    may_end.add_permits(1);
    link.unmute();
    reaches("the node goes on with later ticks", &calls, 2).await;
    has_jobs(&b, &["new"]).await;
    a.close().await.unwrap();
    b.close().await.unwrap();
}

async fn producers_that_take_longer_than_the_interval_come_to_their_end(subject: Subject) {
    let nodes =
        [node().join(&subject.client().await).await.unwrap(), node().join(&subject.client().await).await.unwrap()];
    for node in &nodes {
        let slow = |tick: Tick| async move {
            tokio::time::sleep(3 * OFTEN).await;
            Ok(Plan::new().start((format!("of tick {}", tick.number), "")))
        };
        node.schedule("programme", OFTEN, slow).await.unwrap();
    }
    eventually("plans are carried out", async || match nodes[0].job_keys().await.unwrap().len() {
        jobs if jobs >= 3 => Ok(()),
        jobs => Err(jobs),
    })
    .await;
    for node in &nodes {
        node.close().await.unwrap();
    }
}

/// A schedule that plans nothing but those jobs, and how often it was asked.
async fn only(node: &Node, name: &str, keys: &Arc<Mutex<Vec<&'static str>>>) -> (Schedule, Arc<AtomicUsize>) {
    let (keys, asked) = (keys.clone(), Arc::<AtomicUsize>::default());
    let count = asked.clone();
    let producer = move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let plan = Plan::new().start_all(keys.lock().unwrap().iter().map(|key| (key, ""))).only();
        async move { Ok(plan) }
    };
    (node.schedule(name, OFTEN, producer).await.unwrap(), asked)
}

/// Waits until a plan is carried out that begins now.
async fn planned(asked: &AtomicUsize) {
    reaches("it is planned again", asked, asked.load(Ordering::SeqCst) + 2).await;
}

async fn schedules_leave_the_jobs_of_others_alone(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    let (of_first, of_second) = (Arc::new(Mutex::new(vec!["a", "b"])), Arc::new(Mutex::new(vec!["c"])));
    node.enqueue("by hand", "").await.unwrap();
    let (_first, first) = only(&node, "first", &of_first).await;
    let (_second, second) = only(&node, "second", &of_second).await;
    has_jobs(&node, &["a", "b", "by hand", "c"]).await;
    planned(&first).await;
    planned(&second).await;
    has_jobs(&node, &["a", "b", "by hand", "c"]).await;
    *of_first.lock().unwrap() = vec!["b"];
    has_jobs(&node, &["b", "by hand", "c"]).await;
    of_second.lock().unwrap().clear();
    has_jobs(&node, &["b", "by hand"]).await;
    node.close().await.unwrap();
}

async fn a_key_that_is_taken_already_stays_with_whoever_has_it(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    node.enqueue("by hand", "").await.unwrap();
    let keys = Arc::new(Mutex::new(vec!["a", "by hand"]));
    let (_schedule, asked) = only(&node, "first", &keys).await;
    has_jobs(&node, &["a", "by hand"]).await;
    keys.lock().unwrap().clear();
    has_jobs(&node, &["by hand"]).await;
    planned(&asked).await;
    has_jobs(&node, &["by hand"]).await;
    node.close().await.unwrap();
}

async fn a_plan_for_the_whole_pool_stops_what_others_have_started(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    node.enqueue("by hand", "").await.unwrap();
    node.schedule("all", OFTEN, |_| async { Ok(Plan::new().start(("a", "")).only_in_pool()) }).await.unwrap();
    has_jobs(&node, &["a"]).await;
    node.close().await.unwrap();
}
