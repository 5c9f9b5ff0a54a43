#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
//!
//! # How it works inside
//!
//! Workers and jobs are records in two [replicated maps](pulse_rmap); payloads lie beside them and are read only by
//! whoever starts the job. A worker's record is bound to the lease of its node and vanishes with it.
//!
//! Every node runs one task, the runner, which looks at a job when its record changes and at all jobs when the workers
//! change. What it sees (the record, what runs here, who is in the pool) goes into a pure function that names the next
//! step, if any: start, stop, take over, hand over, remove. Each step is carried out by a task of its own, as one
//! transaction that expects the record that it was decided on, and, for a takeover, that the former owner's record is
//! gone. Of two nodes that act on different views, one is refused; it looks again.
//!
//! Because the runner compares what is with what should be, rather than reacting to messages, a change that it missed
//! costs time and nothing else. The order in which two nodes see changes does not matter.
//!
//! A job of a worker that is in the pool is removed by nobody but that worker's node. So a record that vanishes while
//! its job runs was lost by the backend, which the node finds out and reports ([`Node::lost_jobs`]).
//!
//! [`guide::how_it_works`] shows it step by step.

mod activation;
mod cadence;
mod clock;
mod contain;
mod dead;
mod decide;
mod error;
mod fetching;
mod follow;
mod fresh;
mod group;
mod handler;
mod headers;
mod history;
mod id;
mod meter;
mod new_job;
mod node;
mod options;
mod order;
mod own_writes;
mod placement;
mod policy;
mod pool;
mod post;
mod record;
mod requeue;
mod result;
mod runner;
mod schedule;
#[cfg(feature = "metrics")]
mod standing;
mod stats;
mod tables;
mod task;
mod ticker;
mod trace;
mod watch;
mod write;
mod writing;

/// Pages beside the reference.
pub mod guide {
    #[doc = include_str!("docs/how_it_works.md")]
    pub mod how_it_works {}

    #[doc = include_str!("docs/failures.md")]
    pub mod failures {}

    #[doc = include_str!("docs/tuning.md")]
    pub mod tuning {}

    #[doc = include_str!("docs/from_go.md")]
    pub mod from_go {}
}

pub use async_trait::async_trait;
pub use bytes::Bytes;
#[cfg(feature = "rustls")]
#[cfg_attr(docsrs, doc(cfg(feature = "rustls")))]
pub use pulse_core::Tls;
pub use pulse_core::{Client, ClientBuilder, connect};
pub use tokio_util::sync::CancellationToken;

#[cfg(feature = "cron")]
pub use self::cadence::InvalidCron;
pub use self::{
    cadence::{Cadence, MissedTicks},
    dead::DeadJob,
    error::Error,
    handler::{HandlerError, Job, JobHandler},
    id::{Epoch, JobKey, NodeId, WorkerId},
    new_job::NewJob,
    node::{JobInfo, JobState, Node, NodeBuilder, WorkerInfo, destroy},
    options::WorkerOptions,
    policy::RetryPolicy,
    requeue::Requeue,
    schedule::{Plan, Schedule},
    stats::PoolStats,
    task::FnWorker,
    ticker::{Tick, Ticker},
};

#[cfg(test)]
mod tests {
    #[test]
    fn everything_public_can_be_shared_between_threads() {
        fn shared<T: Send + Sync + std::fmt::Debug>() {}
        shared::<crate::Node>();
        shared::<crate::NodeBuilder>();
        shared::<crate::Job>();
        shared::<crate::NewJob>();
        shared::<crate::JobInfo>();
        shared::<crate::WorkerInfo>();
        shared::<crate::Error>();
        shared::<crate::Ticker>();
        shared::<crate::Schedule>();
        shared::<crate::Plan>();
    }
}
