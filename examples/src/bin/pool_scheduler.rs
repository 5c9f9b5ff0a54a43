//! A process that plans: every half second one of all schedulers says which lamps are to shine. Three of them walk down
//! the street; then it ends, on every node.
//!
//! ```text
//! export PULSE_URL=redis://127.0.0.1:6379
//! cargo run -p examples --bin pool_worker                # in other terminals, as many as you like
//! cargo run -p examples --bin pool_scheduler             # several share the ticks; one may be killed
//! ```
//!
//! Without `PULSE_URL` it is alone, with a worker in the same process.

use std::time::Duration;

use examples::lamps::{self, POOL, say};
use pulse_pool::{Node, Plan};

/// How many lamps the street has, and how many of them shine.
const LAMPS: u64 = 8;
const LIT: u64 = 3;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = pulse_pool::connect(lamps::url()).await?;
    let worker = if lamps::is_alone() { Some(lamps::worker(&client).await?) } else { None };
    let node = Node::builder(POOL).client_only().join(&client).await?;

    let mut schedule = node
        .schedule("evening", Duration::from_millis(500), |tick| async move {
            say(format_args!("plans step {}", tick.number));
            Ok(plan(tick.number))
        })
        .await?;
    schedule.finished().await;

    node.close().await?;
    if let Some(worker) = worker {
        worker.close().await?;
    }
    client.close().await;
    Ok(())
}

/// Says how all lamps are to be, and not what has to change: a job that runs already is left alone, one that does not
/// run need not be stopped. So nothing is missed if a step was left out.
fn plan(step: u64) -> Plan {
    let shines = |lamp: &u64| (step..step + LIT).contains(lamp);
    let (lit, dark): (Vec<u64>, Vec<u64>) = (1..=LAMPS).partition(shines);
    let plan = Plan::new().start_all(lit.iter().map(|lamp| (key(*lamp), "white")));
    // Where nobody else has jobs in the pool, `Plan::only` stops whatever the plan does not name.
    let plan = dark.into_iter().fold(plan, |plan, lamp| plan.stop(key(lamp)));
    if lit.is_empty() { plan.end() } else { plan }
}

fn key(lamp: u64) -> String {
    format!("lamp {lamp}")
}
