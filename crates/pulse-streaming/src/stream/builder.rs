//! Options of a stream.

use std::time::Duration;

use pulse_core::{Client, Deadline, Scope};

use super::{
    EventStream,
    retention::{Retention, Terms},
};
use crate::{
    Error, OptionValue,
    options::{LONGEST, check_time},
};

/// A stream with options; made by [`EventStream::builder`].
///
/// Options are terms on which this handle adds; they are not stored with the stream. All who add to it should have the
/// same.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use pulse_streaming::{Error, EventStream, Retention};
///
/// let client = pulse_streaming::connect("memory:").await?;
/// let recent = EventStream::builder("readings").retention(Retention::Newest(2)).open(&client)?;
/// for reading in ["20.1", "20.3", "20.2"] {
///     recent.add("reading", reading).await?;
/// }
/// assert_eq!(recent.info().await?.map(|info| info.length), Some(2));
///
/// let bounded = EventStream::builder("orders").capacity(1).open(&client)?;
/// bounded.add("placed", "order 7").await?;
/// assert!(matches!(bounded.add("placed", "order 8").await, Err(Error::Full { capacity: 1, .. })));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it opens the stream"]
pub struct StreamBuilder {
    name: String,
    scope: Option<Scope>,
    terms: Terms,
}

impl StreamBuilder {
    pub(super) fn new(name: String) -> Self {
        Self { name, scope: None, terms: Terms::default() }
    }

    /// Sets the scope that the stream belongs to. Maps and streams of one scope can be changed in one transaction. Default:
    /// a scope with the name of the stream.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Sets which events are kept. Default: all.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.terms.retention = retention;
        self
    }

    /// Refuses to add while the stream has that many events, with [`Error::Full`]. With [`Retention::UntilConsumed`] that
    /// is back-pressure: producers are refused until sinks have caught up. Default: no bound.
    ///
    /// A batch is taken as a whole as long as there is room for one.
    pub fn capacity(mut self, events: u64) -> Self {
        self.terms.capacity = Some(events);
        self
    }

    /// Lets the stream expire that long after the first event that was added through a handle that says so; later ones do
    /// not put it off. It then vanishes with all its events and sinks. At a resolution of one millisecond, by the server's clock.
    pub fn expires_after(mut self, time: Duration) -> Self {
        self.terms.lifetime = Some(Deadline::IfUnset(time));
        self
    }

    /// Lets the stream expire that long after the last event that was added through a handle that says so. It then vanishes
    /// with all its events and sinks. At a resolution of one millisecond, by the server's clock.
    pub fn expires_unless_added_to_for(mut self, time: Duration) -> Self {
        self.terms.lifetime = Some(Deadline::Renew(time));
        self
    }

    /// Sets how long [`add_once`](EventStream::add_once) remembers an id. Default: ten minutes.
    pub fn once_within(mut self, time: Duration) -> Self {
        self.terms.once_within = time;
        self
    }

    /// Makes the handle; talks to nobody.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], and [`Error::InvalidOption`] for a number of zero or a time under a millisecond or over a
    /// year.
    pub fn open(self, client: &Client) -> Result<EventStream, Error> {
        let scope = self.scope.map_or_else(|| Scope::new(&self.name), Ok).map_err(Error::name)?;
        let id = scope.stream(&self.name).map_err(Error::name)?;
        let least = Duration::from_millis(1);
        let time =
            |option, time| check_time(&id, option, time, least..=LONGEST, "it must be from a millisecond to a year");
        let count = |option, count| {
            let value = OptionValue::Count(usize::try_from(count).unwrap_or(usize::MAX));
            let invalid = Error::InvalidOption { stream: id.clone(), option, value, reason: "it must be at least one" };
            if count == 0 { Err(invalid) } else { Ok(()) }
        };
        match self.terms.retention {
            Retention::Newest(events) | Retention::AboutNewest(events) => count("retention", events)?,
            Retention::Within(age) => time("retention", age)?,
            Retention::Unlimited | Retention::UntilConsumed => {}
        }
        if let Some(capacity) = self.terms.capacity {
            count("capacity", capacity)?;
        }
        if let Some(Deadline::IfUnset(ttl) | Deadline::Renew(ttl)) = self.terms.lifetime {
            time("lifetime", ttl)?;
        }
        time("time to remember ids of events", self.terms.once_within)?;
        Ok(EventStream::with_terms(client, id, self.terms))
    }
}
