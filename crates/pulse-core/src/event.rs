//! Events: what is appended to a stream, and what is read from it.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use crate::{EventId, Source, message_pack};

/// Named values that travel with an event, in the order given; names may repeat.
///
/// For what describes the payload rather than being it: trace context, content type, tenant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers(Vec<(String, Bytes)>);

impl Headers {
    /// Adds a header.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<Bytes>) {
        self.0.push((name.into(), value.into()));
    }

    /// The first value of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// All headers in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Bytes)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<N: Into<String>, V: Into<Bytes>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        Self(headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// An event to append.
///
/// ```
/// let event = pulse_core::NewEvent::new("order-placed", "{\"id\": 7}")
///     .with_topic("orders.eu")
///     .with_header("content-type", "application/json");
/// assert_eq!(event.topic(), Some("orders.eu"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    name: Arc<str>,
    topic: Option<Arc<str>>,
    headers: Headers,
    payload: Bytes,
}

impl NewEvent {
    /// An event with a name, which says what happened, and a payload.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, payload: impl Into<Bytes>) -> Self {
        Self { name: name.into(), topic: None, headers: Headers::default(), payload: payload.into() }
    }

    /// An event whose payload is a value, encoded as MessagePack.
    ///
    /// # Errors
    ///
    /// As [`message_pack::encode`].
    pub fn encoded(name: impl Into<Arc<str>>, value: &(impl Serialize + ?Sized)) -> Result<Self, Source> {
        Ok(Self::new(name, message_pack::encode(value)?))
    }

    /// Sets the topic that readers can filter by.
    #[must_use]
    pub fn with_topic(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// Replaces all headers.
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// What happened.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The topic, if it has one.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        self.topic.as_deref()
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Name, topic, headers and payload together, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.name.len() + self.topic.as_ref().map_or(0, |topic| topic.len()) + headers + self.payload.len()
    }

    /// The event as readers will see it once it has an id.
    #[must_use]
    pub fn with_id(self, id: EventId) -> Event {
        Event { id, name: self.name, topic: self.topic, headers: self.headers, payload: self.payload }
    }
}

/// An event that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// Its place in the stream.
    pub id: EventId,
    /// What happened.
    pub name: Arc<str>,
    /// The topic, if it has one.
    pub topic: Option<Arc<str>>,
    /// The headers.
    pub headers: Headers,
    /// The payload.
    pub payload: Bytes,
}

/// What stands at one place of a stream: an event, or something that Pulse did not write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the stream.
    pub id: EventId,
    /// The event, or why it is none. A malformed entry is handed out all the same, so that a consumer group can
    /// acknowledge it and the reader can count it.
    pub event: Result<Event, Malformed>,
}

/// An entry of a stream that is not an event of Pulse, written by somebody else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an event of Pulse: {reason}")]
pub struct Malformed {
    /// What is missing or wrong.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_their_order_and_repeat() {
        let headers: Headers = [("a", "1"), ("b", "2"), ("a", "3")].into_iter().collect();
        assert_eq!(headers.get("a"), Some(&Bytes::from("1")), "the first one");
        assert_eq!(headers.get("A"), None);
        let all: Vec<_> = headers.iter().map(|(name, value)| (name, &value[..])).collect();
        assert_eq!(all, [("a", &b"1"[..]), ("b", b"2"), ("a", b"3")]);
        assert_eq!((headers.len(), headers.is_empty(), Headers::default().is_empty()), (3, false, true));
    }

    #[test]
    fn the_size_counts_every_part() {
        let event = NewEvent::new("name", "payload").with_topic("topic").with_header("h", "value");
        assert_eq!(event.size(), 4 + 7 + 5 + 1 + 5);
        assert_eq!(event.with_headers(Headers::default()).size(), 4 + 7 + 5);
    }

    #[test]
    fn an_event_that_is_read_is_the_one_that_was_written() {
        let new = NewEvent::new("name", "payload").with_topic("topic").with_header("h", "value");
        let event = new.clone().with_id(EventId::new(1, 2));
        assert_eq!((event.id, &*event.name, event.topic.as_deref()), (EventId::new(1, 2), new.name(), new.topic()));
        assert_eq!((&event.headers, &event.payload), (new.headers(), new.payload()));
    }
}
