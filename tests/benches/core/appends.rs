//! Events appended to one stream.

use std::time::Duration;

use pulse_core::{Client, NewEvent, Scope, Transaction};

use crate::harness::{Bare, Bench, Goal, PAYLOAD, Paired, Row, Yardstick, in_turn, per_second, thousands};

/// How many events a batch has.
const BATCH: usize = 100;

/// One event per commit from 64 tasks, against the bare command through fred.
pub(crate) async fn single_appends(bench: &Bench) -> Vec<Row> {
    let client = connect(bench).await;
    let bare = Bare::connect(&bench.options.url).await;
    let (mut against_fred, mut against_server) = (Paired::default(), Paired::default());
    for _ in 0..bench.options.rounds {
        let x1 = bench.yardsticks.measure(Yardstick::X1, bench.options.requests(90_000.0)).await;
        let least = async |window| {
            let fred = bare.clone();
            let appends = per_second(64, window, move |_, _| {
                let fred = fred.clone();
                async move { fred.append().await }
            });
            appends.await
        };
        let ours = async |window| appends_per_second(window, &client, 64, 1).await;
        let (ours, least) = in_turn(bench.options.window, ours, least).await;
        bench.server.flush();
        against_fred.push(ours, least);
        against_server.push(ours, x1);
    }
    bare.close().await;
    client.close().await;
    let ours = format!("{} ({:.2} X1)", thousands(against_fred.ours()), against_server.multiple());
    let scenario = "appends of one event, 64 tasks";
    vec![Row::multiple(scenario, ours, &against_fred, "fred's XADD", Goal::AtLeast(0.9), "0.99 X1")]
}

/// A hundred events per commit from 8 tasks, against the server's own load generator with a pipeline.
pub(crate) async fn batched_appends(bench: &Bench) -> Vec<Row> {
    let client = connect(bench).await;
    let mut paired = Paired::default();
    for _ in 0..bench.options.rounds {
        let x32 = bench.yardsticks.measure(Yardstick::X32, bench.options.requests(600_000.0)).await;
        let ours = appends_per_second(bench.options.window, &client, 8, BATCH).await;
        bench.server.flush();
        paired.push(ours, x32);
    }
    client.close().await;
    let ours = thousands(paired.ours());
    let scenario = "appends in commits of 100, 8 tasks";
    vec![Row::multiple(scenario, ours, &paired, "X32", Goal::AtLeast(0.5), "has none")]
}

async fn connect(bench: &Bench) -> Client {
    pulse_core::connect(&bench.options.url).await.expect("cannot connect")
}

async fn appends_per_second(window: Duration, client: &Client, tasks: usize, batch: usize) -> f64 {
    let scope = Scope::new("bench").expect("a short name is valid");
    let event = NewEvent::new("e", PAYLOAD.as_slice());
    let client = client.clone();
    let commits = per_second(tasks, window, move |_, _| {
        let mut transaction = Transaction::new(&scope);
        for _ in 0..batch {
            transaction = transaction.append("stream", event.clone());
        }
        let client = client.clone();
        async move {
            client.commit(transaction).await.expect("the commit failed");
        }
    });
    commits.await * batch as f64
}
