//! One commit after the other.

use pulse_core::{Scope, Transaction};

use crate::harness::{Bare, Bench, Goal, PAYLOAD, Paired, Row, Yardstick, median_latency, micros};

/// Commits of one put, one after the other, against the round trip of a `PING` through fred.
pub(crate) async fn sequential_commits(bench: &Bench) -> Vec<Row> {
    let client = pulse_core::connect(&bench.options.url).await.expect("cannot connect");
    let bare = Bare::connect(&bench.options.url).await;
    let scope = Scope::new("bench").expect("a short name is valid");
    let samples = bench.options.samples;
    let (mut against_ping, mut against_fred) = (Paired::default(), Paired::default());
    for _ in 0..bench.options.rounds {
        bench.yardsticks.measure(Yardstick::P, samples).await;
        let fred = bare.clone();
        let ping = median_latency(samples, move |_| {
            let fred = fred.clone();
            async move { fred.ping().await }
        });
        let ping = bench.yardsticks.record(Yardstick::F, ping.await);
        let (committer, scope) = (client.clone(), scope.clone());
        let commit = median_latency(samples, move |number| {
            let (committer, scope) = (committer.clone(), scope.clone());
            async move {
                let key = format!("k{:03}", number % 1_000);
                let put = Transaction::new(&scope).put("map", key, PAYLOAD.as_slice());
                committer.commit(put).await.expect("the commit failed");
            }
        });
        let commit = commit.await;
        let fred = bare.clone();
        let least = median_latency(samples, move |number| {
            let fred = fred.clone();
            async move { fred.put(&format!("k{:03}", number % 1_000)).await }
        });
        against_ping.push(commit, ping);
        against_fred.push(commit, least.await);
        bench.server.flush();
    }
    bare.close().await;
    client.close().await;
    let ours = format!("{} ({:.2} fred's EVALSHA)", micros(against_ping.ours()), against_fred.multiple());
    let scenario = "commits of one put, sequential, median";
    vec![Row::multiple(scenario, ours, &against_ping, "F", Goal::AtMost(1.35), "not measured")]
}
