//! The maps that the instances of a partitioned sink agree through. They live in the scope of the stream's name.
//!
//! One map records the number of partitions. For each sink there is one with an entry for each instance (`i/ID`) and
//! one for each partition that has an owner (`p/PARTITION`, its value the owner's id). The entries are bound to the
//! instance's lease, so that they go with it, and every change is one transaction.

use bytes::Bytes;
use pulse_core::{
    Binding, Client, Error as CoreError, Expectation, Group, LeaseId, MapFeed, MapId, Scope, Transaction,
};

use super::assign::{InstanceId, View};
use crate::Error;

/// What the map with the number of partitions is called; the maps of the sinks begin with it.
const MAP: &str = "pulse-partitions";
const COUNT: &str = "partitions";
const PAGE: usize = 1000;

type Outcome<T> = Result<T, CoreError>;

/// The control map of one sink.
#[derive(Debug, Clone)]
pub(super) struct Control {
    client: Client,
    map: MapId,
}

impl Control {
    pub(super) fn new(client: &Client, scope: &Scope, sink: &Group) -> Result<Self, Error> {
        let map = scope.map(map_of(sink)).map_err(Error::name)?;
        Ok(Self { client: client.clone(), map })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn scope(&self) -> &Scope {
        self.map.scope()
    }

    /// The changes of the map.
    pub(super) async fn feed(&self) -> Outcome<MapFeed> {
        self.client.backend().map_feed(&self.map).await
    }

    /// Removes what the dead left behind, and reads the map.
    pub(super) async fn look(&self) -> Outcome<View> {
        let backend = self.client.backend();
        backend.sweep(self.scope()).await?;
        let (mut view, mut cursor) = (View::default(), None);
        loop {
            let page = backend.map_page(&self.map, cursor.as_ref(), PAGE).await?;
            page.entries.iter().for_each(|(key, value)| read_entry(&mut view, key, value));
            cursor = page.next;
            if cursor.is_none() {
                return Ok(view);
            }
        }
    }

    /// Writes an instance down.
    pub(super) async fn announce(&self, me: InstanceId, lease: LeaseId) -> Outcome<()> {
        let put = self.begin().put_bound(self.name(), instance_key(me), Bytes::new(), Binding::Lease(lease));
        self.client.commit(put).await.map(drop)
    }

    /// Strikes an instance off.
    pub(super) async fn leave(&self, me: InstanceId) -> Outcome<()> {
        self.client.commit(self.begin().delete(self.name(), instance_key(me))).await.map(drop)
    }

    /// Makes the instance the owner of a partition that has none. Returns whether it is.
    pub(super) async fn take(&self, partition: u32, me: InstanceId, lease: LeaseId) -> Outcome<bool> {
        let key = partition_key(partition);
        let take = self.begin().expect_lease_alive(lease).expect_absent(self.name(), key.as_str());
        let take = take.put_bound(self.name(), key, written(me), Binding::Lease(lease));
        unless_refused(self.client.commit(take).await)
    }

    /// Gives a partition up, unless it belongs to somebody else by now.
    pub(super) async fn disown(&self, partition: u32, me: InstanceId) -> Outcome<bool> {
        let key = partition_key(partition);
        let disown = self.begin().expect_equals(self.name(), key.as_str(), written(me)).delete(self.name(), key);
        unless_refused(self.client.commit(disown).await)
    }

    /// Ends a lease whose session cannot be closed.
    pub(super) async fn drop_lease(&self, lease: LeaseId) -> Outcome<()> {
        self.client.commit(self.begin().drop_lease(lease)).await.map(drop)
    }

    fn begin(&self) -> Transaction {
        Transaction::new(self.scope())
    }

    fn name(&self) -> std::sync::Arc<str> {
        self.map.name().clone()
    }
}

/// Records the number of partitions of a stream unless one is recorded, and returns the one that is.
pub(super) async fn settle_count(client: &Client, scope: &Scope, partitions: u32) -> Outcome<u32> {
    let map = scope.map(MAP)?;
    loop {
        let found = client.backend().map_get(&map, &[COUNT]).await?.pop().flatten();
        if let Some(found) = found {
            return read_number(&found).ok_or_else(|| CoreError::Protocol {
                operation: "read the number of partitions",
                subject: map.to_string(),
                reason: "it is no number".into(),
            });
        }
        let record = Transaction::new(scope).expect_absent(MAP, COUNT).put(MAP, COUNT, partitions.to_string());
        match client.commit(record).await {
            Ok(_) => return Ok(partitions),
            // Somebody was faster, or this was carried out after all.
            Err(error) if is_refusal(&error) || error.is_outcome_unknown() => {}
            Err(error) => return Err(error),
        }
    }
}

/// Forgets the number of partitions.
pub(super) fn forget_count(scope: &Scope) -> Transaction {
    Transaction::new(scope).destroy_map(MAP)
}

/// Forgets what the instances of sinks agreed on.
pub(super) fn forget_sinks<'a>(scope: &Scope, sinks: impl IntoIterator<Item = &'a Group>) -> Transaction {
    sinks.into_iter().fold(Transaction::new(scope), |forget, sink| forget.destroy_map(map_of(sink)))
}

fn map_of(sink: &Group) -> String {
    format!("{MAP}/{sink}")
}

fn read_entry(view: &mut View, key: &str, value: &[u8]) {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok().map(InstanceId);
    match key.split_once('/') {
        Some(("i", id)) => view.instances.extend(hex(id)),
        Some(("p", partition)) => {
            if let Ok(partition) = partition.parse() {
                view.owners.insert(partition, std::str::from_utf8(value).ok().and_then(hex));
            }
        }
        _ => {}
    }
}

fn instance_key(id: InstanceId) -> String {
    format!("i/{:016x}", id.0)
}

fn partition_key(partition: u32) -> String {
    format!("p/{partition}")
}

fn written(id: InstanceId) -> String {
    format!("{:016x}", id.0)
}

fn read_number(bytes: &[u8]) -> Option<u32> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn is_refusal(error: &CoreError) -> bool {
    let failed = error.failed_expectation();
    failed.is_some_and(|failed| matches!(failed.expected, Expectation::Absent { .. } | Expectation::Equals { .. }))
}

fn unless_refused<T>(committed: Outcome<T>) -> Outcome<bool> {
    match committed {
        Ok(_) => Ok(true),
        Err(error) if is_refusal(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
