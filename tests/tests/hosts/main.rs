//! Hosts that hang and links that forget: what users can rely on when a server neither answers nor goes away.
//!
//! Each test has servers of its own and the options that a client has by default. [`successor`] holds the promises that
//! are the same behind Sentinel and in a cluster.

#[cfg(any(feature = "standalone", feature = "cluster"))]
mod successor;

#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "standalone")]
mod standalone;

/// How soon a host that hangs is found not to matter when a client connects.
#[cfg(any(feature = "standalone", feature = "cluster"))]
const CONNECTED: std::time::Duration = std::time::Duration::from_secs(3);
