//! The embedded backend: everything in the memory of the process.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Backend, Claimed, Committed, Consumer, Cursor, Delivery, Entry, Error, EventId, Group, GroupInfo, GroupStart,
    Limits, MapFeed, MapId, MapPage, PendingEvent, PendingQuery, Scope, ServerTime, StreamId, StreamInfo, Swept,
    Transaction, Version,
};

/// The embedded backend.
#[derive(Debug)]
pub struct Memory {
    limits: Limits,
}

impl Memory {
    /// A private store with the given limits.
    #[must_use]
    pub fn with_limits(limits: Limits) -> Self {
        Self { limits }
    }
    /// A store shared by name inside the process.
    #[must_use]
    pub fn named(_name: &str, limits: Limits) -> Self {
        Self { limits }
    }
}

#[async_trait]
impl Backend for Memory {
    fn target(&self) -> &str {
        "memory:"
    }
    fn limits(&self) -> &Limits {
        &self.limits
    }
    async fn commit(&self, _: Transaction) -> Result<Committed, Error> {
        Err(Error::Closed)
    }
    async fn map_version(&self, _: &MapId) -> Result<Option<Version>, Error> {
        Err(Error::Closed)
    }
    async fn map_page(&self, _: &MapId, _: Option<&Cursor>, _: usize) -> Result<MapPage, Error> {
        Err(Error::Closed)
    }
    async fn map_get(&self, _: &MapId, _: &[&str]) -> Result<Vec<Option<Bytes>>, Error> {
        Err(Error::Closed)
    }
    async fn map_feed(&self, _: &MapId) -> Result<MapFeed, Error> {
        Err(Error::Closed)
    }
    async fn stream_read(&self, _: &StreamId, _: EventId, _: usize, _: Duration) -> Result<Vec<Entry>, Error> {
        Err(Error::Closed)
    }
    async fn stream_info(&self, _: &StreamId) -> Result<Option<StreamInfo>, Error> {
        Err(Error::Closed)
    }
    async fn group_create(&self, _: &StreamId, _: &Group, _: GroupStart) -> Result<bool, Error> {
        Err(Error::Closed)
    }
    async fn group_destroy(&self, _: &StreamId, _: &Group) -> Result<bool, Error> {
        Err(Error::Closed)
    }
    async fn group_read(
        &self,
        _: &StreamId,
        _: &Group,
        _: &Consumer,
        _: usize,
        _: Duration,
    ) -> Result<Vec<Delivery>, Error> {
        Err(Error::Closed)
    }
    async fn group_claim(
        &self,
        _: &StreamId,
        _: &Group,
        _: &Consumer,
        _: Duration,
        _: usize,
    ) -> Result<Claimed, Error> {
        Err(Error::Closed)
    }
    async fn group_set_idle(
        &self,
        _: &StreamId,
        _: &Group,
        _: &Consumer,
        _: &[EventId],
        _: Duration,
    ) -> Result<Vec<EventId>, Error> {
        Err(Error::Closed)
    }
    async fn group_pending(&self, _: &StreamId, _: &Group, _: PendingQuery) -> Result<Vec<PendingEvent>, Error> {
        Err(Error::Closed)
    }
    async fn group_info(&self, _: &StreamId, _: &Group) -> Result<Option<GroupInfo>, Error> {
        Err(Error::Closed)
    }
    async fn group_remove_consumer(&self, _: &StreamId, _: &Group, _: &Consumer) -> Result<bool, Error> {
        Err(Error::Closed)
    }
    async fn sweep(&self, _: &Scope) -> Result<Swept, Error> {
        Err(Error::Closed)
    }
    async fn server_time(&self, _: &Scope) -> Result<ServerTime, Error> {
        Err(Error::Closed)
    }
    async fn close(&self) {}
}
