//! What nodes write into each other's inboxes: notifications for jobs, and what came of them.
//!
//! An inbox is a map of its node's own, which only that node replicates. A post stands there under an id that occurs
//! once, until it is dealt with, or nobody waits for it any more.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::sync::oneshot;

use crate::{JobKey, NodeId, contain::Failure, id::AssignmentId};

/// For how long an answer stands in an inbox that nobody reads.
pub(crate) const ANSWER_TTL: Duration = Duration::from_secs(60);

/// What stands in an inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Post {
    Note(Note),
    Answer(Answer),
}

/// A notification for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) key: JobKey,
    /// The activation that it is for.
    pub(crate) assignment: AssignmentId,
    /// Who waits for the answer.
    pub(crate) from: NodeId,
    /// Until when, by the server's clock, in milliseconds. After that the job is not notified any more.
    pub(crate) until: u64,
    pub(crate) payload: Bytes,
}

/// What came of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The handler has dealt with it.
    Done,
    /// That activation of the job is not here, or not any more.
    NotHere,
    /// The handler takes no notifications.
    NotTaken,
    /// The handler failed, or panicked.
    Failed(String),
}

impl From<Result<(), Failure>> for Answer {
    fn from(handled: Result<(), Failure>) -> Self {
        match handled {
            Ok(()) => Self::Done,
            Err(failure) if failure.not_taken => Self::NotTaken,
            Err(failure) => Self::Failed(failure.message),
        }
    }
}

const NOTE: u8 = 0;
const DONE: u8 = 1;
const NOT_HERE: u8 = 2;
const NOT_TAKEN: u8 = 3;
const FAILED: u8 = 4;

impl Post {
    /// The kind, and for a note the activation, the sender, until when it waits, the length of the key, the key, and the
    /// payload as it is.
    pub(crate) fn encode(&self) -> Bytes {
        let mut raw = BytesMut::new();
        match self {
            Self::Note(Note { key, assignment, from, until, payload }) => {
                let key = key.as_str().as_bytes();
                raw.reserve(29 + key.len() + payload.len());
                raw.put_u8(NOTE);
                raw.put_u64(assignment.0);
                raw.put_u64(from.0);
                raw.put_u64(*until);
                // Keys are far shorter: what the server takes has its limits.
                raw.put_u32(u32::try_from(key.len()).unwrap_or(u32::MAX));
                raw.put_slice(key);
                raw.put_slice(payload);
            }
            Self::Answer(Answer::Done) => raw.put_u8(DONE),
            Self::Answer(Answer::NotHere) => raw.put_u8(NOT_HERE),
            Self::Answer(Answer::NotTaken) => raw.put_u8(NOT_TAKEN),
            Self::Answer(Answer::Failed(message)) => {
                raw.put_u8(FAILED);
                raw.put_slice(message.as_bytes());
            }
        }
        raw.freeze()
    }

    /// `None` if the bytes are nothing that a node has written.
    pub(crate) fn decode(raw: &Bytes) -> Option<Self> {
        let mut rest = raw.clone();
        let answer = match rest.try_get_u8().ok()? {
            NOTE => {
                let (assignment, from) = (AssignmentId(rest.try_get_u64().ok()?), NodeId(rest.try_get_u64().ok()?));
                let until = rest.try_get_u64().ok()?;
                let length = usize::try_from(rest.try_get_u32().ok()?).ok()?;
                if rest.len() < length {
                    return None;
                }
                let key = rest.split_to(length);
                let key = JobKey::new(std::str::from_utf8(&key).ok()?).ok()?;
                return Some(Self::Note(Note { key, assignment, from, until, payload: rest }));
            }
            DONE => Answer::Done,
            NOT_HERE => Answer::NotHere,
            NOT_TAKEN => Answer::NotTaken,
            FAILED => Answer::Failed(String::from_utf8_lossy(&rest).into_owned()),
            _ => return None,
        };
        Some(Self::Answer(answer))
    }
}

/// Those who wait for answers, by the id of the note.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<HashMap<String, oneshot::Sender<Answer>>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Answer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a note when what is returned is dropped, however whoever waits for its answer ends.
    pub(crate) fn until_dropped<'a>(&'a self, id: &'a str) -> ForgetsOnDrop<'a> {
        ForgetsOnDrop { waiting: self, id }
    }

    /// Waits for the answer to a note that is about to be sent.
    pub(crate) fn wait(&self, id: &str) -> oneshot::Receiver<Answer> {
        let (sender, answer) = oneshot::channel();
        self.lock().insert(id.to_owned(), sender);
        answer
    }

    pub(crate) fn answer(&self, id: &str, answer: Answer) {
        if let Some(waiting) = self.lock().remove(id) {
            // Whoever asked may not wait for the answer any more.
            let _ = waiting.send(answer);
        }
    }
}

/// Forgets a note when it is dropped.
#[derive(Debug)]
pub(crate) struct ForgetsOnDrop<'a> {
    waiting: &'a Waiting,
    id: &'a str,
}

impl Drop for ForgetsOnDrop<'_> {
    fn drop(&mut self) {
        self.waiting.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_post_is_read_as_it_was_written(
            key in ".+", assignment: u64, from: u64, until: u64, payload: Vec<u8>, message: String,
        ) {
            let note = Note {
                key: JobKey::new(key).unwrap(),
                assignment: AssignmentId(assignment),
                from: NodeId(from),
                until,
                payload: payload.into(),
            };
            let answers = [Answer::Done, Answer::NotHere, Answer::NotTaken, Answer::Failed(message)];
            for post in answers.map(Post::Answer).into_iter().chain([Post::Note(note)]) {
                prop_assert_eq!(Post::decode(&post.encode()), Some(post));
            }
        }

        #[test]
        fn garbage_is_no_post_or_some_post_but_no_panic(raw: Vec<u8>) {
            let _ = Post::decode(&raw.into());
        }
    }
}
