//! Removing a pool from the backend.

use pulse_core::Client;

use crate::{Error, tables};

/// Removes everything of a pool from the backend, its jobs included, if it has no nodes. No change, and no error, if
/// there is nothing.
///
/// ```
/// # use pulse_pool::Node;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = pulse_pool::connect("memory:").await?;
/// let node = Node::join(&client, "trial").await?;
/// node.enqueue("key", "payload").await?; // waits for a worker
/// node.close().await?;
/// pulse_pool::destroy(&client, "trial").await?; // nothing is left of it
/// # client.close().await;
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// [`Error::InUse`] if the pool has a node, or had one whose lease has not run out yet; and [`Error::Backend`].
///
/// # Cancel safety
///
/// If the future is dropped, the pool is either removed whole or not at all.
pub async fn destroy(client: &Client, pool: impl AsRef<str>) -> Result<(), Error> {
    let pool = pool.as_ref();
    let failed = |source| Error::Backend { operation: "destroy", pool: pool.to_owned(), source };
    let change = tables::destroy(pool).map_err(failed)?;
    match client.commit(change).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_conflict() => Err(Error::InUse { pool: pool.to_owned() }),
        Err(error) => Err(failed(error)),
    }
}
