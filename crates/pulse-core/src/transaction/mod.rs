//! Transactions: the one way to change anything.
//!
//! A [`Transaction`] belongs to one [`Scope`](crate::Scope). It holds [`Expectation`]s, which must all hold, and
//! [`Write`]s, which all happen or none does, in the order given; a later write sees what an earlier one of the same
//! transaction did. A failed expectation changes nothing and says what was found. What every backend guarantees about
//! a commit stands at [`Backend::commit`](crate::Backend::commit).
//!
//! This module only describes transactions; it knows nothing of where they are carried out.

mod builder;
mod committed;
mod expectation;
mod validate;
mod write;

pub use builder::Transaction;
pub use committed::{Committed, WriteResult};
pub use expectation::{Expectation, FailedExpectation, Found};
pub use validate::{MAX_LIFETIME, MIN_LIFETIME};
pub use write::{Binding, Deadline, Duplicates, MAX_ONCE_LEN, Once, Trim, Write};
