//! What fleets of servers do to their clients: primaries that die, slots that move, sentinels that choose another one.
//!
//! Each test has a fleet of its own. [`life`] is what goes on in a scope meanwhile, and checks that nothing was lost.

#[cfg(any(feature = "standalone", feature = "cluster"))]
mod life;

#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "cluster")]
mod consuming;
#[cfg(feature = "standalone")]
mod standalone;
