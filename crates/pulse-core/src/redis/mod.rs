//! The backend over Redis and Valkey servers.

use crate::{Client, ClientBuilder, Error};

/// Options that only this backend has.
#[derive(Clone, Default)]
pub(crate) struct FredOptions {}

pub(crate) async fn connect(builder: ClientBuilder) -> Result<Client, Error> {
    Err(Error::InvalidUrl { url: builder.url, reason: "servers are not reachable yet".into() })
}
