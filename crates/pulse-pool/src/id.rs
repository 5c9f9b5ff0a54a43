//! Names and numbers of the pool that must not be mixed up.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::Error;

/// Names a job: any string that is not empty.
///
/// At most one job of a pool has a given key at any time. The key also decides which worker runs the job.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobKey(Arc<str>);

impl JobKey {
    /// Checks and wraps a key.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidKey`] if the key is empty. Whether it is too long depends on the limits of the client, and is
    /// found out when it is used.
    pub fn new(key: impl AsRef<str>) -> Result<Self, Error> {
        Self::checked(key.as_ref().into())
    }

    /// Wraps a key as [`new`](Self::new) does, without copying it.
    pub(crate) fn checked(key: Arc<str>) -> Result<Self, Error> {
        if key.is_empty() {
            return Err(Error::InvalidKey { reason: "a job key must not be empty" });
        }
        Ok(Self(key))
    }

    /// Wraps a key that a map accepted, which is therefore not empty.
    pub(crate) fn from_map(key: Arc<str>) -> Self {
        Self(key)
    }

    /// The key as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl Borrow<str> for JobKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for JobKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobKey({:?})", &*self.0)
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $visibility:vis $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        $visibility struct $name(pub(crate) u64);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:016x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }
    };
}

/// One that is drawn.
macro_rules! random_id {
    ($(#[$doc:meta])* $visibility:vis $name:ident) => {
        id! {
            $(#[$doc])*
            $visibility $name
        }

        impl $name {
            /// Never 0.
            pub(crate) fn random() -> Self {
                Self(pulse_core::entropy::number().max(1))
            }
        }
    };
}

random_id! {
    /// Identifies a node for as long as it lives.
    pub NodeId
}

random_id! {
    /// Identifies a worker. A node that was declared dead and comes back gives each of its workers a new one.
    pub WorkerId
}

id! {
    /// Identifies one dispatch of a key, so that its caller recognises the job wherever it has moved. Made by
    /// [`Stamps`](crate::order::Stamps), and never 0.
    pub(crate) DispatchId
}

random_id! {
    /// Identifies one assignment of a job to a worker. No two records of a key with different owners, nor records of
    /// different dispatches, ever have the same, so that comparing records cannot mistake one for the other.
    pub(crate) AssignmentId
}

impl FromStr for WorkerId {
    type Err = std::num::ParseIntError;

    /// Reads what [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// Orders the activations of a key: a fencing token for the world outside the pool.
///
/// Every start of a job has a greater epoch than all earlier starts of that key on another worker or of another
/// dispatch, for as long as the pool's data lives in the backend; a start that is tried again where the job is may keep
/// it. A store that remembers the greatest epoch it has seen for a key, and refuses smaller ones, is safe from a worker
/// that was paused and does not know yet that its job has moved.
///
/// ```
/// use pulse_pool::Epoch;
///
/// /// What a store keeps for each key.
/// struct Reading {
///     seen: Epoch,
///     degrees: f64,
/// }
///
/// impl Reading {
///     /// Takes what a job has read; `false` if a later start of the job was here before.
///     fn take(&mut self, by: Epoch, degrees: f64) -> bool {
///         let is_current = by >= self.seen;
///         if is_current {
///             (self.seen, self.degrees) = (by, degrees);
///         }
///         is_current
///     }
/// }
///
/// let mut cellar = Reading { seen: Epoch(41), degrees: 11.0 };
/// assert!(cellar.take(Epoch(58), 11.5));
/// assert!(!cellar.take(Epoch(41), 11.0)); // from a worker that was paused
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
