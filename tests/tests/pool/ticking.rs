//! Tickers and schedules.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use pulse_core::{Client, Transaction};
use pulse_pool::{Cadence, Error, MissedTicks, NewJob, Node, Plan, Tick, Ticker};
use tests::{Subject, eventually, on_every_backend, soon};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use crate::{board::Board, keys, mortal_node, node, orchestra};

on_every_backend!(
    every_tick_reaches_exactly_one_node,
    the_ticks_go_on_when_nodes_die,
    another_cadence_replaces_the_first_for_everybody,
    a_ticker_is_stopped_on_every_node_and_can_begin_anew,
    ticks_that_nobody_was_there_for_are_counted_or_made_up_for,
    waiting_for_a_tick_can_be_given_up_without_losing_one,
    a_closed_node_ticks_no_more_and_the_others_do,
    a_ticker_whose_record_vanishes_is_made_again,
    a_shutdown_ends_tickers_and_leaves_nothing_of_them,
    a_ticker_that_makes_no_sense_is_an_error,
    a_schedule_starts_and_stops_what_its_plan_says,
    a_plan_can_stop_everything_else_and_end_its_schedule,
    a_schedule_does_not_end_before_its_last_plan_is_carried_out,
    one_node_makes_the_plan_of_a_tick,
    a_producer_that_fails_is_asked_again,
    a_schedule_is_stopped_on_every_node,
);

const OFTEN: Duration = Duration::from_millis(25);
const LONG: Duration = Duration::from_secs(30);

/// Sends every tick on.
fn listen(mut ticker: Ticker, ticks: &mpsc::UnboundedSender<Tick>) -> JoinHandle<()> {
    let ticks = ticks.clone();
    tokio::spawn(async move {
        while let Some(tick) = ticker.next().await {
            if ticks.send(tick).is_err() {
                return;
            }
        }
    })
}

async fn numbers(ticks: &mut mpsc::UnboundedReceiver<Tick>, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let tick = timeout(LONG, ticks.recv()).await.expect("it ticks on").expect("somebody listens");
        numbers.push(tick.number);
    }
    numbers
}

async fn some_nodes(subject: &Subject, count: usize) -> Vec<Node> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(mortal_node().join(&subject.client().await).await.unwrap());
    }
    nodes
}

async fn every_tick_reaches_exactly_one_node(subject: Subject) {
    let nodes = some_nodes(&subject, 3).await;
    let (to, mut ticks) = mpsc::unbounded_channel();
    for node in &nodes {
        listen(node.ticker("beat", OFTEN).await.unwrap(), &to);
        listen(node.ticker("beat", OFTEN).await.unwrap(), &to);
    }
    let numbers = numbers(&mut ticks, 40).await;
    let different: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(different, (1..=40).collect(), "{numbers:?}");
}

async fn the_ticks_go_on_when_nodes_die(subject: Subject) {
    let mut nodes = some_nodes(&subject, 3).await;
    let (to, mut ticks) = mpsc::unbounded_channel();
    let mut listeners = Vec::new();
    for node in &nodes {
        listeners.push(listen(node.ticker("beat", OFTEN).await.unwrap(), &to));
    }
    let mut seen = numbers(&mut ticks, 5).await;
    while nodes.len() > 1 {
        drop(nodes.pop());
        seen.extend(numbers(&mut ticks, 5).await);
    }
    let different: BTreeSet<u64> = seen.iter().copied().collect();
    assert_eq!(different.len(), seen.len(), "{seen:?}");
}

async fn another_cadence_replaces_the_first_for_everybody(subject: Subject) {
    let nodes = some_nodes(&subject, 2).await;
    let mut slow = nodes[0].ticker("beat", Duration::from_secs(3600)).await.unwrap();
    let fast = nodes[1].ticker("beat", OFTEN).await.unwrap();
    // Nobody else is there to have the ticks.
    drop(fast);
    timeout(LONG, slow.next()).await.expect("it ticks at the new pace").unwrap();
    timeout(LONG, slow.next()).await.expect("it ticks at the new pace").unwrap();
}

async fn a_ticker_is_stopped_on_every_node_and_can_begin_anew(subject: Subject) {
    let nodes = some_nodes(&subject, 2).await;
    let mut here = nodes[0].ticker("beat", Duration::from_secs(3600)).await.unwrap();
    let there = nodes[1].ticker("beat", Duration::from_secs(3600)).await.unwrap();
    let (ended, stopped) = tokio::join!(timeout(LONG, here.next()), there.stop());
    stopped.unwrap();
    assert_eq!(ended.expect("it is stopped"), None);
    here.stop().await.unwrap();
    let mut again = nodes[0].ticker("beat", OFTEN).await.unwrap();
    let tick = timeout(LONG, again.next()).await.expect("it ticks again").unwrap();
    assert_eq!(tick.number, 1);
}

