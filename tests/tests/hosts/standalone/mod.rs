//! One server, or one primary at a time.

mod black_hole;
mod demoted;
mod idle;
mod sentinels;
mod slow;

use std::time::{Duration, Instant};

use pulse_core::{Client, Transaction};
use tests::scene::scope;

/// How soon a connection that carries nothing any more is replaced.
const REPLACED: Duration = Duration::from_secs(3);

/// Writes until a write is confirmed.
async fn writes(client: &Client) -> Duration {
    let begun = Instant::now();
    while let Err(error) = client.commit(Transaction::new(&scope()).put("w", "k", "v")).await {
        assert!(error.is_retryable() || error.is_outcome_unknown(), "{error:?}");
        assert!(begun.elapsed() < tests::PATIENCE, "no write succeeds: {error:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    begun.elapsed()
}
