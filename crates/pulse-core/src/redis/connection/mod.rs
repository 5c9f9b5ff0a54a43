//! The connections to the servers: made, watched and replaced.
//!
//! From the ground up: `settings` and `url` say what is wanted; `wire` is one connection to one server, all that is
//! asked of the client library; `traffic` counts what is owed on it; `answers` asks many side by side; `locate` finds the server where the sentinels name
//! it; `endpoint` keeps one connection to one place; `topology` reads who owns which slots, and `cluster` keeps the
//! nodes; `router` leads a command to its connection. Neighbours use what is re-exported here, and nothing else.
//!
//! What they can rely on: a connection that is handed out stood a moment ago; whatever was sent on it and not answered
//! fails once the connection is given up; a silent connection is replaced within moments by one that answers, if any
//! server does; and a server that is merely slow loses no connection.

mod answers;
mod cluster;
mod endpoint;
mod locate;
mod router;
mod settings;
#[cfg(feature = "rustls")]
mod tls;
mod topology;
mod traffic;
mod url;
mod wire;

#[cfg(feature = "rustls")]
pub(super) use self::tls::advice;
pub(super) use self::{
    endpoint::Endpoint,
    router::Router,
    settings::{Place, Settings},
    wire::Connection,
};
