//! The ground under the Pulse crates: atomic transactions, change feeds, event streams and leases, over Redis, Valkey
//! or the memory of the process.
//!
//! Most users meet this crate through `pulse-rmap`, `pulse-streaming` or `pulse-pool`, which re-export [`connect`] and
//! [`Client`]. Use it directly to commit [`Transaction`]s of your own, or to write another [`Backend`].
//!
//! - [`transaction`]: what can be expected and written, all or nothing, on one [`Scope`].
//! - [`backend`]: the contract that every store of the data keeps; the change feeds ([`MapFeed`]).
//! - [`Session`]: a lease that is kept alive, for entries that vanish with their owner.
//!
//! Nothing here knows what a map replica, a sink or a pool is, and nothing above here knows that Redis exists.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backend;
mod client;
#[doc(hidden)]
pub mod entropy;
mod error;
#[doc(hidden)]
pub mod error_chain;
mod event;
mod id;
mod limits;
pub mod list;
mod memory;
pub mod message_pack;
mod meter;
mod name;
pub mod nesting;
#[cfg(feature = "redis")]
mod redis;
mod session;
mod sweeper;
#[cfg(feature = "opentelemetry")]
#[cfg_attr(docsrs, doc(cfg(feature = "opentelemetry")))]
pub mod trace_context;
pub mod transaction;

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

/// The client library, for [`ClientBuilder::from_fred`], and with the feature `rustls` the TLS library within.
#[cfg(feature = "fred")]
#[cfg_attr(docsrs, doc(cfg(feature = "fred")))]
pub use fred;

#[cfg(feature = "rustls")]
#[cfg_attr(docsrs, doc(cfg(feature = "rustls")))]
pub use self::client::Tls;
pub use self::{
    backend::{
        Acks, Backend, Change, Claimed, ConsumerInfo, Cursor, Delivery, FeedItem, FeedSender, GapCause, GroupInfo,
        GroupStart, MAX_IDLE, MapCommit, MapFeed, MapPage, Missed, PendingEvent, PendingQuery, Read, StreamDetail,
        StreamInfo, Swept,
    },
    client::{Client, ClientBuilder, Reconnect, connect},
    error::{Error, Outcome, Source},
    event::{Entry, Event, Headers, Malformed, NewEvent},
    id::{EventId, Incarnation, LeaseId, ParseEventIdError, Revision, ServerTime, Version},
    limits::Limits,
    memory::Memory,
    name::{Consumer, Group, MAX_NAME_LEN, MapId, Scope, StreamId},
    session::{Session, SessionState},
    sweeper::SweepGuard,
    transaction::{
        Binding, Committed, Deadline, Duplicates, Expectation, FailedExpectation, Found, MAX_LIFETIME, MAX_ONCE_LEN,
        MIN_LIFETIME, Once, Transaction, Trim, Write, WriteResult,
    },
};

/// Pages beside the reference.
pub mod guide {
    #[doc = include_str!("docs/links.md")]
    pub mod links {}

    #[doc = include_str!("docs/permissions.md")]
    pub mod permissions {}

    #[doc = include_str!("docs/client_library.md")]
    pub mod client_library {}
}

/// The example of the README, so that it is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
