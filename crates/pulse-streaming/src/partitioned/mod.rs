//! Partitioned streams: one logical stream over many streams, with order per key while the consumers come and go.
//!
//! [`stream`] places events; [`sink`] is the subscriber's handle of one instance. One task for each instance
//! ([`coordinator`]) keeps it a member and decides by [`assign`] which partitions it takes and which it hands over,
//! through the [`control`] map of all instances. What happens inside one partition is [`crate::sink::ordered`].

mod assign;
mod builder;
mod control;
mod coordinator;
mod reader;
mod sink;
mod stream;

pub use self::{
    builder::PartitionedStreamBuilder,
    reader::PartitionedReaderBuilder,
    sink::{PartitionedSink, PartitionedSinkBuilder},
    stream::PartitionedStream,
};
