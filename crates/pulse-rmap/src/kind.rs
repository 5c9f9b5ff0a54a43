//! Values that are more than MessagePack: counters and lists, which the backend changes in place, and those that have a
//! form of their own.

use std::{error::Error, fmt, ops::Deref};

use bytes::Bytes;

/// A 64-bit counter as the value of a key; see [`Map::counters`](crate::Map::counters).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Counter(pub i64);

impl Deref for Counter {
    type Target = i64;

    fn deref(&self) -> &i64 {
        &self.0
    }
}

impl PartialEq<i64> for Counter {
    fn eq(&self, other: &i64) -> bool {
        self.0 == *other
    }
}

impl From<i64> for Counter {
    fn from(value: i64) -> Self {
        Self(value)
    }
}

impl From<Counter> for i64 {
    fn from(counter: Counter) -> Self {
        counter.0
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A list of byte strings as the value of a key; see [`Map::lists`](crate::Map::lists).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct List(Vec<Bytes>);

impl List {
    /// The items that are UTF-8, in order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|item| std::str::from_utf8(item).ok())
    }

    /// The items.
    #[must_use]
    pub fn into_items(self) -> Vec<Bytes> {
        self.0
    }
}

impl Deref for List {
    type Target = [Bytes];

    fn deref(&self) -> &[Bytes] {
        &self.0
    }
}

impl From<Vec<Bytes>> for List {
    fn from(items: Vec<Bytes>) -> Self {
        Self(items)
    }
}

impl<T: Into<Bytes>> FromIterator<T> for List {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self(items.into_iter().map(Into::into).collect())
    }
}

impl<'a> IntoIterator for &'a List {
    type Item = &'a Bytes;
    type IntoIter = std::slice::Iter<'a, Bytes>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// A value that has a form of its own in the map, in place of MessagePack; see [`Map::packed`](crate::Map::packed).
///
/// A replica keeps such a value alone, where it would keep one in MessagePack together with its bytes.
///
/// ```
/// # use bytes::Bytes;
/// # use pulse_rmap::{Map, Packed};
/// /// Latitude and longitude in millionths of a degree.
/// #[derive(Debug, PartialEq)]
/// struct Place(i32, i32);
///
/// impl Packed for Place {
///     fn pack(&self) -> Bytes {
///         Bytes::from([self.0.to_be_bytes(), self.1.to_be_bytes()].concat())
///     }
///
///     fn unpack(raw: &[u8]) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
///         let (north, east) = raw.split_at_checked(4).ok_or("a place has eight bytes")?;
///         Ok(Self(i32::from_be_bytes(north.try_into()?), i32::from_be_bytes(east.try_into()?)))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let client = pulse_rmap::connect("memory:").await?;
/// let places: Map<Place> = Map::packed("places").join(&client).await?;
/// places.set_and_wait("Bern", &Place(46_947_974, 7_447_447)).await?;
/// assert_eq!(places.get("Bern").as_deref(), Some(&Place(46_947_974, 7_447_447)));
/// # places.close().await; client.close().await;
/// # Ok(()) }
/// ```
pub trait Packed: Sized + Send + Sync + 'static {
    /// The bytes of the value, always the same for the same value.
    fn pack(&self) -> Bytes;

    /// Whether these are exactly the bytes that [`pack`](Self::pack) writes. A replica asks at every change; a type that
    /// can compare without writing them saves a buffer each time.
    ///
    /// After `true` the replica keeps the value alone, and takes its bytes from `pack`: where that is wrong, writes that
    /// expect the value are refused for ever. A panic counts as `false`.
    fn packs_to(&self, raw: &[u8]) -> bool {
        self.pack() == raw
    }

    /// Reads what [`pack`](Self::pack) writes, and what programs of other versions write.
    ///
    /// # Errors
    ///
    /// Why the bytes are no such value. The replica then passes over them, and counts the key as
    /// [unreadable](crate::Map::unreadable). A panic counts as an error.
    fn unpack(raw: &[u8]) -> Result<Self, Box<dyn Error + Send + Sync>>;
}
