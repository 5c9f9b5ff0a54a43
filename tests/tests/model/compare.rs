//! Compares all that can be seen of the backend with the model.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use proptest::{prelude::TestCaseError, prop_assert, prop_assert_eq};
use pulse_core::{Change, EventId, FeedItem, PendingQuery, Version};

use super::{
    drive::{Driver, Outcome, Replica, unexpected},
    steps::{Name, STREAMS},
    translate::name,
    world::{self},
};

impl Driver<'_> {
    pub(super) async fn compare(&mut self) -> Outcome {
        for index in 0..self.replicas.len() {
            self.compare_map(index).await?;
        }
        for stream in STREAMS {
            self.compare_stream(stream).await?;
        }
        Ok(())
    }

    pub(super) async fn compare_map(&mut self, index: usize) -> Outcome {
        let replica = &mut self.replicas[index];
        let map = self.scope.map(replica.map).map_err(|e| unexpected(&e))?;
        let expected = self.world.maps.get(replica.map).cloned().unwrap_or_default();
        let version = self.backend.map_version(&map).await.map_err(|e| unexpected(&e))?;
        prop_assert_eq!(version, expected.version(), "the version of map {}", replica.map);
        let truth: BTreeMap<String, Bytes> =
            expected.entries.into_iter().map(|(key, entry)| (key, entry.value)).collect();
        let page = self.backend.map_page(&map, None, 1000).await.map_err(|e| unexpected(&e))?;
        let content: BTreeMap<String, Bytes> =
            page.entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        prop_assert_eq!(&content, &truth, "the content of map {}", replica.map);
        replica.catch_up(version).await?;
        prop_assert_eq!(&replica.content, &truth, "what the feed of map {} adds up to", replica.map);
        Ok(())
    }

    pub(super) async fn compare_stream(&self, stream: Name) -> Outcome {
        let id = self.stream(stream)?;
        let info = self.backend.stream_info(&id).await.map_err(|e| unexpected(&e))?;
        let Some(expected) = self.world.streams.get(stream) else {
            prop_assert_eq!(info, None, "stream {} does not exist", stream);
            return Ok(());
        };
        let Some(info) = info else { return Err(TestCaseError::fail(format!("stream {stream} should exist"))) };
        prop_assert_eq!(
            (info.length, info.appended, info.first, info.last, info.max_deleted, info.groups),
            (
                expected.events.len() as u64,
                expected.appended,
                expected.events.keys().next().copied(),
                expected.last,
                expected.max_deleted,
                expected.groups.len() as u64
            ),
            "the description of stream {}",
            stream
        );
        let read = self.backend.stream_read(&id, EventId::ZERO, 10_000, Duration::ZERO).await;
        let events: BTreeMap<EventId, String> = read
            .map_err(|e| unexpected(&e))?
            .entries
            .into_iter()
            .map(|entry| {
                (entry.id, entry.event.map_or_else(|malformed| malformed.reason, |event| event.name.to_string()))
            })
            .collect();
        prop_assert_eq!(&events, &expected.events, "the events of stream {}", stream);
        for (group, expected_group) in &expected.groups {
            self.compare_group(stream, group, expected, expected_group).await?;
        }
        Ok(())
    }

    pub(super) async fn compare_group(
        &self,
        stream: Name,
        group: &str,
        of: &world::Stream,
        expected: &world::Group,
    ) -> Outcome {
        let (id, group) = (self.stream(stream)?, name(group)?);
        let pending = self.backend.group_pending(&id, &group, PendingQuery::new(10_000)).await;
        let pending: Vec<(EventId, String, u64)> = pending
            .map_err(|e| unexpected(&e))?
            .into_iter()
            .map(|pending| (pending.id, pending.consumer.as_str().to_owned(), pending.deliveries))
            .collect();
        let expected_pending: Vec<(EventId, String, u64)> =
            expected.pending.iter().map(|(id, p)| (*id, p.consumer.clone(), p.deliveries)).collect();
        prop_assert_eq!(pending, expected_pending, "what is pending in group {} of {}", group, stream);
        let info = self.backend.group_info(&id, &group).await.map_err(|e| unexpected(&e))?;
        let Some(info) = info else { return Err(TestCaseError::fail(format!("group {group} should exist"))) };
        prop_assert_eq!((info.last_delivered, info.pending), (expected.cursor, expected.pending.len() as u64));
        if let Some(lag) = info.lag {
            prop_assert_eq!(lag, of.after(expected.cursor).count() as u64, "the lag of group {} of {}", group, stream);
        }
        for consumer in &info.consumers {
            let held = expected.pending.values().filter(|pending| pending.consumer == consumer.name.as_str()).count();
            prop_assert_eq!(consumer.pending, held as u64, "what is pending for {}", consumer.name);
        }
        for consumer in &expected.consumers {
            let known = info.consumers.iter().any(|known| known.name.as_str() == consumer);
            prop_assert!(known, "consumer {} of group {} of {} should exist", consumer, group, stream);
        }
        Ok(())
    }
}

impl Replica {
    /// Applies the feed until it has brought the replica to the version.
    pub(super) async fn catch_up(&mut self, version: Option<Version>) -> Outcome {
        while self.version != version {
            let next = tokio::time::timeout(Duration::from_secs(10), self.feed.next()).await;
            let Ok(Some(FeedItem::Commit(commit))) = next else {
                return Err(TestCaseError::fail(format!(
                    "the feed of {} stands at {:?}, then {next:?}, but the map is at {version:?}",
                    self.map, self.version
                )));
            };
            prop_assert!(commit.continues(self.version), "the feed jumps from {:?} to {:?}", self.version, commit);
            prop_assert_eq!(commit.after.0, commit.before.0 + 1);
            for change in &commit.changes {
                match change {
                    Change::Put { key, value } => {
                        self.content.insert(key.to_string(), value.clone());
                    }
                    Change::Deleted { key } => {
                        self.content.remove(&**key);
                    }
                    Change::Cleared | Change::Destroyed => self.content.clear(),
                    other => return Err(TestCaseError::fail(format!("unknown change {other:?}"))),
                }
            }
            self.version = commit.version();
        }
        Ok(())
    }
}
