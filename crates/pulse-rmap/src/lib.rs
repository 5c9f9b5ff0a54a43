#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod change;
mod codec;
mod content;
mod error;
mod hasher;
mod map;
mod meter;
mod replica;
mod replicator;
mod shared;
mod snapshot;
mod subscribers;
mod value;

pub use pulse_core::{
    self, Binding, Client, ClientBuilder, Committed, Incarnation, Limits, MapId, Reconnect, Revision, Scope, Session,
    Transaction, Version, connect,
};

pub use self::{
    change::{Change, ChangeKind, Update},
    error::Error,
    map::{Changed, Deleted, Map, MapBuilder, Previous, Set},
    snapshot::Snapshot,
    subscribers::Changes,
    value::Value,
};
