//! Reading the local replica, against a plain hash map of the same content.

use std::{
    collections::HashMap,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pulse_rmap::Map;

use super::{
    SIZES, STATED,
    content::{connect, fill, join, keys, value},
};
use crate::harness::{Bench, Goal, Paired, Row, median, millions};

/// How many reads pass between two looks at the clock.
const STRIDE: usize = 1_024;

pub(super) async fn gets(bench: &Bench) -> Vec<Row> {
    let mut rows = Vec::new();
    for size in SIZES {
        let client = connect(bench).await;
        let (map, keys) = (join(&client).await, keys(size));
        fill(&map, &keys).await;
        let plain: HashMap<String, Bytes> = keys.iter().map(|key| (key.to_string(), value())).collect();
        let (mut hot, mut random, mut threads) = <(Paired, Paired, Paired)>::default();
        let orders = [shuffled(size, 1), shuffled(size, 2)];
        for _ in 0..bench.options.rounds {
            let window = bench.options.window / 2;
            let theirs = |order: &[usize]| rate(window, order, |at| _ = black_box(plain.get(&*keys[at])));
            let ours = |order: &[usize]| rate(window, order, |at| drop(black_box(map.get(&keys[at]))));
            hot.push(ours(&[size / 2]), theirs(&[size / 2]));
            let alone = ours(&orders[0]);
            random.push(alone, theirs(&orders[0]));
            threads.push(on_two_threads(window, &orders, &map, &keys), alone);
        }
        map.close().await;
        client.close().await;
        bench.server.flush();
        let figures = [
            ("one key", "M", hot, Goal::AtLeast(0.6), "-"),
            ("random keys", "M", random, Goal::AtLeast(0.6), "-"),
            ("random keys, two threads", "one thread", threads, Goal::AtLeast(1.85), "0.83"),
        ];
        for (what, unit, paired, goal, original) in figures {
            let scenario = format!("get, {size} keys, {what}");
            rows.push(if size == STATED {
                Row::multiple(scenario, millions(paired.ours()), &paired, unit, goal, original)
            } else {
                Row::shown(scenario, millions(paired.ours()), format!("{:.2} {unit}", paired.multiple()))
            });
        }
    }
    rows
}

pub(super) async fn snapshots(bench: &Bench) -> Vec<Row> {
    let mut rows = Vec::new();
    for size in SIZES {
        let client = connect(bench).await;
        let map = join(&client).await;
        fill(&map, &keys(size)).await;
        let taken = (0..bench.options.rounds).map(|_| {
            let begun = Instant::now();
            for _ in 0..STRIDE {
                drop(black_box(map.snapshot()));
            }
            begun.elapsed().as_secs_f64() * 1e6 / STRIDE as f64
        });
        let micros = median(taken.collect());
        map.close().await;
        client.close().await;
        bench.server.flush();
        let (scenario, ours) = (format!("snapshot of {size} keys"), format!("{:.0} ns", micros * 1e3));
        rows.push(if size == STATED {
            Row::plain(scenario, ours, micros, "µs", Goal::AtMost(1.0), "10 ms")
        } else {
            Row::shown(scenario, ours, "-".into())
        });
    }
    rows
}

/// Reads per second of one thread that takes the keys in that order, again and again.
fn rate(window: Duration, order: &[usize], read: impl Fn(usize)) -> f64 {
    let mut places = order.iter().cycle();
    let mut count = 0_usize;
    let begun = Instant::now();
    while begun.elapsed() < window {
        for &place in places.by_ref().take(STRIDE) {
            read(place);
        }
        count += STRIDE;
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

fn on_two_threads(window: Duration, orders: &[Vec<usize>; 2], map: &Map<Bytes>, keys: &[Arc<str>]) -> f64 {
    let read = |order: &Vec<usize>| rate(window, order, |at| drop(black_box(map.get(&keys[at]))));
    std::thread::scope(|scope| {
        let threads = orders.each_ref().map(|order| scope.spawn(move || read(order)));
        threads.map(|thread| thread.join().expect("a reader panicked")).iter().sum()
    })
}

/// All places in an order without pattern, the same in each run.
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut StdRng::seed_from_u64(seed));
    order
}
