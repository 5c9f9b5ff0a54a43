//!  topics, fan-out readers, and sinks with a shared cursor and at-least-once delivery.

pub use pulse_core::{Client, ClientBuilder, connect};
