//! What a job left behind: a value, or the reason why it was given up.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::id::DispatchId;

/// How long a result is kept if nothing else is said.
pub(crate) const KEEP_FOR: Duration = Duration::from_secs(10 * 60);

/// What stands in the table of results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobResult {
    pub(crate) dispatch: DispatchId,
    pub(crate) outcome: Outcome,
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

impl JobResult {
    /// The kind of outcome, the dispatch, and the rest as it is, so that a value is not encoded twice.
    pub(crate) fn encode(&self) -> Bytes {
        let (kind, rest) = match &self.outcome {
            Outcome::Done(value) => (DONE, &value[..]),
            Outcome::Failed(reason) => (FAILED, reason.as_bytes()),
        };
        let mut raw = BytesMut::with_capacity(9 + rest.len());
        raw.put_u8(kind);
        raw.put_u64(self.dispatch.0);
        raw.put_slice(rest);
        raw.freeze()
    }

    /// `None` if the bytes are nothing that a pool has written.
    pub(crate) fn decode(raw: &Bytes) -> Option<Self> {
        let kind = *raw.first()?;
        let dispatch = DispatchId(u64::from_be_bytes(raw.get(1..9)?.try_into().ok()?));
        let rest = raw.slice(9..);
        let outcome = match kind {
            DONE => Outcome::Done(rest),
            FAILED => Outcome::Failed(String::from_utf8_lossy(&rest).into_owned()),
            _ => return None,
        };
        Some(Self { dispatch, outcome })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_result_is_read_as_it_was_written(dispatch: u64, value: Vec<u8>, reason: String) {
            for outcome in [Outcome::Done(value.into()), Outcome::Failed(reason)] {
                let result = JobResult { dispatch: DispatchId(dispatch), outcome };
                prop_assert_eq!(JobResult::decode(&result.encode()), Some(result));
            }
        }

        #[test]
        fn garbage_is_no_result_or_some_result_but_no_panic(raw: Vec<u8>) {
            let _ = JobResult::decode(&raw.into());
        }
    }
}
