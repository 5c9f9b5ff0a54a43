//! Event streams over Redis, Valkey or the memory of the process.
//!
//! An [`EventStream`] is a named, ordered log of events. There are two ways to follow it:
//!
//! - a [`Reader`] sees every event; any number of readers do not notice each other;
//! - a [`Sink`] shares the work: instances with one name share one cursor, and each event goes to one of them, at least
//!   once, until it is acknowledged.
//!
//! A [`PartitionedStream`] spreads one logical stream over many, by key, and keeps the order of each key while the
//! instances of its sinks come and go.
//!
//! Readers and sinks are `futures::Stream`s with a bounded buffer, heal by themselves, and say so ([`Notice`]) where
//! something was lost that healing cannot bring back.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use pulse_streaming::{EventStream, NewEvent, Start};
//!
//! let client = pulse_streaming::connect("memory:").await?; // or "redis://localhost:6379"
//! let orders = EventStream::new(&client, "orders")?;
//!
//! let mut audit = orders.reader().start(Start::Oldest).join().await?;
//! let mut billing = orders.sink("billing").topic("eu").join().await?;
//!
//! orders.add("placed", "order 7").await?;
//! orders.add_event(NewEvent::new("placed", "order 8").with_topic("eu")).await?;
//!
//! // The reader sees both.
//! assert_eq!(audit.next().await.unwrap()?.payload(), "order 7");
//! assert_eq!(audit.next().await.unwrap()?.payload(), "order 8");
//!
//! // The sink hands out what it asked for, and is told when the work is done.
//! let delivery = billing.next().await.unwrap()?;
//! assert_eq!(delivery.payload(), "order 8");
//! delivery.ack().await?;
//!
//! audit.close().await;
//! billing.close().await;
//! # Ok(()) }
//! ```
#![doc = include_str!("docs/guarantees.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
mod buffer;
mod dead;
mod error;
mod event;
mod filter;
mod meter;
mod notice;
mod options;
mod partitioned;
mod reader;
mod sink;
mod start;
mod stream;
mod streams;
mod trace;
mod trouble;

pub use pulse_core;
#[cfg(feature = "rustls")]
#[cfg_attr(docsrs, doc(cfg(feature = "rustls")))]
pub use pulse_core::Tls;
pub use pulse_core::{
    Client, ClientBuilder, ConsumerInfo, EventId, Group, GroupInfo, Headers, NewEvent, Scope, StreamDetail, StreamId,
    StreamInfo, Transaction, Trim, connect,
};

pub use self::{
    dead::{DeadLetter, DeadLetters},
    error::{Error, Operation, OptionValue},
    event::Event,
    notice::Notice,
    partitioned::{
        PartitionedReaderBuilder, PartitionedSink, PartitionedSinkBuilder, PartitionedStream, PartitionedStreamBuilder,
    },
    reader::{Reader, ReaderBuilder},
    sink::{Attempt, BatchRunner, Delivery, Ran, RetryPolicy, Runner, Settlement, Sink, SinkBuilder},
    start::Start,
    stream::{EventStream, Retention, StreamBuilder},
};

/// Pages beside the reference.
pub mod guide {
    #[doc = include_str!("docs/failures.md")]
    pub mod failures {}

    #[doc = include_str!("docs/from_go.md")]
    pub mod from_go {}
}

/// The example of the README, so that it is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