async fn ticks_that_nobody_was_there_for_are_counted_or_made_up_for(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    let burst = Cadence::every(OFTEN).missed(MissedTicks::Burst);
    drop(node.ticker("skip", OFTEN).await.unwrap());
    drop(node.ticker("burst", burst.clone()).await.unwrap());
    // Time has to pass here: it is what the test is about.
    tokio::time::sleep(OFTEN * 8).await;
    let mut skip = node.ticker("skip", OFTEN).await.unwrap();
    let first = timeout(LONG, skip.next()).await.unwrap().unwrap();
    assert!(first.number == 1 && first.missed >= 5, "{first:?}");
    let second = timeout(LONG, skip.next()).await.unwrap().unwrap();
    assert!(second.due >= first.due + OFTEN * 6, "{first:?} {second:?}");
    let mut all = node.ticker("burst", burst).await.unwrap();
    let mut before: Option<Tick> = None;
    for _ in 0..8 {
        let tick = timeout(LONG, all.next()).await.unwrap().unwrap();
        assert!(before.is_none_or(|before| tick.due == before.due + OFTEN), "{before:?} {tick:?}");
        before = Some(tick);
    }
}

async fn waiting_for_a_tick_can_be_given_up_without_losing_one(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    let mut ticker = node.ticker("beat", OFTEN).await.unwrap();
    let mut numbers = Vec::new();
    while numbers.len() < 20 {
        if let Ok(tick) = timeout(Duration::from_micros(700), ticker.next()).await {
            numbers.push(tick.unwrap().number);
        }
    }
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
}

async fn a_closed_node_ticks_no_more_and_the_others_do(subject: Subject) {
    let nodes = some_nodes(&subject, 2).await;
    let mut here = nodes[0].ticker("beat", Duration::from_secs(3600)).await.unwrap();
    let (ended, closed) = tokio::join!(timeout(LONG, here.next()), nodes[0].close());
    closed.unwrap();
    assert_eq!(ended.expect("the node is closed"), None);
    assert!(matches!(nodes[0].ticker("beat", OFTEN).await, Err(Error::Closed { .. } | Error::Replica { .. })));
    let mut there = nodes[1].ticker("beat", OFTEN).await.unwrap();
    timeout(LONG, there.next()).await.expect("it goes on").unwrap();
}

async fn commit(client: &Client, change: impl FnOnce(Transaction) -> Transaction) {
    client.commit(change(Transaction::new(&orchestra()))).await.unwrap();
}

async fn a_ticker_whose_record_vanishes_is_made_again(subject: Subject) {
    let client = subject.client().await;
    let node = node().join(&client).await.unwrap();
    let mut ticker = node.ticker("beat", OFTEN).await.unwrap();
    timeout(LONG, ticker.next()).await.unwrap().unwrap();
    commit(&client, |change| change.destroy_map("pool:tickers")).await;
    timeout(LONG, ticker.next()).await.expect("it is made again").unwrap();
    commit(&client, |change| change.put("pool:tickers", "beat", "garbage")).await;
    let mut other = node.ticker("beat", OFTEN).await.unwrap();
    timeout(LONG, other.next()).await.expect("joining it heals it").unwrap();
}

async fn a_shutdown_ends_tickers_and_leaves_nothing_of_them(subject: Subject) {
    let client = subject.client().await;
    let nodes = some_nodes(&subject, 2).await;
    let (to, mut ticks) = mpsc::unbounded_channel();
    let listeners = [
        listen(nodes[0].ticker("beat", OFTEN).await.unwrap(), &to),
        listen(nodes[1].ticker("beat", OFTEN).await.unwrap(), &to),
    ];
    numbers(&mut ticks, 3).await;
    nodes[0].shutdown().await.unwrap();
    for listener in listeners {
        timeout(LONG, listener).await.expect("the ticker has ended").unwrap();
    }
    let map = orchestra().map("pool:tickers").unwrap();
    assert_eq!(client.backend().map_version(&map).await.unwrap(), None);
}

async fn a_ticker_that_makes_no_sense_is_an_error(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    assert!(matches!(node.ticker("", OFTEN).await, Err(Error::InvalidOption { .. })));
    let mut shortest = node.ticker("shortest", Duration::ZERO).await.unwrap();
    timeout(LONG, shortest.next()).await.expect("every millisecond").unwrap();
    let mut never = node.ticker("never", Duration::MAX).await.unwrap();
    assert!(timeout(Duration::from_millis(50), never.next()).await.is_err());
    node.close().await.unwrap();
}

async fn a_schedule_starts_and_stops_what_its_plan_says(subject: Subject) {
    let board = Board::default();
    let node = node().join(&subject.client().await).await.unwrap();
    node.add_worker(board.player("a")).await.unwrap();
    node.dispatch("of somebody else", "").await.unwrap();
    let schedule = node
        .schedule("programme", OFTEN, |tick| async move {
            Ok(match tick.number {
                1 => Plan::new().start(("violin", "")).start_all(["viola", "cello"].map(|key| (key, ""))),
                2 => Plan::new().stop("viola").stop("nobody").start(("violin", "")),
                _ => Plan::new(),
            })
        })
        .await
        .unwrap();
    assert_eq!(schedule.name(), "programme");
    let left = ["violin", "cello", "of somebody else"].map(str::to_owned);
    eventually("viola has come and gone", async || if board.starts("viola") == 1 { Ok(()) } else { Err(()) }).await;
    board.runs_all(&left).await;
    assert_eq!(board.starts("violin"), 1);
    schedule.close();
    node.close().await.unwrap();
    board.check();
}

