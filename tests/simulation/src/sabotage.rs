//! Promises broken on purpose: whoever checks that a pool keeps them must notice.
//!
//! Each is a change of what the nodes' transactions say by the time that they reach the store, so that the pool itself
//! needs no switch for it.

use std::{fmt, str::FromStr};

use pulse_core::{Expectation, Transaction, Write, testing::Faulty};

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// No fencing: leases run out sooner than those who hold them stop.
    Leases,
    /// No check of epochs: changes of a job are made whatever its record has become.
    Records,
    /// No limit of the queue.
    Queue,
    /// No check of who has a tick.
    Ticks,
    /// No sign that the server is another one, when it has lost writes.
    Servers,
}

impl Sabotage {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Leases, Self::Records, Self::Queue, Self::Ticks, Self::Servers];

    const fn name(self) -> &'static str {
        match self {
            Self::Leases => "leases",
            Self::Records => "records",
            Self::Queue => "queue",
            Self::Ticks => "ticks",
            Self::Servers => "servers",
        }
    }

    /// Has everything of one node go through it.
    pub(crate) fn bribe(self, link: &Faulty) {
        match self {
            Self::Servers => link.conceal_server_run(),
            _ => link.rewrite_commits(move |transaction| self.rewrite(transaction)),
        }
    }

    fn rewrite(self, transaction: Transaction) -> Transaction {
        let (scope, expectations, writes) = transaction.into_parts();
        let kept = expectations.into_iter().filter(|expectation| !self.drops(expectation));
        let rewritten = kept.fold(Transaction::new(&scope), Transaction::expect);
        writes.into_iter().map(|write| self.change(write)).fold(rewritten, Transaction::write)
    }

    fn drops(self, expectation: &Expectation) -> bool {
        let is_of = |of: &str| match expectation {
            Expectation::Equals { map, .. } | Expectation::Absent { map, .. } => &**map == of,
            _ => false,
        };
        match self {
            Self::Leases | Self::Servers => false,
            Self::Records => is_of("pool:jobs"),
            Self::Queue => matches!(expectation, Expectation::FewerThan { .. }),
            Self::Ticks => is_of("pool:tickers"),
        }
    }

    fn change(self, mut write: Write) -> Write {
        if let (Self::Leases, Write::GrantLease { ttl, .. } | Write::RenewLease { ttl, .. }) = (self, &mut write) {
            *ttl = *ttl * 2 / 5;
        }
        write
    }
}

impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Sabotage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|one| one.name() == text).ok_or_else(|| format!("no sabotage {text:?}: {}", known()))
    }
}
