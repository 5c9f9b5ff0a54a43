//! A backend that fails on purpose, for tests of what is built on backends.
//!
//! [`Faulty`] wraps any backend and stands for one client of it, with the network between. Several of them over one
//! backend are several clients, each with its own delays, failures, partitions and end. It keeps every promise of
//! [`Backend`](crate::Backend), so what goes wrong above it is a defect above it; only [`FeedChances::with_loss`] goes
//! beyond the contract, and says so.
//!
//! - **By chance**: [`Faulty::set_chances`] sets how long calls take, and how often they fail before or after their
//!   effect; [`Faulty::set_chances_of`] does for one kind of call, [`Faulty::set_feed_chances`] for feeds.
//! - **By script**: [`Faulty::script`] says what happens to the n-th call of a kind from now.
//! - **At will**: [`Faulty::partition`] and [`heal`](Faulty::heal), [`pause`](Faulty::pause) and
//!   [`resume`](Faulty::resume), [`kill`](Faulty::kill).
//! - **By treason**: [`Faulty::rewrite_commits`] changes what is committed, to see whether a test would notice.
//!
//! Everything random comes from the seed: on a current-thread runtime with paused time, the same seed over the same
//! embedded backend gives the same run.
//!
//! # Examples
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use pulse_core::{
//!     Backend, Client, FeedItem, GapCause, Limits, Memory, Scope, Transaction,
//!     testing::{Chances, Fault, Faulty, Operation},
//! };
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), pulse_core::Error> {
//! let store: Arc<dyn Backend> = Arc::new(Memory::with_limits(Limits::default()));
//! let link = Faulty::new(store.clone(), 42);
//! let client = Client::from_backend(Arc::new(link.clone()));
//! let scope = Scope::new("s")?;
//! let put = |value: &'static str| Transaction::new(&scope).put("m", "k", value);
//!
//! // By chance: slow, and one call in a hundred fails either way.
//! let chances = Chances::none().with_delay(Duration::from_millis(1)..=Duration::from_millis(20));
//! link.set_chances(chances.with_failures_before(0.01).with_failures_after(0.01));
//! link.set_chances(Chances::none()); // and quiet again
//!
//! // By script: the second commit from now takes effect, but its answer is lost.
//! link.script(Operation::Commit, 2, Fault::FailAfter);
//! client.commit(put("first")).await?;
//! let error = client.commit(put("second")).await.unwrap_err();
//! assert!(error.is_outcome_unknown());
//! assert_eq!(store.map_get(&scope.map("m")?, &["k"]).await?, [Some("second".into())]);
//!
//! // At will: what happens during a partition never reaches the feed, which says so.
//! let mut feed = client.backend().map_feed(&scope.map("m")?).await?;
//! link.partition();
//! assert_eq!(feed.next().await, Some(FeedItem::Gap(GapCause::Disconnected)));
//! store.commit(put("third")).await?;
//! assert!(client.commit(put("fourth")).await.unwrap_err().is_retryable());
//! link.heal();
//! assert_eq!(feed.next().await, Some(FeedItem::Gap(GapCause::Resubscribed)));
//! # Ok(()) }
//! ```

mod backend;
mod chances;
mod faulty;
mod link;
mod plan;
mod relay;
mod seeded;
mod undelivered;

pub(crate) use self::seeded::seeded_number;
pub use self::{
    chances::{Chances, FeedChances},
    faulty::Faulty,
    plan::{Fault, Operation},
    seeded::Seeded,
};
pub use crate::memory::Checkpoint;
