//!  shared data in every process, with every change delivered.

pub use pulse_core::{Client, ClientBuilder, connect};
