//! Waiting for what must become true: no fixed sleeps, a generous time-out, and the last state seen in the failure.

use std::{fmt::Debug, time::Duration};

use tokio::time::Instant;

/// How long something that must happen may take before a check fails.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The pause between two looks.
const INTERVAL: Duration = Duration::from_millis(5);

/// Looks again and again until `probe` returns `Ok`, and hands that out.
///
/// `probe` returns `Err` with what it saw as long as the condition does not hold.
///
/// # Panics
///
/// After [`PATIENCE`], with `what` was waited for and what was seen last.
pub async fn eventually<T, S: Debug>(what: &str, mut probe: impl AsyncFnMut() -> Result<T, S>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let state = match probe().await {
            Ok(value) => return value,
            Err(state) => state,
        };
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}; last seen: {state:?}");
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Waits for a future that must end soon.
///
/// # Panics
///
/// After [`PATIENCE`], with `what` was waited for.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}
