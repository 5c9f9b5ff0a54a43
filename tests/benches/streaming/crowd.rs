//! Many readers that have nothing to do.

use pulse_streaming::{EventStream, Start};

use super::content::{add, connect};
use crate::harness::{Bench, Goal, Rest, Row};

/// How many.
const CROWD: usize = 1_000;

/// A thousand readers of a thousand streams in one process.
pub(super) async fn thousand_readers(bench: &Bench) -> Vec<Row> {
    let others = bench.server.connections();
    let client = connect(bench).await;
    let mut readers = Vec::with_capacity(CROWD);
    for number in 0..CROWD {
        let stream = EventStream::new(&client, format!("crowd-{number}")).expect("a short name is valid");
        let reader = stream.reader().start(Start::Oldest).join().await.expect("cannot join");
        readers.push((stream, reader));
    }
    let rest = Rest::watch(bench).await;
    let connections = bench.server.connections() - others;
    // What does nothing must not look idle.
    for (stream, reader) in &mut readers {
        add(stream).await;
        reader.next().await.expect("the reader ended").expect("the reader has a notice");
        reader.close().await;
    }
    client.close().await;
    let shown = connections.to_string();
    vec![
        Row::plain(
            "1,000 readers of 1,000 streams: connections",
            shown,
            connections as f64,
            "connections",
            Goal::AtMost(8.0),
            "11 per node",
        ),
        Row::plain("the same, idle: CPU", rest.cpu_shown(), rest.cpu(), "%", Goal::AtMost(1.0), "not measured"),
        Row::shown("the same, idle: commands", rest.commands_shown(), "-".into()),
    ]
}
