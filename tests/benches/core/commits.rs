//! Commits that write to one map of 1,000 keys.

use std::{sync::Arc, time::Duration};

use pulse_core::{Client, Scope, Transaction};

use crate::harness::{Bare, Bench, Goal, PAYLOAD, Paired, Row, Yardstick, in_turn, per_second, thousands};

/// How many keys the map has.
const KEYS: usize = 1_000;
/// How many puts a batch has.
const BATCH: usize = 50;

/// One put per commit from 64 tasks, against the least that fred would have to do for the same.
pub(crate) async fn single_puts(bench: &Bench) -> Vec<Row> {
    let map = Map::open(bench).await;
    let bare = Bare::connect(&bench.options.url).await;
    let (mut against_fred, mut against_server) = (Paired::default(), Paired::default());
    for _ in 0..bench.options.rounds {
        let h1 = bench.yardsticks.measure(Yardstick::H1, bench.options.requests(90_000.0)).await;
        let least = async |window| map.bare_puts_per_second(&bare, window).await;
        let ours = async |window| map.puts_per_second(window, 64, 1).await;
        let (ours, least) = in_turn(bench.options.window, ours, least).await;
        bench.server.flush();
        against_fred.push(ours, least);
        against_server.push(ours, h1);
    }
    bare.close().await;
    map.client.close().await;
    let ours = format!("{} ({:.2} H1)", thousands(against_fred.ours()), against_server.multiple());
    let scenario = "commits of one put, 64 tasks";
    vec![Row::multiple(scenario, ours, &against_fred, "fred's EVALSHA", Goal::AtLeast(0.85), "0.54 H1")]
}

/// Commits of 50 puts from 16 tasks, against the least that fred would have to do for as many of one put.
///
/// Not against our own commits of one put: those of many tasks travel together, and are no measure of one command each.
pub(crate) async fn batched_puts(bench: &Bench) -> Vec<Row> {
    let map = Map::open(bench).await;
    let bare = Bare::connect(&bench.options.url).await;
    let (mut against_fred, mut against_own) = (Paired::default(), Paired::default());
    for _ in 0..bench.options.rounds {
        let least = async |window| map.bare_puts_per_second(&bare, window).await;
        let batched = async |window| map.puts_per_second(window, 16, BATCH).await;
        let (batched, least) = in_turn(bench.options.window, batched, least).await;
        let single = map.puts_per_second(bench.options.window, 64, 1).await;
        bench.server.flush();
        against_fred.push(batched, least);
        against_own.push(batched, single);
    }
    bare.close().await;
    map.client.close().await;
    let ours = format!("{} ({:.2} ours of one put)", thousands(against_fred.ours()), against_own.multiple());
    let scenario = "puts in commits of 50, 16 tasks";
    vec![Row::multiple(scenario, ours, &against_fred, "fred's EVALSHA", Goal::AtLeast(6.0), "has none")]
}

/// The map that is written to.
struct Map {
    client: Client,
    scope: Scope,
    name: Arc<str>,
    keys: Arc<[Arc<str>]>,
}

impl Map {
    async fn open(bench: &Bench) -> Self {
        let client = pulse_core::connect(&bench.options.url).await.expect("cannot connect");
        let scope = Scope::new("bench").expect("a short name is valid");
        let keys = (0..KEYS).map(|number| format!("k{number:012}").into()).collect();
        Self { client, scope, name: "map".into(), keys }
    }

    /// One put per command, from 64 tasks, by a script that does no more than must be done.
    async fn bare_puts_per_second(&self, bare: &Bare, window: Duration) -> f64 {
        let (keys, fred) = (self.keys.clone(), bare.clone());
        let puts = per_second(64, window, move |task, number| {
            let (keys, fred) = (keys.clone(), fred.clone());
            async move { fred.put(&keys[place(task, number)]).await }
        });
        puts.await
    }

    async fn puts_per_second(&self, window: Duration, tasks: usize, batch: usize) -> f64 {
        let (client, scope, name, keys) =
            (self.client.clone(), self.scope.clone(), self.name.clone(), self.keys.clone());
        let commits = per_second(tasks, window, move |task, number| {
            let first = place(task, number * batch);
            let mut transaction = Transaction::new(&scope);
            for key in keys.iter().cycle().skip(first).take(batch) {
                transaction = transaction.put(name.clone(), key.clone(), PAYLOAD.as_slice());
            }
            let client = client.clone();
            async move {
                client.commit(transaction).await.expect("the commit failed");
            }
        });
        commits.await * batch as f64
    }
}

/// Which key a task writes in its so-manieth operation.
fn place(task: usize, number: usize) -> usize {
    (task * 7_919 + number) % KEYS
}
