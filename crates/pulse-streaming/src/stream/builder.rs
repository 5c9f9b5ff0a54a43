//! Options of a stream.

use pulse_core::{Client, Scope};

use super::{
    EventStream,
    terms::{Terms, term_options},
};
use crate::Error;

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

    /// Sets the scope that the stream belongs to. Maps and streams of one scope can be changed in one transaction.
    /// Default: a scope with the name of the stream.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    term_options!("");

    /// Makes the handle; talks to nobody.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], and [`Error::InvalidOption`] for a number of zero or a time under a millisecond or over
    /// a year.
    pub fn open(self, client: &Client) -> Result<EventStream, Error> {
        let scope = self.scope.map_or_else(|| Scope::new(&self.name), Ok).map_err(Error::name)?;
        let id = scope.stream(&self.name).map_err(Error::name)?;
        self.terms.check(&id)?;
        Ok(EventStream::with_terms(client, id, self.terms))
    }
}
