//! Going back to what the store held before, for tests of what a failover does that loses the last writes.

use std::{collections::HashMap, fmt};

use super::{Memory, scope::ScopeState};
use crate::Scope;

/// What an embedded store held at one moment; see [`Memory::checkpoint`].
#[derive(Clone)]
pub struct Checkpoint(HashMap<Scope, ScopeState>);

impl Memory {
    /// Notes everything that the store holds now. Costs next to nothing, whatever that is.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use pulse_core::{Client, Limits, Memory, Scope, Transaction};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), pulse_core::Error> {
    /// let store = Memory::with_limits(Limits::default());
    /// let client = Client::from_backend(Arc::new(store.another_client()));
    /// let (scope, replicated) = (Scope::new("s")?, store.checkpoint());
    /// client.commit(Transaction::new(&scope).put("m", "k", "confirmed, and not replicated yet")).await?;
    /// store.restore(&replicated); // the replica takes over
    /// assert_eq!(client.backend().map_get(&scope.map("m")?, &["k"]).await?, [None]);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint(self.store.content())
    }

    /// Puts back what the store held at the checkpoint, as a server does that takes over without the last writes. The
    /// clock goes on, and feeds are told nothing: cut the links of the clients
    /// ([`testing::Faulty`](crate::testing::Faulty)) meanwhile, as a failover does.
    pub fn restore(&self, checkpoint: &Checkpoint) {
        self.store.set_content(checkpoint.0.clone());
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint").field("scopes", &self.0.len()).finish_non_exhaustive()
    }
}
