//! Values with operations of their own: counters and lists, which the backend changes in place.

use std::{fmt, ops::Deref};

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
