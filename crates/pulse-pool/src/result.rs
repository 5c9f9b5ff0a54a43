//! What a job left behind: a value, or the reason why it was given up.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{id::DispatchId, new_job::millis};

/// How long a result is kept if nothing else is said.
pub(crate) const KEEP_FOR: Duration = Duration::from_secs(10 * 60);

/// How long a result stands at least, however briefly it is to be kept: for those who wait for the end of its job, and
/// are told a little later.
pub(crate) const FOR_WAITERS: Duration = Duration::from_secs(10);

/// What stands in the table of results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobResult {
    pub(crate) dispatch: DispatchId,
    pub(crate) outcome: Outcome,
    /// From this moment of the server's clock on, in milliseconds, it stands there only for those who wait. `None` if it
    /// is for everybody for as long as it stands there.
    pub(crate) until: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With a value as MessagePack; empty if there is none.
    Done(Bytes),
    /// It was given up for this reason.
    Failed(String),
}

const DONE: u8 = 0;
const FAILED: u8 = 1;
/// What is added to the kind of one that is not for everybody for as long as it stands there.
const BRIEF: u8 = 2;

impl JobResult {
    /// Of a job that ends now, to be kept for that time.
    pub(crate) fn kept(dispatch: DispatchId, outcome: Outcome, now: u64, keep_for: Duration) -> Self {
        let until = (keep_for < FOR_WAITERS).then(|| now.saturating_add(millis(keep_for)));
        Self { dispatch, outcome, until }
    }

    /// Whether it is for everybody.
    pub(crate) fn is_kept(&self, now: u64) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// The kind of outcome, the dispatch, maybe the time until when it is kept, and the rest as it is, so that a value is
    /// not encoded twice.
    pub(crate) fn encode(&self) -> Bytes {
        let (kind, rest) = match &self.outcome {
            Outcome::Done(value) => (DONE, &value[..]),
            Outcome::Failed(reason) => (FAILED, reason.as_bytes()),
        };
        let mut raw = BytesMut::with_capacity(17 + rest.len());
        raw.put_u8(kind + if self.until.is_some() { BRIEF } else { 0 });
        raw.put_u64(self.dispatch.0);
        if let Some(until) = self.until {
            raw.put_u64(until);
        }
        raw.put_slice(rest);
        raw.freeze()
    }

    /// `None` if the bytes are nothing that a pool has written.
    pub(crate) fn decode(raw: &Bytes) -> Option<Self> {
        let mut rest = raw.clone();
        let (kind, dispatch) = (rest.try_get_u8().ok()?, DispatchId(rest.try_get_u64().ok()?));
        let (kind, until) = if kind < BRIEF { (kind, None) } else { (kind - BRIEF, Some(rest.try_get_u64().ok()?)) };
        let outcome = match kind {
            DONE => Outcome::Done(rest),
            FAILED => Outcome::Failed(String::from_utf8_lossy(&rest).into_owned()),
            _ => return None,
        };
        Some(Self { dispatch, outcome, until })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_result_is_read_as_it_was_written(
            dispatch: u64, value: Vec<u8>, reason: String, until in proptest::option::of(any::<u64>()),
        ) {
            for outcome in [Outcome::Done(value.into()), Outcome::Failed(reason)] {
                let result = JobResult { dispatch: DispatchId(dispatch), outcome, until };
                prop_assert_eq!(JobResult::decode(&result.encode()), Some(result));
            }
        }

        #[test]
        fn garbage_is_no_result_or_some_result_but_no_panic(raw: Vec<u8>) {
            let _ = JobResult::decode(&raw.into());
        }
    }
}
