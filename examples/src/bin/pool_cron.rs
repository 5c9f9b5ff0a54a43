//! Cron patterns: a schedule that starts a job every second, and a ticker that goes by the clock of a city. Of all
//! processes that run this, one has each tick.
//!
//! ```text
//! cargo run -p examples --bin pool_cron
//! ```
//!
//! With `PULSE_URL` in its environment, several of them share the ticks at a server.

use std::time::Duration;

use pulse_pool::{Cadence, Node, Plan};

/// How many bells ring.
const BELLS: u64 = 3;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("PULSE_URL").unwrap_or_else(|_| "memory:".into());
    let client = pulse_pool::connect(&url).await?;
    let node = Node::join(&client, "bells").await?;
    node.worker_fn(|job| async move {
        println!("{} rings", job.key());
        Ok(())
    })
    .await?;

    // Six fields: seconds come first. In UTC, unless said otherwise.
    let mut schedule = node
        .schedule("every second", Cadence::cron("* * * * * *")?, |tick| async move {
            let plan = Plan::new().start((bell(tick.number), ""));
            Ok(if tick.number < BELLS { plan } else { plan.end() })
        })
        .await?;

    // Five fields: to the minute. By the clock of Berlin, in summer and in winter.
    let mut mornings = node.ticker("mornings", Cadence::cron_in("0 9 * * MON-FRI", "Europe/Berlin")?).await?;

    loop {
        // Nothing is lost if either is not waited for to the end.
        tokio::select! {
            () = schedule.finished() => break,
            Some(tick) = mornings.next() => {
                println!("good morning, Berlin: number {}, due {:?}", tick.number, tick.due);
            }
        }
    }

    // The last bell may ring elsewhere, and may not be through yet.
    while node.result::<()>(bell(BELLS)).await?.is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // A ticker outlives its processes, unless it is stopped.
    mornings.stop().await?;
    node.close().await?;
    client.close().await;
    Ok(())
}

fn bell(number: u64) -> String {
    format!("bell {number}")
}
