//! Notifying jobs.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use pulse_pool::{Error, HandlerError, Job, JobHandler, JobKey, Node};
use tests::{Subject, eventually, on_every_backend};
use tokio::sync::Semaphore;

use crate::{board::Board, faulty_client, keys, mortal_node, node};

on_every_backend!(
    notifications_arrive_in_their_order_wherever_the_job_runs,
    what_nobody_can_be_told_is_an_error,
    what_the_handler_says_reaches_the_sender,
    a_job_that_is_about_to_start_is_waited_for,
    jobs_on_the_move_are_told_too,
    a_job_that_is_stopped_while_it_is_told_ends,
    a_job_whose_node_dies_is_told_elsewhere,
    what_has_expired_is_not_told,
    what_has_expired_while_its_node_was_away_is_not_told,
    no_more_notifications_wait_than_may_and_the_others_wait_for_room,
);

/// Notes what it is told. `hang` it never has done, `fail` and `panic` speak for themselves.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Vec<(String, String)>>>);

impl Listener {
    fn heard(&self, key: &str) -> Vec<String> {
        let heard = self.0.lock().unwrap();
        heard.iter().filter(|(of, _)| of == key).map(|(_, said)| said.clone()).collect()
    }
}

#[pulse_pool::async_trait]
impl JobHandler for Listener {
    async fn start(&self, _: Job) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn stop(&self, _: &JobKey) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn notify(&self, key: &JobKey, payload: Bytes) -> Result<(), HandlerError> {
        let said = String::from_utf8(payload.to_vec())?;
        self.0.lock().unwrap().push((key.to_string(), said.clone()));
        match said.as_str() {
            "hang" => std::future::pending().await,
            "fail" => Err("I cannot hear you".into()),
            "panic" => panic!("too loud"),
            _ => Ok(()),
        }
    }
}

async fn two(subject: &Subject, listener: &Listener) -> (Node, Node) {
    let a = node().join(&subject.client().await).await.unwrap();
    let b = node().join(&subject.client().await).await.unwrap();
    a.add_worker(listener.clone()).await.unwrap();
    b.add_worker(listener.clone()).await.unwrap();
    (a, b)
}

async fn notifications_arrive_in_their_order_wherever_the_job_runs(subject: Subject) {
    let listener = Listener::default();
    let (a, b) = two(&subject, &listener).await;
    let keys = keys(6);
    for key in &keys {
        a.dispatch(key, "").await.unwrap();
    }
    let tell = async |node: &Node, key: &String| {
        for number in 0..20 {
            node.notify(key, number.to_string()).await.unwrap();
        }
    };
    let told = keys.iter().enumerate().map(|(index, key)| tell(if index % 2 == 0 { &a } else { &b }, key));
    futures::future::join_all(told).await;
    let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for key in &keys {
        assert_eq!(listener.heard(key), expected);
    }
    a.close().await.unwrap();
    b.close().await.unwrap();
}

async fn what_nobody_can_be_told_is_an_error(subject: Subject) {
    let node = node().timeout(Duration::from_millis(300)).join(&subject.client().await).await.unwrap();
    let unknown = node.notify("nobody", "").await;
    assert!(matches!(unknown, Err(Error::UnknownJob { ref key, .. }) if key.as_str() == "nobody"), "{unknown:?}");
    node.enqueue("waiting", "").await.unwrap();
    let waiting = node.notify("waiting", "").await;
    assert!(matches!(waiting, Err(Error::NotStarted { .. })), "{waiting:?}");
    node.add_worker(Board::default().player("deaf")).await.unwrap();
    let deaf = node.notify("waiting", "").await;
    assert!(matches!(deaf, Err(Error::NotNotifiable { .. })), "{deaf:?}");
    node.close().await.unwrap();
    assert!(matches!(node.notify("waiting", "").await, Err(Error::Closed { .. })));
}

