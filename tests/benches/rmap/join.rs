//! Joining a map that is there.

use std::time::Instant;

use super::{
    SIZES, STATED,
    content::{connect, fill, join, keys},
};
use crate::harness::{Bare, Bench, Goal, Paired, Row, median};

/// From the call to the whole replica, against one `HGETALL` of the same fields through fred; and how long a command of
/// it keeps the server busy.
pub(super) async fn joins(bench: &Bench) -> Vec<Row> {
    let mut rows = Vec::new();
    for size in SIZES {
        let (client, bare, keys) = (connect(bench).await, Bare::connect(&bench.options.url).await, keys(size));
        let source = join(&client).await;
        fill(&source, &keys).await;
        source.close().await;
        bare.fill("{bare}:hash", &keys).await;
        let (mut paired, mut longest) = (Paired::default(), Vec::new());
        for _ in 0..bench.options.rounds {
            let begun = Instant::now();
            assert_eq!(bare.read_all("{bare}:hash").await, size);
            let theirs = begun.elapsed().as_secs_f64();
            bench.server.forget_times();
            let begun = Instant::now();
            let map = join(&client).await;
            let ours = begun.elapsed().as_secs_f64();
            longest.push(bench.server.longest_command() / 1e3);
            assert_eq!(map.len(), size);
            map.close().await;
            paired.push(ours * 1e3, theirs * 1e3);
        }
        bare.close().await;
        client.close().await;
        bench.server.flush();
        let (scenario, ours) = (format!("join of {size} keys"), format!("{:.1} ms", paired.ours()));
        let busy = median(longest);
        let (busy_scenario, busy_ours) = (format!("{scenario}: longest command"), format!("{busy:.2} ms"));
        if size == STATED {
            rows.push(Row::multiple(scenario, ours, &paired, "HGETALL", Goal::AtMost(1.2), "2.5 HSETs"));
            rows.push(Row::plain(busy_scenario, busy_ours, busy, "ms", Goal::AtMost(5.0), "-"));
        } else {
            rows.push(Row::shown(scenario, ours, format!("{:.2} HGETALL", paired.multiple())));
            rows.push(Row::shown(busy_scenario, busy_ours, "-".into()));
        }
    }
    rows
}
