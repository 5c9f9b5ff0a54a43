//! The lamps of a street. Each is a job: it shines in the colour of its payload until it is put out, and changes its
//! colour when it is notified.

use std::{
    collections::HashMap,
    fmt::Display,
    process,
    sync::{Mutex, MutexGuard, PoisonError},
};

use pulse_pool::{Bytes, Error, HandlerError, Job, JobHandler, JobKey, Node};
use tokio::{sync::watch, task::JoinHandle};

/// The pool in which the programs meet.
pub const POOL: &str = "street lamps";

/// Where the programs meet: at the server that `PULSE_URL` names, as processes of their own. Without it, each is alone
/// in its own memory.
#[must_use]
pub fn url() -> String {
    std::env::var("PULSE_URL").unwrap_or_else(|_| "memory:street".into())
}

/// Whether a program is alone, and has to play the others too.
#[must_use]
pub fn is_alone() -> bool {
    url().starts_with("memory:")
}

/// Says something, under the number of this process.
pub fn say(what: impl Display) {
    println!("[{}] {what}", process::id());
}

/// A node with a worker.
///
/// # Errors
///
/// Those of [`Node::join`] and [`Node::add_worker`].
pub async fn worker(client: &pulse_pool::Client) -> Result<Node, Error> {
    let node = Node::join(client, POOL).await?;
    node.add_worker(Lamps::default()).await?;
    Ok(node)
}

/// Runs the lamps of a worker.
#[derive(Debug, Default)]
pub struct Lamps {
    lit: Mutex<HashMap<JobKey, Lamp>>,
}

#[derive(Debug)]
struct Lamp {
    colour: watch::Sender<String>,
    task: JoinHandle<()>,
}

impl Lamps {
    fn lit(&self) -> MutexGuard<'_, HashMap<JobKey, Lamp>> {
        self.lit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pulse_pool::async_trait]
impl JobHandler for Lamps {
    async fn start(&self, job: Job) -> Result<(), HandlerError> {
        // Nothing of the job may go on after an error: it comes before the task.
        let (colour, colours) = watch::channel(colour_of(job.payload())?);
        let key = job.key().clone();
        let task = tokio::spawn(shine(job, colours));
        self.lit().insert(key, Lamp { colour, task });
        Ok(())
    }

    async fn stop(&self, key: &JobKey) -> Result<(), HandlerError> {
        let lamp = self.lit().remove(key);
        if let Some(lamp) = lamp {
            // `Job::stopped` ends it. It shines elsewhere only after it is out here.
            lamp.task.await?;
        }
        Ok(())
    }

    async fn notify(&self, key: &JobKey, colour: Bytes) -> Result<(), HandlerError> {
        let colour = colour_of(&colour)?;
        let lit = self.lit();
        let lamp = lit.get(key).ok_or("the lamp is out")?;
        lamp.colour.send_replace(colour);
        Ok(())
    }
}

async fn shine(job: Job, mut colours: watch::Receiver<String>) {
    while job.may_run() {
        say(format_args!("{} shines {} (epoch {})", job.key(), *colours.borrow_and_update(), job.epoch()));
        tokio::select! {
            () = job.stopped() => break,
            changed = colours.changed() => if changed.is_err() { break },
        }
    }
    say(format_args!("{} is out", job.key()));
}

fn colour_of(payload: &Bytes) -> Result<String, HandlerError> {
    match std::str::from_utf8(payload)? {
        "" => Err("a lamp needs a colour".into()),
        colour => Ok(colour.to_owned()),
    }
}
