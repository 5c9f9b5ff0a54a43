//! The backend over servers: what only a real server can do to it, and what strangers can.

#[cfg(feature = "standalone")]
mod standalone;
