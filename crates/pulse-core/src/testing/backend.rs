//! Every call of the contract, sent over the link.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Faulty, Operation, link::End, relay::Relay};
use crate::{
    Acks, Backend, Claimed, Committed, Consumer, Cursor, Delivery, Error, EventId, Group, GroupInfo, GroupStart,
    Limits, MapFeed, MapId, MapPage, Missed, PendingEvent, PendingQuery, Read, Scope, ServerTime, StreamDetail,
    StreamId, StreamInfo, Swept, Transaction, Version,
};

#[async_trait]
impl Backend for Faulty {
    fn target(&self) -> &str {
        &self.inner.target
    }

    fn limits(&self) -> &Limits {
        self.inner.backend.limits()
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, Error> {
        let subject = transaction.scope().to_string();
        let transaction = self.inner.rewritten(transaction);
        self.inner.call(Operation::Commit, subject, self.inner.backend.commit(transaction)).await
    }

    async fn map_version(&self, map: &MapId) -> Result<Option<Version>, Error> {
        self.inner.call(Operation::MapVersion, map.to_string(), self.inner.backend.map_version(map)).await
    }

    async fn map_page(&self, map: &MapId, cursor: Option<&Cursor>, limit: usize) -> Result<MapPage, Error> {
        let effect = self.inner.backend.map_page(map, cursor, limit);
        self.inner.call(Operation::MapPage, map.to_string(), effect).await
    }

    async fn map_get(&self, map: &MapId, keys: &[&str]) -> Result<Vec<Option<Bytes>>, Error> {
        self.inner.call(Operation::MapGet, map.to_string(), self.inner.backend.map_get(map, keys)).await
    }

    async fn map_feed(&self, map: &MapId) -> Result<MapFeed, Error> {
        let subscribe = async {
            let source = self.inner.backend.map_feed(map).await?;
            Ok(Relay::new(&self.inner, source))
        };
        let (feed, relay) = self.inner.call(Operation::MapFeed, map.to_string(), subscribe).await?;
        self.inner.relays.spawn(relay.run());
        Ok(feed)
    }

    async fn stream_read(
        &self,
        stream: &StreamId,
        after: EventId,
        limit: usize,
        wait: Duration,
    ) -> Result<Read, Error> {
        let effect = self.inner.backend.stream_read(stream, after, limit, wait);
        self.inner.call(Operation::StreamRead, stream.to_string(), effect).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<Option<StreamInfo>, Error> {
        self.inner.call(Operation::StreamInfo, stream.to_string(), self.inner.backend.stream_info(stream)).await
    }

    async fn stream_detail(&self, stream: &StreamId) -> Result<Option<StreamDetail>, Error> {
        self.inner.call(Operation::StreamDetail, stream.to_string(), self.inner.backend.stream_detail(stream)).await
    }

    async fn group_create(&self, stream: &StreamId, group: &Group, start: GroupStart) -> Result<bool, Error> {
        let effect = self.inner.backend.group_create(stream, group, start);
        self.inner.call(Operation::GroupCreate, stream.to_string(), effect).await
    }

    async fn group_destroy(&self, stream: &StreamId, group: &Group) -> Result<bool, Error> {
        let effect = self.inner.backend.group_destroy(stream, group);
        self.inner.call(Operation::GroupDestroy, stream.to_string(), effect).await
    }

    async fn group_read(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
        limit: usize,
        wait: Duration,
        acks: Acks,
    ) -> Result<Vec<Delivery>, Error> {
        if acks == Acks::None {
            let effect = self.inner.backend.group_read(stream, group, consumer, limit, wait, acks);
            return self.inner.call(Operation::GroupRead, stream.to_string(), effect).await;
        }
        let reader = (stream.clone(), group.clone(), consumer.clone());
        let trip = self.inner.depart(Operation::GroupRead, stream.to_string()).await?;
        let mut deliveries = self.inner.undelivered.take(&reader, limit);
        if !deliveries.is_empty() {
            // Others may have taken them over meanwhile.
            let ids: Vec<EventId> = deliveries.iter().map(|delivery| delivery.entry.id).collect();
            let held = self.inner.undelivered.hold(reader.clone(), deliveries);
            let still = self.inner.backend.group_set_idle(stream, group, consumer, &ids, Duration::ZERO).await?;
            deliveries = held.release();
            deliveries.retain(|delivery| still.contains(&delivery.entry.id));
        }
        if deliveries.is_empty() {
            deliveries = trip.pass(self.inner.backend.group_read(stream, group, consumer, limit, wait, acks)).await?;
        }
        let held = self.inner.undelivered.hold(reader, deliveries);
        let arrived = trip.arrive().await;
        // Where the answer is lost, the events stay pending and come back through a claim.
        let deliveries = held.release();
        arrived.map(|()| deliveries)
    }

    async fn group_claim(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
        min_idle: Duration,
        limit: usize,
    ) -> Result<Claimed, Error> {
        let effect = self.inner.backend.group_claim(stream, group, consumer, min_idle, limit);
        self.inner.call(Operation::GroupClaim, stream.to_string(), effect).await
    }

    async fn group_set_idle(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
        ids: &[EventId],
        idle: Duration,
    ) -> Result<Vec<EventId>, Error> {
        let effect = self.inner.backend.group_set_idle(stream, group, consumer, ids, idle);
        self.inner.call(Operation::GroupSetIdle, stream.to_string(), effect).await
    }

    async fn group_pending(
        &self,
        stream: &StreamId,
        group: &Group,
        query: PendingQuery,
    ) -> Result<Vec<PendingEvent>, Error> {
        let effect = self.inner.backend.group_pending(stream, group, query);
        self.inner.call(Operation::GroupPending, stream.to_string(), effect).await
    }

    async fn group_info(&self, stream: &StreamId, group: &Group) -> Result<Option<GroupInfo>, Error> {
        let effect = self.inner.backend.group_info(stream, group);
        self.inner.call(Operation::GroupInfo, stream.to_string(), effect).await
    }

    async fn group_missed(&self, stream: &StreamId, group: &Group) -> Result<Option<Missed>, Error> {
        let effect = self.inner.backend.group_missed(stream, group);
        self.inner.call(Operation::GroupMissed, stream.to_string(), effect).await
    }

    async fn group_remove_consumer(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
    ) -> Result<bool, Error> {
        let effect = self.inner.backend.group_remove_consumer(stream, group, consumer);
        self.inner.call(Operation::GroupRemoveConsumer, stream.to_string(), effect).await
    }

    async fn sweep(&self, scope: &Scope) -> Result<Swept, Error> {
        self.inner.call(Operation::Sweep, scope.to_string(), self.inner.backend.sweep(scope)).await
    }

    async fn server_time(&self, scope: &Scope) -> Result<ServerTime, Error> {
        self.inner.call(Operation::ServerTime, scope.to_string(), self.inner.backend.server_time(scope)).await
    }

    async fn server_run(&self, scope: &Scope) -> Result<Option<String>, Error> {
        let run =
            self.inner.call(Operation::ServerRun, scope.to_string(), self.inner.backend.server_run(scope)).await?;
        Ok(run.filter(|_| !self.inner.conceals_run()))
    }

    async fn close(&self) {
        self.inner.link.end(End::Closed);
        self.inner.relays.close();
        self.inner.relays.wait().await;
    }
}
