//! Event streams: add events, read all of them, or share the work on them.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
mod buffer;
mod error;
mod event;
mod filter;
mod meter;
mod notice;
mod options;
mod reader;
mod sink;
mod start;
mod stream;
mod trouble;

pub use pulse_core::{
    Client, ClientBuilder, ConsumerInfo, EventId, GroupInfo, Headers, NewEvent, Scope, StreamId, StreamInfo, connect,
};

pub use self::{
    error::{Error, Operation, OptionValue},
    event::Event,
    notice::Notice,
    reader::{Reader, ReaderBuilder},
    sink::{Delivery, Settlement, Sink, SinkBuilder},
    start::Start,
    stream::EventStream,
};
