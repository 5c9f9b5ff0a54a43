//! The conformance suite: every promise of [`Backend`], checked on any backend.
//!
//! A backend is right exactly when it passes. Each check is one function, named as a sentence and grouped by subject;
//! [`conformance_tests!`](crate::conformance_tests) makes a test of each, and [`cases`] lists them for other harnesses.
//! All that the suite needs is a [`Subject`]: a way to open clients on one store.
//!
//! - **Shared servers are fine.** Each check draws random scopes, so checks run in parallel, and beside other users of
//!   the store. What they leave behind is small.
//! - **Any clock.** Checks wait for conditions and use lifetimes of a few dozen to a few hundred milliseconds. A
//!   backend whose deadlines follow tokio's clock can run on paused time; one with a server needs the real clock.
//! - **A failure is a panic** that says what was expected and what was seen.
//!
//! What the suite cannot check from outside (lost connections, data written by strangers) a backend tests by itself.
//!
//! # Examples
//!
//! The whole suite, one test for each check:
//!
//! ```
//! use std::sync::Arc;
//! use pulse_core::{Backend, Memory, conformance::Subject};
//!
//! fn my_store() -> Subject {
//!     let store = format!("my-store-{}", rand::random::<u64>());
//!     Subject::new(move |limits| {
//!         let client = Memory::named(&store, limits);
//!         async move { Ok(Arc::new(client) as Arc<dyn Backend>) }
//!     })
//! }
//!
//! pulse_core::conformance_tests! {
//!     #[tokio::test(start_paused = true)]
//!     mod my_backend = my_store;
//! }
//! # fn main() {}
//! ```
//!
//! One group of checks, by hand:
//!
//! ```
//! # use std::sync::Arc;
//! # use pulse_core::{Backend, Memory, conformance::{Subject, cases}};
//! # fn my_store() -> Subject {
//! #     let store = format!("my-store-{}", rand::random::<u64>());
//! #     Subject::new(move |limits| {
//! #         let client = Memory::named(&store, limits);
//! #         async move { Ok(Arc::new(client) as Arc<dyn Backend>) }
//! #     })
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! for case in cases().filter(|case| case.name.starts_with("counters::")) {
//!     println!("{}", case.name);
//!     (case.run)(my_store()).await;
//! }
//! # }
//! ```

mod appends;
mod cancellation;
mod claims;
mod closing;
mod commits;
mod counters;
mod crowds;
mod expectations;
mod feeds;
mod groups;
mod leases;
mod lifetimes;
mod limits;
mod lists;
mod losses;
mod maps;
mod onces;
mod pages;
mod room;
mod streams;
mod subject;
mod suite;
mod sweeps;
mod versions;
mod wait;
mod waits;

pub use self::{
    subject::Subject,
    suite::{Case, cases, run},
    wait::{PATIENCE, eventually, soon},
};
#[cfg(doc)]
use crate::Backend;
