//! A worker pool: two nodes, jobs that stay where they are, and a node that leaves.
//!
//! ```text
//! cargo run -p examples --bin pool
//! ```

use pulse_pool::{HandlerError, Job, JobHandler, JobKey, Node};

/// Says what it is told to do.
struct Announcer(&'static str);

#[pulse_pool::async_trait]
impl JobHandler for Announcer {
    async fn start(&self, job: Job) -> Result<(), HandlerError> {
        println!("{} starts {} ({:?})", self.0, job.key(), job.payload());
        Ok(()) // a real one would spawn a task here that ends with `job.stopped()`
    }

    async fn stop(&self, key: &JobKey) -> Result<(), HandlerError> {
        println!("{} stops  {key}", self.0);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = pulse_pool::connect("memory:").await?; // or "redis://localhost:6379"
    let north = Node::join(&client, "factory").await?;
    let south = Node::join(&client, "factory").await?;
    north.add_worker(Announcer("north")).await?;
    south.add_worker(Announcer("south")).await?;

    for machine in ["press", "lathe", "drill", "saw"] {
        north.dispatch(machine, "run").await?; // it runs now, here or there
    }
    println!("{} jobs run on {} workers; north leaves", north.jobs().await?.len(), north.workers().len());
    north.close().await?;
    for job in south.jobs().await? {
        south.stop(&job.key).await?;
    }
    south.close().await?;
    client.close().await;
    Ok(())
}
