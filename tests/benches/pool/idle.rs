//! What a pool costs in which nothing happens.

use super::content::Pool;
use crate::harness::{Bench, Goal, Rest, Row};

/// Two nodes with a thousand jobs each.
pub(super) async fn idle_node(bench: &Bench) -> Vec<Row> {
    let pool = Pool::begin(bench).await;
    pool.fill(0, 2_000).await;
    let rest = Rest::watch(bench).await;
    pool.end().await;
    let each = rest.commands() / 2.0;
    vec![
        Row::plain(
            "an idle node with 1,000 jobs: commands",
            format!("{each:.1} per second"),
            each,
            "per second",
            Goal::AtMost(5.0),
            "not measured",
        ),
        Row::shown("two of them: CPU", rest.cpu_shown(), "-".into()),
    ]
}