async fn what_the_handler_says_reaches_the_sender(subject: Subject) {
    let listener = Listener::default();
    let (a, b) = two(&subject, &listener).await;
    let job = a.dispatch("violin", "").await.unwrap();
    let other = if job.node == Some(a.id()) { &b } else { &a };
    let failed = other.notify("violin", "fail").await;
    assert!(
        matches!(failed, Err(Error::NotifyFailed { ref message, .. }) if message == "I cannot hear you"),
        "{failed:?}"
    );
    let panicked = other.notify("violin", "panic").await;
    assert!(
        matches!(panicked, Err(Error::NotifyFailed { ref message, .. }) if message.contains("too loud")),
        "{panicked:?}"
    );
    other.notify("violin", "fine").await.unwrap();
    assert_eq!(listener.heard("violin"), ["fail", "panic", "fine"]);
    a.close().await.unwrap();
    b.close().await.unwrap();
}

async fn a_job_that_is_about_to_start_is_waited_for(subject: Subject) {
    let listener = Listener::default();
    let node = node().join(&subject.client().await).await.unwrap();
    node.enqueue("violin", "").await.unwrap();
    let (told, added) = tokio::join!(node.notify("violin", "now"), node.add_worker(listener.clone()));
    added.unwrap();
    told.unwrap();
    assert_eq!(listener.heard("violin"), ["now"]);
    node.close().await.unwrap();
}

