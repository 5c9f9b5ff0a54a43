//! Clusters with nodes that hang.

mod connecting;
mod primary;
mod replica;
