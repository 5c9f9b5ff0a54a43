#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod change;
mod codec;
mod content;
mod error;
mod filter;
mod hasher;
mod kind;
mod map;
mod meter;
mod replica;
mod replicator;
mod shared;
mod snapshot;
mod subscribers;
mod trie;
mod value;

#[cfg(feature = "rustls")]
#[cfg_attr(docsrs, doc(cfg(feature = "rustls")))]
pub use pulse_core::Tls;
pub use pulse_core::{
    self, Binding, Client, ClientBuilder, Committed, Incarnation, Limits, MapId, NewEvent, Reconnect, Revision, Scope,
    Session, StreamId, Transaction, Version, connect,
};

pub use self::{
    change::{Change, ChangeKind, Update},
    error::Error,
    filter::KeyFilter,
    kind::{Counter, List, Packed},
    map::{Batch, Changed, Cleared, Counted, Deleted, Listed, Map, MapBuilder, Previous, Set, Updated},
    snapshot::Snapshot,
    subscribers::Changes,
    value::Value,
};

/// Pages beside the reference.
pub mod guide {
    #[doc = include_str!("docs/failures.md")]
    pub mod failures {}

    #[doc = include_str!("docs/from_go.md")]
    pub mod from_go {}
}
