//! Notifications that have come for the jobs of this node, and answers to those that it sent.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use pulse_rmap::{Changes, Update};
use tracing::Instrument;

use super::{Runner, TaskEnded, local::Activation};
use crate::{
    JobKey,
    id::AssignmentId,
    pool::Pool,
    post::{Answer, Note, Post},
};

/// The node's inbox, and what came of it that is not dealt with yet.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) changes: Changes<Bytes>,
    waiting: HashMap<JobKey, VecDeque<(Arc<str>, Note)>>,
    /// The jobs that those are for, by their ids.
    jobs: HashMap<Arc<str>, JobKey>,
    /// The jobs that are being notified: one note at a time for each.
    at_it: HashSet<JobKey>,
}

impl Inbox {
    pub(super) fn new(changes: Changes<Bytes>) -> Self {
        Self { changes, waiting: HashMap::new(), jobs: HashMap::new(), at_it: HashSet::new() }
    }

    fn add(&mut self, id: Arc<str>, note: Note) {
        self.jobs.insert(id.clone(), note.key.clone());
        self.waiting.entry(note.key.clone()).or_default().push_back((id, note));
    }

    /// Forgets a note that stands there no more: nobody waits for what comes of it. The inbox is as long as what waits.
    fn remove(&mut self, id: &str) {
        let Some(key) = self.jobs.remove(id) else { return };
        if let Some(waiting) = self.waiting.get_mut(&key) {
            // As a rule the first.
            if let Some(index) = waiting.iter().position(|(waits, _)| **waits == *id) {
                waiting.remove(index);
            }
            if waiting.is_empty() {
                self.waiting.remove(&key);
            }
        }
    }
}

impl Runner {
    pub(super) fn on_post(&mut self, update: Update<Bytes>) {
        let Update::Change(change) = update else { return };
        let Some(raw) = change.value.map(|value| value.raw()) else { return self.inbox.remove(&change.key) };
        match Post::decode(&raw) {
            Some(Post::Note(note)) => {
                let key = note.key.clone();
                self.inbox.add(change.key, note);
                self.next_note(&key);
            }
            Some(Post::Answer(answer)) => {
                self.pool.waiting.answer(&change.key, answer);
                let pool = self.pool.clone();
                self.tasks.spawn(async move {
                    // If it fails, the answer expires.
                    let _ = pool.tables.client().commit(pool.tables.remove_post(pool.node, &change.key)).await;
                    TaskEnded::Nothing
                });
            }
            None => tracing::warn!(pool = %self.pool.name, id = %change.key, "an inbox holds what no node has written"),
        }
    }

    pub(super) fn on_noted(&mut self, key: &JobKey) {
        self.inbox.at_it.remove(key);
        self.next_note(key);
    }

    /// Has the next note for a job dealt with, if none is and the job can be told.
    pub(super) fn next_note(&mut self, key: &JobKey) {
        if self.inbox.at_it.contains(key) {
            return;
        }
        let Some(waiting) = self.inbox.waiting.get_mut(key) else { return };
        let Some((_, note)) = waiting.front() else { return };
        // Its start is through, but this task has not heard of it yet.
        if self.jobs.is_starting(key, note.assignment) {
            return;
        }
        let activation = self.jobs.running(key, note.assignment).cloned();
        let Some((id, note)) = waiting.pop_front() else { return };
        if waiting.is_empty() {
            self.inbox.waiting.remove(key);
        }
        self.inbox.jobs.remove(&id);
        self.inbox.at_it.insert(key.clone());
        let (pool, of) = (self.pool.clone(), key.clone());
        self.tasks.spawn(async move {
            tell(&pool, &id, note, activation).await;
            TaskEnded::Noted(of)
        });
    }
}

/// Gives a note to its job, if that is here, and answers it.
async fn tell(pool: &Pool, id: &str, note: Note, activation: Option<Activation>) {
    let Note { key, from, until, payload, .. } = note;
    let answer = match activation {
        None => Answer::NotHere,
        Some(Activation { handler, stopped, turn, activity, .. }) => {
            let _turn = turn.lock().await;
            if pool.clock.now() >= until {
                tracing::debug!(pool = %pool.name, %key, "a notification has expired before the job could be told");
                // If that fails, it expires there, too.
                let _ = pool.tables.client().commit(pool.tables.remove_post(pool.node, id)).await;
                return;
            }
            let notify = handler.notify(&key, payload);
            tokio::select! {
                biased;
                () = stopped.cancelled() => Answer::NotHere,
                told = notify.instrument(activity.notify(pool, &key)) => match told {
                    // It was told to stop at the same moment: what it says is no answer.
                    Err(_) if stopped.is_cancelled() => Answer::NotHere,
                    told => told.into(),
                },
            }
        }
    };
    let answered = pool.tables.answer(pool.node, id, from, Post::Answer(answer).encode());
    if let Err(error) = pool.tables.client().commit(answered).await {
        tracing::debug!(pool = %pool.name, %key, %error, "an answer to a notification got lost");
    }
}

impl super::LocalJobs {
    fn is_starting(&self, key: &JobKey, assignment: AssignmentId) -> bool {
        matches!(self.here(key.as_str()), crate::decide::Here::Starting(here) if here == assignment)
    }
}
