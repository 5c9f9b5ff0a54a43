//! A process that hands in work and does none: it dispatches jobs, notifies them and stops them, wherever they run.
//!
//! ```text
//! export PULSE_URL=redis://127.0.0.1:6379
//! cargo run -p examples --bin pool_worker                # in other terminals, as many as you like
//! cargo run -p examples --bin pool_producer
//! ```
//!
//! Without `PULSE_URL` it is alone, with a worker in the same process.

use std::{process, time::Duration};

use examples::lamps::{self, POOL, say};
use pulse_pool::{Error, Node};

const LAMPS: usize = 6;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = pulse_pool::connect(lamps::url()).await?;
    let worker = if lamps::is_alone() { Some(lamps::worker(&client).await?) } else { None };
    // It holds no records of jobs, however many there are in the pool. No call waits for longer than three seconds.
    let node = Node::builder(POOL).client_only().timeout(Duration::from_secs(3)).join(&client).await?;

    // Keys of its own, so that several producers do not ask for the same lamps.
    let keys: Vec<String> = (1..=LAMPS).map(|number| format!("street {} lamp {number}", process::id())).collect();
    for outcome in node.dispatch_batch(keys.iter().map(|key| (key, "red"))).await {
        match outcome {
            Ok(job) => say(format_args!("{} is lit", job.key)),
            // It is recorded, and starts as soon as somebody can run it.
            Err(Error::NotStarted { key, .. }) => say(format_args!("{key} waits for a worker: start pool_worker")),
            Err(error) => return Err(error.into()),
        }
    }

    // The handler takes the first, and says why it does not take the second.
    for colour in ["green", ""] {
        match node.notify(&keys[0], colour).await {
            Ok(()) => say(format_args!("{} was told to be {colour}", keys[0])),
            Err(error) => say(error),
        }
    }

    // Time to end a worker, or to start one: the lamps move.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for key in &keys {
        node.stop(key).await?;
    }
    say("all are out");

    node.close().await?;
    if let Some(worker) = worker {
        worker.close().await?;
    }
    client.close().await;
    Ok(())
}
