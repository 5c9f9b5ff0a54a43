//! A process that works: it joins the pool, runs the jobs that belong to it, and hands them over when it is told to
//! end. The handler is in `examples/src/lamps.rs`.
//!
//! ```text
//! export PULSE_URL=redis://127.0.0.1:6379                # `cargo xtask redis up` starts a server
//! cargo run -p examples --bin pool_worker                # as many as you like, each in a terminal; Ctrl-C ends one
//! cargo run -p examples --bin pool_producer              # in another terminal: has lamps shine, changes them, puts them out
//! cargo run -p examples --bin pool_scheduler             # in yet another: has them shine by a plan
//! ```
//!
//! Without `PULSE_URL` it is alone, and hands in a job by itself. Where nobody can press Ctrl-C it ends when there was
//! nothing to do for some seconds.

use std::{io::IsTerminal, time::Duration};

use examples::lamps::{self, Lamps, POOL, say};
use pulse_pool::{Client, Error, Node};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = pulse_pool::connect(lamps::url()).await?;
    let node = Node::join(&client, POOL).await?;
    node.add_worker(Lamps::default()).await?;
    say(format_args!("works; there are {} workers now", node.pool_workers().len()));

    if lamps::is_alone() {
        say("is alone: set PULSE_URL to meet others, see the head of this file");
        hand_in(&client).await?;
        node.close().await?;
    } else {
        // Stops the jobs one by one, and hands each to the worker that it belongs to then.
        node.close_on(told_to_end(&node)).await?;
    }
    say("has left");
    client.close().await;
    Ok(())
}

/// What somebody else does where there is somebody else.
async fn hand_in(client: &Client) -> Result<(), Error> {
    let node = Node::builder(POOL).client_only().join(client).await?;
    node.dispatch("lamp", "red").await?;
    node.notify("lamp", "green").await?;
    node.stop("lamp").await?;
    node.close().await
}

async fn told_to_end(node: &Node) {
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated() => {}
        () = idle(node), if !std::io::stdin().is_terminal() => {}
    }
}

/// Waits for SIGTERM, by which containers and services are told to end.
#[cfg(unix)]
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};

    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => drop(terminate.recv().await),
        Err(_) => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}

/// Waits until no job was here for five seconds.
async fn idle(node: &Node) {
    let mut seconds = 0;
    while seconds < 5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let works = node.stats().await.is_ok_and(|stats| stats.jobs_here > 0);
        seconds = if works { 0 } else { seconds + 1 };
    }
}
