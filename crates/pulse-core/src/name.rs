//! Names: scopes, maps, streams and consumer groups.
//!
//! A *scope* is the unit of atomicity: everything of one scope lives in one hash slot of a Redis Cluster, so one
//! [`Transaction`](crate::Transaction) may touch all of it. Maps, streams and leases belong to exactly one scope.
//! Names are arbitrary non-empty strings of at most [`MAX_NAME_LEN`] bytes; the backends escape what their key format
//! reserves, so braces, spaces and newlines are ordinary characters.

use std::{fmt, sync::Arc};

use crate::Error;

/// The longest accepted name of a scope, map, stream, group or consumer, in bytes.
pub const MAX_NAME_LEN: usize = 1024;

pub(crate) fn check(what: &'static str, name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::invalid_name(what, name, "it is empty"));
    }
    if name.len() > MAX_NAME_LEN {
        return Err(Error::invalid_name(what, name, "it is longer than 1024 bytes"));
    }
    Ok(())
}

fn checked(what: &'static str, name: &str) -> Result<Arc<str>, Error> {
    check(what, name)?;
    Ok(Arc::from(name))
}

/// The unit of atomicity: one hash slot's worth of maps, streams and leases.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(Arc<str>);

impl Scope {
    /// Checks and wraps a scope name.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] if the name is empty or longer than [`MAX_NAME_LEN`] bytes.
    pub fn new(name: impl AsRef<str>) -> Result<Self, Error> {
        checked("scope", name.as_ref()).map(Self)
    }

    /// The name as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Names a map of this scope.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] if the name is empty or longer than [`MAX_NAME_LEN`] bytes.
    pub fn map(&self, name: impl AsRef<str>) -> Result<MapId, Error> {
        Ok(MapId { scope: self.clone(), name: checked("map", name.as_ref())? })
    }

    /// Names a stream of this scope.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] if the name is empty or longer than [`MAX_NAME_LEN`] bytes.
    pub fn stream(&self, name: impl AsRef<str>) -> Result<StreamId, Error> {
        Ok(StreamId { scope: self.clone(), name: checked("stream", name.as_ref())? })
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({:?})", &*self.0)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! scoped_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name {
            scope: Scope,
            name: Arc<str>,
        }

        impl $name {
            /// The scope that it belongs to.
            #[must_use]
            pub fn scope(&self) -> &Scope {
                &self.scope
            }

            /// Its name inside the scope.
            #[must_use]
            pub fn name(&self) -> &Arc<str> {
                &self.name
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.scope, self.name)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}/{})"), self.scope, self.name)
            }
        }
    };
}

scoped_id! {
    /// A map: its scope and its name inside the scope.
    MapId
}

scoped_id! {
    /// A stream: its scope and its name inside the scope.
    StreamId
}

macro_rules! plain_name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and wraps a name.
            ///
            /// # Errors
            ///
            /// [`Error::InvalidName`] if the name is empty or longer than [`MAX_NAME_LEN`] bytes.
            pub fn new(name: impl AsRef<str>) -> Result<Self, Error> {
                checked($what, name.as_ref()).map(Self)
            }

            /// The name as given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }
    };
}

plain_name! {
    /// A consumer group of a stream: consumers with one group name share one cursor.
    Group, "consumer group"
}

plain_name! {
    /// One member of a consumer group.
    Consumer, "consumer"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_a_name_if_it_is_neither_empty_nor_too_long() {
        for name in ["a", "with space", "{braces}", "new\nline", "\0", "ünï/cödé:*", &"x".repeat(MAX_NAME_LEN)] {
            let scope = Scope::new(name).expect(name);
            assert_eq!(scope.as_str(), name);
            assert_eq!(&**scope.map(name).expect(name).name(), name);
            assert_eq!(&**scope.stream(name).expect(name).name(), name);
            assert_eq!(Group::new(name).expect(name).as_str(), name);
            assert_eq!(Consumer::new(name).expect(name).as_str(), name);
        }
    }

    #[test]
    fn empty_and_long_names_are_refused_with_what_they_were_for() {
        // Bytes count, not characters.
        for name in [String::new(), "x".repeat(MAX_NAME_LEN + 1), "ä".repeat(MAX_NAME_LEN / 2 + 1)] {
            let scope = Scope::new("s").expect("a valid name");
            for (refused, expected) in [
                (Scope::new(&name).err(), "scope"),
                (scope.map(&name).err(), "map"),
                (scope.stream(&name).err(), "stream"),
                (Group::new(&name).err(), "consumer group"),
                (Consumer::new(&name).err(), "consumer"),
            ] {
                assert!(matches!(refused, Some(Error::InvalidName { what, .. }) if what == expected), "{refused:?}");
            }
        }
    }

    #[test]
    fn a_map_and_a_stream_show_their_scope() {
        let scope = Scope::new("s").expect("a valid name");
        assert_eq!(scope.map("m").expect("a valid name").to_string(), "s/m");
        assert_eq!(format!("{:?}", scope.stream("e").expect("a valid name")), "StreamId(s/e)");
    }
}
