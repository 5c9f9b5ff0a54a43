//! A worker: handlers side by side, retries with growing pauses, and dead letters that are replayed once their cause is
//! mended.
//!
//! ```text
//! cargo run -p examples --bin stream_worker
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use pulse_streaming::{Attempt, EventId, EventStream, Ran, RetryPolicy, Sink, Start};
use tokio::sync::Notify;

/// The service that the work needs, which is down at first.
#[derive(Default)]
struct Printer {
    repaired: AtomicBool,
}

impl Printer {
    fn print(&self, label: &Attempt) -> Result<(), &'static str> {
        let text = String::from_utf8_lossy(label.payload()).into_owned();
        if text.contains("glossy") && !self.repaired.load(Ordering::Relaxed) {
            println!("{text}: attempt {} failed", label.number());
            return Err("out of glossy paper");
        }
        println!("{text}: printed at attempt {}", label.number());
        Ok(())
    }
}

/// Runs until so many labels came to an end, one way or the other.
async fn work(sink: Sink, printer: &Arc<Printer>, labels: usize) -> Ran {
    let (printer, ended, enough) = (printer.clone(), Arc::<AtomicUsize>::default(), Arc::new(Notify::new()));
    let told = enough.clone();
    let handler = move |label: Attempt| {
        let printed = printer.print(&label);
        if (printed.is_ok() || label.number() == 3) && ended.fetch_add(1, Ordering::Relaxed) + 1 == labels {
            told.notify_one();
        }
        async move { printed }
    };
    let retry = RetryPolicy::new().attempts(3).pauses(Duration::from_millis(50), Duration::from_secs(1));
    // A service would end with `until(async { drop(tokio::signal::ctrl_c().await) })`.
    sink.run(4, handler)
        .retry(retry)
        .timeout(Duration::from_secs(5))
        .until(async move { enough.notified().await })
        .await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("PULSE_URL").unwrap_or_else(|_| "memory:".into());
    let client = pulse_streaming::connect(&url).await?;
    let labels = EventStream::new(&client, "labels")?;
    for label in ["plain label 1", "glossy label 2", "plain label 3"] {
        labels.add("label", label).await?;
    }

    let printer = Arc::new(Printer::default());
    let sink = labels.sink("printer").start(Start::Oldest).join().await?;
    println!("{:?}", work(sink, &printer, 3).await);

    let letters = labels.dead_letters("printer")?;
    for letter in letters.list(EventId::ZERO, 10).await? {
        println!("dead after {} deliveries: {:?}, because: {}", letter.deliveries(), letter.payload(), letter.reason());
    }

    println!("somebody brings glossy paper");
    printer.repaired.store(true, Ordering::Relaxed);
    println!("{} replayed", letters.replay_all().await?);
    println!("{:?}", work(labels.sink("printer").join().await?, &printer, 1).await);

    labels.destroy().await?;
    client.close().await;
    Ok(())
}
