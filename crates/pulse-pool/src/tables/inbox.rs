//! The inboxes of nodes, and the transactions that write into them.

use std::time::Duration;

use bytes::Bytes;
use pulse_core::{Binding, Deadline, MIN_LIFETIME, Transaction};

use super::Tables;
use crate::{JobKey, NodeId, post::ANSWER_TTL};

/// How many posts may stand in the inbox of a node when another note is put there.
pub(crate) const MOST_POSTS: u64 = 1000;

/// What the names of inboxes begin with.
pub(super) const INBOX: &str = "pool:inbox:";

/// How long an inbox stands that nobody writes to, and whose node did not remove it.
const INBOX_TTL: Duration = Duration::from_secs(24 * 3600);

impl Tables {
    /// Puts a note for a running job into the inbox of its node, unless that is full.
    pub(crate) fn note(
        &self,
        key: &JobKey,
        running: &Bytes,
        node: NodeId,
        id: &str,
        note: Bytes,
        ttl: Duration,
    ) -> Transaction {
        self.expect_record(key, running)
            .expect_fewer_than(inbox_of(node), MOST_POSTS)
            .put_bound(inbox_of(node), id, note, Binding::Ttl(ttl.max(MIN_LIFETIME)))
            .expire_map(inbox_of(node), Deadline::Renew(INBOX_TTL))
    }

    /// Takes a note out of the inbox of its node, and puts the answer into that of the sender.
    pub(crate) fn answer(&self, node: NodeId, id: &str, to: NodeId, answer: Bytes) -> Transaction {
        let taken = self.remove_post(node, id);
        taken
            .put_bound(inbox_of(to), id, answer, Binding::Ttl(ANSWER_TTL))
            .expire_map(inbox_of(to), Deadline::Renew(INBOX_TTL))
    }

    pub(crate) fn remove_post(&self, node: NodeId, id: &str) -> Transaction {
        self.begin().delete(inbox_of(node), id)
    }

    pub(crate) async fn remove_inbox(&self, node: NodeId) -> Result<(), pulse_core::Error> {
        self.client.commit(self.begin().destroy_map(inbox_of(node))).await.map(|_| ())
    }
}

pub(super) fn inbox_of(node: NodeId) -> String {
    format!("{INBOX}{node}")
}
