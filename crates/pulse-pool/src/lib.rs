//!  keyed jobs placed by rendezvous hashing, never lost, never run twice at once.

pub use pulse_core::{Client, ClientBuilder, connect};
