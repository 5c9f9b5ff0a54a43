//! Carrying a change out until it is known whether it took effect.
//!
//! Every change of the pool expects the record that it replaces and writes one that occurs only once, so it can be sent
//! again after an unknown outcome: if the first attempt took effect, the second is refused, and finds the new record.
//! The exception is a dispatch whose job has come, run and gone before it is sent again: that one runs once more.

use std::time::Duration;

use bytes::Bytes;
use pulse_core::{Client, Error, Found, Transaction, Version, entropy};
use tokio::time::Instant;

use crate::tables::{Refusal, jobs_version};

/// How long to wait before the first repetition, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// It took effect. The version of the jobs right after it, unless only a repetition found that out.
    Done(Option<Version>),
    /// It was refused and changed nothing.
    Refused(Refusal),
    /// It was refused after an attempt of unknown outcome: either that one took effect and what it wrote was changed
    /// since, or nothing was changed.
    RefusedAfterUnknown(Refusal),
}

/// Sends a change again and again until its outcome is known. `leaves` is what it leaves at the job's key.
///
/// # Errors
///
/// Those that sending it again cannot heal, and after `deadline` any.
///
/// # Cancel safety
///
/// When dropped, the change was made or not.
pub(crate) async fn write(
    client: &Client,
    change: &Transaction,
    leaves: Option<&Bytes>,
    deadline: Option<Instant>,
) -> Result<Written, Error> {
    write_on(client, change, leaves, deadline, &mut false).await
}

/// As [`write`]. `may_have_happened`: whether an earlier attempt may have taken effect; set where one of these may have,
/// also if this fails in the end.
pub(crate) async fn write_on(
    client: &Client,
    change: &Transaction,
    leaves: Option<&Bytes>,
    deadline: Option<Instant>,
    may_have_happened: &mut bool,
) -> Result<Written, Error> {
    let mut back_off = BackOff::new(PAUSE.0, PAUSE.1);
    loop {
        match client.commit(change.clone()).await {
            Ok(committed) => return Ok(Written::Done(jobs_version(&committed))),
            Err(error) => match error.failed_expectation().map(Refusal::of) {
                Some(Refusal::Record(found)) if *may_have_happened && found.as_ref() == leaves => {
                    return Ok(Written::Done(None));
                }
                Some(refusal) if *may_have_happened => return Ok(Written::RefusedAfterUnknown(refusal)),
                Some(refusal) => return Ok(Written::Refused(refusal)),
                None if matches!(error, Error::LeaseLost { .. }) => return Ok(Written::Refused(Refusal::Membership)),
                None if deadline.is_some_and(|deadline| Instant::now() >= deadline) => return Err(error),
                None if error.is_retryable() || error.is_outcome_unknown() => {
                    *may_have_happened |= error.is_outcome_unknown();
                    tracing::debug!(scope = %change.scope(), %error, "a change of the pool is sent again");
                    back_off.pause().await;
                }
                None => return Err(error),
            },
        }
    }
}

/// Sends a change of a ticker again and again until its outcome is known. `leaves` is what it leaves at its key, which
/// nothing else does. Returns whether it took effect; if it did and was changed since, it does not count.
///
/// # Errors
///
/// Those that sending it again cannot heal, and after `deadline` any.
///
/// # Cancel safety
///
/// When dropped, the change was made or not.
pub(crate) async fn replace(
    client: &Client,
    change: &Transaction,
    leaves: &Bytes,
    deadline: Option<Instant>,
) -> Result<bool, Error> {
    let mut back_off = BackOff::new(PAUSE.0, PAUSE.1);
    loop {
        match client.commit(change.clone()).await {
            Ok(_) => return Ok(true),
            Err(error) => match error.failed_expectation() {
                Some(failed) => return Ok(matches!(&failed.found, Found::Value(Some(found)) if found == leaves)),
                None if deadline.is_some_and(|deadline| Instant::now() >= deadline) => return Err(error),
                None if error.is_retryable() || error.is_outcome_unknown() => back_off.pause().await,
                None => return Err(error),
            },
        }
    }
}

/// Growing pauses with jitter, so that many who failed together do not come back together.
#[derive(Debug, Clone)]
pub(crate) struct BackOff {
    next: Duration,
    longest: Duration,
}

impl BackOff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    /// Waits between half of the current pause and all of it.
    pub(crate) async fn pause(&mut self) {
        let pause = self.next.mul_f64(0.5 + entropy::fraction() / 2.0);
        self.next = (self.next * 2).min(self.longest);
        tokio::time::sleep(pause).await;
    }
}