async fn jobs_on_the_move_are_told_too(subject: Subject) {
    let listener = Listener::default();
    let (a, b) = two(&subject, &listener).await;
    let keys = keys(8);
    for key in &keys {
        a.dispatch(key, "").await.unwrap();
    }
    let tell = async |key: &String| {
        for number in 0..30 {
            a.notify(key, number.to_string()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let churn = async {
        for _ in 0..4 {
            let worker = b.add_worker(listener.clone()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            b.remove_worker(worker).await.unwrap();
        }
    };
    tokio::join!(futures::future::join_all(keys.iter().map(tell)), churn);
    for key in &keys {
        let mut heard: Vec<u32> = listener.heard(key).iter().map(|said| said.parse().unwrap()).collect();
        assert!(heard.is_sorted(), "{key}: {heard:?}");
        heard.dedup();
        assert_eq!(heard, (0..30).collect::<Vec<_>>());
    }
    a.close().await.unwrap();
    b.close().await.unwrap();
}

async fn a_job_that_is_stopped_while_it_is_told_ends(subject: Subject) {
    let listener = Listener::default();
    let (a, b) = two(&subject, &listener).await;
    a.dispatch("violin", "").await.unwrap();
    let stop = async {
        eventually("it is told", async || if listener.heard("violin").is_empty() { Err(()) } else { Ok(()) }).await;
        b.stop("violin").await.unwrap();
    };
    let (told, ()) = tokio::join!(a.notify("violin", "hang"), stop);
    assert!(matches!(told, Err(Error::UnknownJob { .. })), "{told:?}");
    a.close().await.unwrap();
    b.close().await.unwrap();
}

async fn a_job_whose_node_dies_is_told_elsewhere(subject: Subject) {
    let (first, second) = (Listener::default(), Listener::default());
    let doomed = mortal_node().join(&subject.client().await).await.unwrap();
    let sender = node().join(&subject.client().await).await.unwrap();
    doomed.add_worker(first.clone()).await.unwrap();
    sender.dispatch("violin", "").await.unwrap();
    sender.add_worker_with(second.clone(), pulse_pool::WorkerOptions::default().with_weight(0)).await.unwrap();
    let die = async {
        eventually("it is told", async || if first.heard("violin").is_empty() { Err(()) } else { Ok(()) }).await;
        drop(doomed);
        sender.add_worker(second.clone()).await.unwrap();
    };
    let hang = async {
        // The second worker deals with everything but this.
        tokio::time::timeout(Duration::from_secs(20), sender.notify("violin", "hang")).await
    };
    let (told, ()) = tokio::join!(
        async {
            tokio::select! {
                told = hang => told.map(|_| ()).map_err(|_| ()),
                heard = eventually("it is told elsewhere", async || match second.heard("violin").len() {
                    0 => Err(()),
                    _ => Ok(()),
                }) => { Ok(heard) }
            }
        },
        die
    );
    told.unwrap();
    drop(sender);
}

async fn what_has_expired_is_not_told(subject: Subject) {
    let listener = Gate::default();
    let patience = Duration::from_millis(300);
    let node = node().timeout(patience).join(&subject.client().await).await.unwrap();
    node.add_worker(listener.clone()).await.unwrap();
    node.dispatch("violin", "").await.unwrap();
    let told = (0..50).map(|number| node.notify("violin", number.to_string()));
    for told in futures::future::join_all(told).await {
        assert!(matches!(told, Err(Error::TimedOut { .. })), "{told:?}");
    }
    // Times are counted in milliseconds.
    tokio::time::sleep(Duration::from_millis(5)).await;
    listener.opens.add_permits(100);
    node.notify("violin", "late").await.unwrap();
    let heard = listener.heard.lock().unwrap().clone();
    assert_eq!((heard.len(), heard.last().map(String::as_str)), (2, Some("late")), "{heard:?}");
    node.close().await.unwrap();
}

async fn what_has_expired_while_its_node_was_away_is_not_told(subject: Subject) {
    let (link, client) = faulty_client(&subject).await;
    let listener = Gate::default();
    listener.opens.add_permits(100);
    let away = node().worker_ttl(Duration::from_secs(60)).join(&client).await.unwrap();
    let sender = node().timeout(Duration::from_millis(300)).join(&subject.client().await).await.unwrap();
    away.add_worker(listener.clone()).await.unwrap();
    sender.dispatch("violin", "").await.unwrap();
    // Nothing reaches it, and nothing is lost.
    link.pause();
    let told = sender.notify("violin", "early").await;
    assert!(matches!(told, Err(Error::TimedOut { .. })), "{told:?}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    link.resume();
    eventually("it can be told again", async || sender.notify("violin", "late").await).await;
    let heard = listener.heard.lock().unwrap().clone();
    assert!(heard.iter().all(|said| said == "late"), "{heard:?}");
    away.close().await.unwrap();
    sender.close().await.unwrap();
}

async fn no_more_notifications_wait_than_may_and_the_others_wait_for_room(subject: Subject) {
    let listener = Gate::default();
    let node = node().timeout(Duration::from_secs(5)).join(&subject.client().await).await.unwrap();
    node.add_worker(listener.clone()).await.unwrap();
    node.dispatch("violin", "").await.unwrap();
    let told = futures::future::join_all((0..1100).map(|number| node.notify("violin", number.to_string()))).await;
    let refused =
        told.iter().filter(|told| matches!(told, Err(Error::TooManyNotifications { limit: 1000, .. }))).count();
    let timed_out = told.iter().filter(|told| matches!(told, Err(Error::TimedOut { .. }))).count();
    // Those that go together into the last places are not counted one by one.
    assert!(refused > 0 && refused + timed_out == 1100, "{refused} and {timed_out}");
    assert!(told.iter().filter_map(|told| told.as_ref().err()).all(Error::is_retryable));
    listener.opens.add_permits(10_000);
    let told = futures::future::join_all((0..1100).map(|number| node.notify("violin", number.to_string()))).await;
    assert!(told.iter().all(Result::is_ok), "{:?}", told.iter().find(|told| told.is_err()));
    node.close().await.unwrap();
}

/// Hears one notification for each time that it is opened.
#[derive(Clone)]
struct Gate {
    opens: Arc<Semaphore>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { opens: Arc::new(Semaphore::new(0)), heard: Arc::default() }
    }
}

#[pulse_pool::async_trait]
impl JobHandler for Gate {
    async fn start(&self, _: Job) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn stop(&self, _: &JobKey) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn notify(&self, _: &JobKey, payload: Bytes) -> Result<(), HandlerError> {
        self.heard.lock().unwrap().push(String::from_utf8(payload.to_vec())?);
        self.opens.acquire().await?.forget();
        Ok(())
    }
}
