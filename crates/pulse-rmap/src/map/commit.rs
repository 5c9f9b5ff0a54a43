//! Committing on behalf of a map: what all its writes have in common.

use std::sync::Arc;

use bytes::Bytes;
use pulse_core::{Committed, Transaction, Version};

use super::{Map, Previous};
use crate::{Error, value::excerpt};

impl<V: Send + Sync + 'static> Map<V> {
    pub(super) fn transaction(&self) -> Transaction {
        Transaction::new(self.id().scope())
    }

    /// The map's name, as transactions take it.
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(self.id().name())
    }

    /// Commits what writes to the map; errors name the key if there is one. Places of results stay as they are.
    pub(super) async fn commit(&self, key: Option<&str>, transaction: Transaction) -> Result<Committed, Error> {
        self.commit_only(key, self.with_lifetime(transaction)).await
    }

    /// Commits exactly this, whatever lifetime the map was joined with.
    pub(super) async fn commit_only(&self, key: Option<&str>, transaction: Transaction) -> Result<Committed, Error> {
        if self.is_closed() {
            return Err(self.closed());
        }
        self.commit_also_closed(key, transaction).await
    }

    /// Commits what a handle that was closed may still do, as long as its client is open.
    pub(super) async fn commit_also_closed(
        &self,
        key: Option<&str>,
        transaction: Transaction,
    ) -> Result<Committed, Error> {
        self.inner.client.commit(transaction).await.map_err(|source| self.failed(key, source))
    }

    /// Lets the map expire as this handle was joined to let it.
    pub(super) fn with_lifetime(&self, transaction: Transaction) -> Transaction {
        match self.inner.lifetime {
            Some(lifetime) => transaction.expire_map(self.name(), lifetime),
            None => transaction,
        }
    }

    fn failed(&self, key: Option<&str>, source: pulse_core::Error) -> Error {
        match (source, key) {
            (pulse_core::Error::Closed, _) => self.closed(),
            (pulse_core::Error::ExpectationFailed { failed, .. }, _) => {
                Error::Conflict { map: self.id().clone(), failed }
            }
            (source, Some(key)) => self.key_error(key, source),
            (source, None) => Error::Map { map: self.id().to_string(), source: Box::new(source) },
        }
    }

    /// What the put or delete at the first place of a transaction replaced.
    pub(super) fn previous(&self, key: &Arc<str>, committed: &Committed) -> Previous<V> {
        let raw: Option<Bytes> = committed.previous(0).cloned();
        Previous::new(self.id().clone(), Arc::clone(key), raw, self.inner.codec)
    }

    pub(super) fn version_of(&self, committed: &Committed) -> Option<Version> {
        committed.version(self.id().name())
    }

    /// The version after a write that leaves the map in existence.
    pub(super) fn certain_version(&self, key: &str, committed: &Committed) -> Result<Version, Error> {
        self.version_of(committed).ok_or_else(|| self.senseless(key, "a write without a version"))
    }

    pub(super) fn senseless(&self, key: &str, reason: &str) -> Error {
        let source = pulse_core::Error::Protocol {
            operation: "commit",
            subject: self.id().to_string(),
            reason: reason.to_owned(),
        };
        self.key_error(key, source)
    }

    fn key_error(&self, key: &str, source: pulse_core::Error) -> Error {
        Error::Key { map: self.id().clone(), key: excerpt(key).to_owned(), source: Box::new(source) }
    }
}

/// A key as transactions take it. The caller's form of it is gone then, and not carried along while a commit is
/// awaited.
pub(super) fn owned(key: impl AsRef<str>) -> Arc<str> {
    Arc::from(key.as_ref())
}