async fn a_plan_can_stop_everything_else_and_end_its_schedule(subject: Subject) {
    let board = Board::default();
    let nodes = some_nodes(&subject, 2).await;
    nodes[0].add_worker(board.player("a")).await.unwrap();
    for key in keys(20) {
        nodes[1].dispatch(&key, "").await.unwrap();
    }
    let plan = |_| async { Ok(Plan::new().start(("solo", "")).only_in_pool().end()) };
    let here = nodes[0].schedule("programme", OFTEN, plan).await.unwrap();
    let there = nodes[1].schedule("programme", OFTEN, plan).await;
    board.runs_all(&["solo".to_owned()]).await;
    eventually("the schedule has ended", async || if here.is_finished() { Ok(()) } else { Err(()) }).await;
    // It may have ended before this one joined it, and begun anew by that.
    if let Ok(there) = there {
        eventually("the schedule has ended", async || if there.is_finished() { Ok(()) } else { Err(()) }).await;
    }
}

async fn a_schedule_does_not_end_before_its_last_plan_is_carried_out(subject: Subject) {
    let node = node().max_queued(1).join(&subject.client().await).await.unwrap();
    let (asked, ran) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    let plan = move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Ok(Plan::new().start_all(keys(3).into_iter().map(|key| (key, ""))).end()) }
    };
    let mut schedule = node.schedule("once", OFTEN, plan).await.unwrap();
    // There is room for one job only until somebody takes it.
    eventually("one is there", async || match node.job_keys().await.unwrap().len() {
        1 => Ok(()),
        jobs => Err(jobs),
    })
    .await;
    assert!(!schedule.is_finished());
    let count = ran.clone();
    let function = move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Ok(()) }
    };
    node.worker_fn(function).await.unwrap();
    soon("the schedule ends", schedule.finished()).await;
    eventually("all have run", async || match ran.load(Ordering::Relaxed) {
        3 => Ok(()),
        jobs => Err(jobs),
    })
    .await;
    // What was done was not done again for what was left.
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    node.close().await.unwrap();
    assert_eq!(ran.load(Ordering::Relaxed), 3);
}

async fn one_node_makes_the_plan_of_a_tick(subject: Subject) {
    let nodes = some_nodes(&subject, 3).await;
    let (to, mut ticks) = mpsc::unbounded_channel();
    for node in &nodes {
        let to = to.clone();
        let producer = move |tick: Tick| {
            let sent = to.send(tick);
            async move { Ok(sent.map(|()| Plan::new().start((format!("job {}", tick.number), "")))?) }
        };
        // What is returned may be dropped.
        node.schedule("programme", OFTEN, producer).await.unwrap();
    }
    let numbers = numbers(&mut ticks, 20).await;
    assert_eq!(numbers.iter().copied().collect::<BTreeSet<_>>(), (1..=20).collect(), "{numbers:?}");
    eventually("all jobs wait", async || {
        if nodes[0].jobs().await.unwrap().len() >= 20 { Ok(()) } else { Err(nodes[0].jobs().await.unwrap()) }
    })
    .await;
}

async fn a_producer_that_fails_is_asked_again(subject: Subject) {
    let node = node().join(&subject.client().await).await.unwrap();
    let schedule = node.schedule("programme", OFTEN, |tick| async move {
        match tick.number {
            1 => Err("no programme".into()),
            2 => panic!("the programme is on fire"),
            _ => Ok(Plan::new().start(NewJob::new("violin", ""))),
        }
    });
    schedule.await.unwrap();
    eventually("the job is there", async || if node.job("violin").await.unwrap().is_some() { Ok(()) } else { Err(()) })
        .await;
}

async fn a_schedule_is_stopped_on_every_node(subject: Subject) {
    let nodes = some_nodes(&subject, 2).await;
    let made = Arc::new(AtomicUsize::new(0));
    let producer = |made: &Arc<AtomicUsize>| {
        let made = made.clone();
        move |_| {
            made.fetch_add(1, Ordering::Relaxed);
            async { Ok(Plan::new()) }
        }
    };
    let here = nodes[0].schedule("programme", OFTEN, producer(&made)).await.unwrap();
    let mut there = nodes[1].schedule("programme", OFTEN, producer(&made)).await.unwrap();
    assert_eq!(there.finished().now_or_never(), None, "and it can be waited for again");
    eventually("plans are made", async || if made.load(Ordering::Relaxed) > 3 { Ok(()) } else { Err(()) }).await;
    here.stop().await.unwrap();
    soon("it has ended there too", there.finished()).await;
    assert!(there.is_finished());
    there.finished().await;
}
