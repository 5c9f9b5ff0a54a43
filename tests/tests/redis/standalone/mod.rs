//! Each test has a server of its own, and does harm to it.

mod connecting;
mod credentials;
mod crowds;
mod faults;
mod halfway;
mod leftovers;
mod permissions;
mod strangers;
mod transports;
mod ways;

use std::time::Duration;

use pulse_core::{Client, ClientBuilder, MapId, Scope, StreamId};
use tests::Server;

async fn connect(server: &Server) -> Client {
    ClientBuilder::new(server.url()).connect().await.expect("the server runs")
}

/// A client that does not wait long.
async fn connect_hasty(server: &Server) -> Client {
    let builder = ClientBuilder::new(server.url());
    builder.command_timeout(Duration::from_millis(700)).connect().await.expect("the server runs")
}

fn scope() -> Scope {
    Scope::new("orders").expect("the name is valid")
}

fn map(name: &str) -> MapId {
    scope().map(name).expect("the name is valid")
}

fn stream(name: &str) -> StreamId {
    scope().stream(name).expect("the name is valid")
}

/// Waits for a condition.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    tests::eventually(what, async || if holds().await { Ok(()) } else { Err("not yet") }).await;
}
