//! The sinks of a stream, seen from outside: what each is at and holds back, and retiring one.

use pulse_core::{Group, GroupInfo};

use super::EventStream;
use crate::{Error, Operation};

impl EventStream {
    /// Describes a sink of the stream: its cursor, how far it lags behind, what is pending for which instance. `None`
    /// if there is no such sink.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], [`Error::Backend`].
    pub async fn sink_info(&self, sink: impl AsRef<str>) -> Result<Option<GroupInfo>, Error> {
        let group = Group::new(sink).map_err(Error::name)?;
        self.client.backend().group_info(&self.id, &group).await.map_err(Error::on(Operation::Describe, &self.id))
    }

    /// Lists the sinks of the stream by name, as of one moment, also those without a running instance: what is pending,
    /// how far each lags behind, its instances, and with [`needs`](GroupInfo::needs) and
    /// [`holds_back`](GroupInfo::holds_back) what it keeps
    /// [`Retention::UntilConsumed`](crate::Retention::UntilConsumed) from dropping. Empty if there is no such stream.
    /// Costs what [`detail`](Self::detail) does.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    pub async fn sinks(&self) -> Result<Vec<(Group, GroupInfo)>, Error> {
        Ok(self.detail().await?.map(|detail| detail.groups).unwrap_or_default())
    }

    /// Retires a sink: removes its cursor and what is pending for it, and returns whether there was one. What it held
    /// back under [`Retention::UntilConsumed`](crate::Retention::UntilConsumed) is dropped with the next add, unless
    /// another sink needs it; where it was the last one, the stream keeps everything. Its
    /// [dead letters](Self::dead_letters) stay.
    ///
    /// Close its instances first: one that still runs makes the sink anew, as after
    /// [`Notice::CursorLost`](crate::Notice::CursorLost).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use pulse_streaming::{EventStream, Start};
    /// let client = pulse_streaming::connect("memory:").await?;
    /// let orders = EventStream::new(&client, "orders")?;
    /// let audit = orders.sink("audit").start(Start::Oldest).join().await?;
    /// orders.add("placed", "order 7").await?;
    /// audit.close().await;
    ///
    /// let sinks = orders.sinks().await?;
    /// assert_eq!((sinks[0].0.as_str(), sinks[0].1.holds_back()), ("audit", Some(1)));
    /// assert!(orders.remove_sink("audit").await?);
    /// assert!(orders.sinks().await?.is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], [`Error::Backend`]. Repeating it is safe.
    pub async fn remove_sink(&self, sink: impl AsRef<str>) -> Result<bool, Error> {
        let group = Group::new(sink).map_err(Error::name)?;
        let removed = self.client.backend().group_destroy(&self.id, &group).await;
        removed.map_err(Error::on(Operation::RemoveSink, &self.id))
    }
}
