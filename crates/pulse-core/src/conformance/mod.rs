//! The conformance suite: every promise of [`Backend`](crate::Backend), checked on any backend.

mod wait;

pub use self::wait::{PATIENCE, eventually, soon};
