//! Options of a partitioned stream.

use std::sync::Arc;

use pulse_core::{Client, Scope};
use tokio::sync::OnceCell;

use super::stream::{PartitionedStream, Shared};
use crate::{
    Error, EventStream, OptionValue,
    stream::terms::{Terms, term_options},
};

/// The most partitions that a stream may have.
pub(super) const MOST: u32 = 4096;

/// A partitioned stream with options; made by [`PartitionedStream::builder`].
///
/// Options are terms on which this handle adds; they are not stored with the stream. All who add to it should have the
/// same. They hold for each partition by itself.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use pulse_streaming::{PartitionedStream, Retention};
///
/// let client = pulse_streaming::connect("memory:").await?;
/// let readings = PartitionedStream::builder("readings", 4).retention(Retention::Newest(2)).open(&client)?;
/// for degrees in ["20.1", "20.3", "20.2"] {
///     readings.add("kitchen", "reading", degrees).await?;
/// }
/// let partition = &readings.partitions()[readings.partition_of("kitchen") as usize];
/// assert_eq!(partition.info().await?.map(|info| info.length), Some(2));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it opens the stream"]
pub struct PartitionedStreamBuilder {
    name: String,
    partitions: u32,
    terms: Terms,
}

impl PartitionedStreamBuilder {
    pub(super) fn new(name: String, partitions: u32) -> Self {
        Self { name, partitions, terms: Terms::default() }
    }

    term_options!(" Holds for each partition by itself.");

    /// Makes the handle; talks to nobody.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], and [`Error::InvalidOption`] for a number of zero, more than 4,096 partitions, or a time
    /// under a millisecond or over a year.
    pub fn open(self, client: &Client) -> Result<PartitionedStream, Error> {
        let Self { name, partitions, terms } = self;
        let scope = Scope::new(&name).map_err(Error::name)?;
        let id = scope.stream(&name).map_err(Error::name)?;
        if !(1..=MOST).contains(&partitions) {
            return Err(Error::InvalidOption {
                stream: id,
                option: "partitions",
                value: OptionValue::Count(usize::try_from(partitions).unwrap_or(usize::MAX)),
                reason: "it must be from 1 to 4096",
            });
        }
        terms.check(&id)?;
        let partition = |index: u32| {
            let scope = Scope::new(format!("{name}#{index}")).map_err(Error::name)?;
            let id = scope.stream(&name).map_err(Error::name)?;
            Ok(EventStream::with_terms(client, id, terms.clone()))
        };
        let partitions = (0..partitions).map(partition).collect::<Result<_, Error>>()?;
        let settled = OnceCell::new();
        Ok(PartitionedStream { shared: Arc::new(Shared { client: client.clone(), name, scope, partitions, settled }) })
    }
}
