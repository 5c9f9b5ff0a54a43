//! What the pool writes down: the records of workers, tickers and so on, and those of jobs, in [`job`].
//!
//! These are the values of the replicated maps, read by nodes of every version: fields may be added with a default,
//! never changed or removed. The names of the fields are written with every record, hence the short ones.

mod job;

use serde::{Deserialize, Serialize};

pub(crate) use self::job::{JobRecord, Phase, PlacedBy};
use crate::{Cadence, NodeId};

/// A worker, bound to the lease of its node: it vanishes with the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkerRecord {
    #[serde(rename = "n")]
    pub(crate) node: NodeId,
    /// Its share of the jobs, compared with the others'.
    #[serde(rename = "w")]
    pub(crate) weight: u32,
    /// It hands its jobs over and gets no more.
    #[serde(rename = "d")]
    pub(crate) draining: bool,
    /// What a job may ask for, sorted.
    #[serde(rename = "l", default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) labels: Vec<String>,
}

impl WorkerRecord {
    /// The weight to place jobs by.
    pub(crate) fn placing_weight(&self) -> u32 {
        if self.draining { 0 } else { self.weight }
    }

    /// Whether it has all that a job asks for.
    pub(crate) fn has(&self, needs: &[String]) -> bool {
        needs.iter().all(|need| self.labels.binary_search(need).is_ok())
    }
}

/// What was said of a job when it was dispatched, and what became of it since.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terms {
    /// When it was dispatched, by the server's clock, in milliseconds.
    #[serde(rename = "t", default)]
    pub(crate) at: u64,
    /// It is not started before this moment of the server's clock, in milliseconds; 0: at once.
    #[serde(rename = "b", default, skip_serializing_if = "is_default")]
    pub(crate) not_before: u64,
    /// Jobs of a greater one start first where a worker has not enough room for all.
    #[serde(rename = "i", default, skip_serializing_if = "is_default")]
    pub(crate) priority: i32,
    /// How many attempts failed since it was dispatched.
    #[serde(rename = "f", default, skip_serializing_if = "is_default")]
    pub(crate) failed: u32,
    /// How many attempts ended because their node was cut off and stopped them, and do not count as failed.
    #[serde(rename = "c", default, skip_serializing_if = "is_default")]
    pub(crate) cut_off: u32,
    /// The labels that its worker must have, sorted.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub(crate) needs: Option<Box<[String]>>,
    /// The schedule that started it.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub(crate) schedule: Option<Box<str>>,
}

impl Terms {
    pub(crate) fn needs(&self) -> &[String] {
        self.needs.as_deref().unwrap_or_default()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A job that was given up. Its payload stands beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeadRecord {
    #[serde(rename = "r")]
    pub(crate) reason: String,
    /// By the server's clock, in milliseconds.
    #[serde(rename = "t")]
    pub(crate) at: u64,
    #[serde(rename = "m")]
    pub(crate) terms: Terms,
}

/// A ticker: when its next tick is due, and how it goes on from there. Whoever replaces the record when the tick is due
/// has the tick.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TickerRecord {
    /// Drawn at random for each record, so that whoever wrote it can tell.
    #[serde(rename = "i")]
    pub(crate) id: u64,
    #[serde(rename = "c")]
    pub(crate) cadence: Cadence,
    /// The number of the next tick, from 1.
    #[serde(rename = "n")]
    pub(crate) number: u64,
    /// When it is due, by the server's clock, in milliseconds; `None`: never.
    #[serde(rename = "d")]
    pub(crate) due: Option<u64>,
    /// Of a schedule: the latest tick whose plan was carried out, or is. 0: none.
    #[serde(rename = "p", default, skip_serializing_if = "is_default")]
    pub(crate) planned: u64,
    /// It was stopped everywhere. The record only says so, and expires.
    #[serde(rename = "s", default, skip_serializing_if = "is_default")]
    pub(crate) stopped: bool,
}

/// The run of the server that the pool's nodes have seen, and what follows from the runs before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerRecord {
    /// As the backend names it.
    #[serde(rename = "r")]
    pub(crate) run: String,
    /// When a node noticed that confirmed changes may be lost, by the server's clock, in milliseconds; 0: never.
    #[serde(rename = "s")]
    pub(crate) since: u64,
    /// What the epochs of starts exceed the revisions of the jobs by.
    #[serde(rename = "f")]
    pub(crate) floor: u64,
    /// The longest lifetime of a node's lease so far, in milliseconds.
    #[serde(rename = "t")]
    pub(crate) longest_ttl: u64,
}
