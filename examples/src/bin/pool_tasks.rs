//! A task queue: jobs that end by themselves, with results, retries, a delay, priorities, and dead jobs that are
//! replayed once their cause is mended.
//!
//! ```text
//! cargo run -p examples --bin pool_tasks
//! ```
//!
//! With `PULSE_URL=redis://127.0.0.1:6379` in its environment the queue is at a server. It is removed at the end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pulse_pool::{Error, HandlerError, Job, NewJob, Node, RetryPolicy};

/// The service that the work needs, which is down at first.
#[derive(Default)]
struct Press {
    is_repaired: AtomicBool,
}

impl Press {
    /// Prints so many pages, and says how many sheets that took.
    async fn print(&self, job: Job) -> Result<u32, HandlerError> {
        let pages: u32 = job.decode()?;
        if job.key().as_str().starts_with("poster") && !self.is_repaired.load(Ordering::Relaxed) {
            println!("{}: attempt {} failed", job.key(), job.attempt());
            return Err("the large press is out of order".into());
        }
        tokio::time::sleep(pages * Duration::from_millis(1)).await;
        println!("{}: {pages} pages at attempt {}", job.key(), job.attempt());
        Ok(pages.div_ceil(2))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("PULSE_URL").unwrap_or_else(|_| "memory:".into());
    let client = pulse_pool::connect(&url).await?;
    let node = Node::join(&client, "printing").await?;

    let press = Arc::new(Press::default());
    let prints = press.clone();
    node.worker_fn(move |job| {
        let press = prints.clone();
        async move { press.print(job).await }
    })
    .retry(RetryPolicy::new().attempts(3).pauses(Duration::from_millis(50), Duration::from_secs(1)))
    .timeout(Duration::from_secs(30))
    .concurrency(1)
    .await?;

    // Wait for a result, on whichever node the job runs.
    let sheets: u32 = node.dispatch_and_wait(NewJob::with_value("letter", &3)?).await?;
    println!("the letter took {sheets} sheets");

    // Or only hand jobs in: many at once, some for later. While the book is printed the others queue up for the press,
    // and the urgent one overtakes those that came before it.
    let batch = [
        NewJob::with_value("book", &300)?.priority(20),
        NewJob::with_value("leaflet 1", &2)?,
        NewJob::with_value("leaflet 2", &2)?.priority(10),
        NewJob::with_value("reminder", &1)?.run_in(Duration::from_millis(600)),
    ];
    for recorded in node.enqueue_batch(batch).await {
        recorded?;
    }

    // What fails again and again is kept among the dead, with the reason.
    let poster = node.dispatch_and_wait::<u32>(NewJob::with_value("poster", &1)?).await;
    let Err(Error::Failed { reason, .. }) = poster else { return Err("the poster cannot have been printed".into()) };
    println!("given up: {reason}");
    press.is_repaired.store(true, Ordering::Relaxed);
    for dead in node.dead_jobs().await? {
        println!("once more: {}, given up after {} attempts", dead.key, dead.failed + 1);
        node.replay(&dead.key).await?;
    }
    // Whoever did not wait can ask for the result for ten minutes.
    for key in ["book", "leaflet 1", "leaflet 2", "poster", "reminder"] {
        while !matches!(node.result::<u32>(key).await, Ok(Some(_))) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    // Removes everything of the pool; a worker among others would close its node instead.
    node.shutdown().await?;
    client.close().await;
    Ok(())
}
