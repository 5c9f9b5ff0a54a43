//! A dedicated worker pool.

mod decide;
mod error;
mod handler;
mod id;
mod node;
mod options;
mod placement;
mod pool;
mod record;
mod runner;
mod tables;
mod watch;
mod write;

pub use async_trait::async_trait;
pub use pulse_core::{Client, ClientBuilder, connect};

pub use self::{
    error::Error,
    handler::{HandlerError, Job, JobHandler},
    id::{Epoch, JobKey, NodeId, WorkerId},
    node::{JobInfo, JobState, Node, NodeBuilder, WorkerInfo, destroy},
    options::WorkerOptions,
};
