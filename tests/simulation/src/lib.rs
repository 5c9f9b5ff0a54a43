//! Whole pools under seeded schedules of failures.
//!
//! Everything of a run happens on one thread with a clock that jumps ahead whenever everybody waits: the nodes, their
//! links, the store, those who dispatch and stop jobs, and whoever makes trouble. All chance comes from the seed, so
//! that a seed that fails is a run that can be looked at again and again.
//!
//! ```text
//! cargo xtask simulate                        # ten thousand seeds
//! cargo xtask simulate --seed 4711            # one of them, and what happened in it
//! cargo xtask simulate --sabotage leases      # whether a broken promise is noticed
//! ```
//!
//! - `world`: the nodes and what is done to them; the schedule follows from the seed.
//! - `stage`: the outside world, in which jobs run. It believes only what the handlers do, and notes what must
//!   never be: two runners of one key, a tick that two nodes have, a move that the hash does not ask for.
//! - `weather`: how bad it is in this run.
//! - `sabotage`: promises broken on purpose, to see that it is noticed.
//!
//! The process of a node cannot be stopped here, only its link: what a process does that wakes up after its lease has
//! run out is for the tests with real processes.

mod book;
mod run;
mod sabotage;
mod stage;
mod store;
mod weather;
mod world;

pub use self::{
    run::{Failed, Ran, first_failure, run},
    sabotage::Sabotage,
};
