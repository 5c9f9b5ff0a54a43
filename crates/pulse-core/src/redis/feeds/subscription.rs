//! One subscription to one channel, and what a connection says of those that were made on it.

use std::sync::Arc;

use bytes::Bytes;
use fred::{
    error::{Error as FredError, ErrorKind},
    interfaces::PubsubInterface,
    types::Message,
    util::redis_keyslot,
};
use futures::{
    StreamExt,
    stream::{BoxStream, once, unfold},
};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::super::{
    connection::{Connection, Endpoint, Router},
    errors::{Refusal, refusal, was_said_by_server},
};

/// Where a subscription was made.
#[derive(Debug, Clone)]
pub(super) struct Subscribed {
    endpoint: Arc<Endpoint>,
    pub(super) connection: Arc<Connection>,
}

impl Subscribed {
    /// Whether the connection is still the one that subscriptions to the channel are made on.
    pub(super) fn stands(&self, router: &Router, channel: &Bytes) -> bool {
        !self.connection.ended().is_cancelled()
            && router.feeds(redis_keyslot(channel)).is_some_and(|endpoint| Arc::ptr_eq(&endpoint, &self.endpoint))
    }
}

/// Subscribes on the connection to the owner of the channel's slot, as soon as it stands.
pub(super) async fn subscribe(router: &Router, channel: &Bytes) -> Result<Subscribed, FredError> {
    let slot = redis_keyslot(channel);
    let mut changes = router.changes();
    let (endpoint, connection) = loop {
        changes.borrow_and_update();
        if let Some(endpoint) = router.feeds(slot)
            && let Some(connection) = endpoint.current()
            && !connection.ended().is_cancelled()
        {
            break (endpoint, connection);
        }
        if changes.changed().await.is_err() {
            return Err(FredError::new(ErrorKind::Canceled, "the client is closed"));
        }
    };
    let subscribed = {
        let owed = connection.traffic.sent(0);
        let subscribed = connection.once().ssubscribe(String::from_utf8_lossy(channel).into_owned()).await;
        if subscribed.as_ref().map_or_else(was_said_by_server, |()| true) {
            owed.answered();
        }
        subscribed
    };
    match subscribed {
        Ok(()) => Ok(Subscribed { endpoint, connection }),
        Err(error) => {
            if refusal(error.details()) == Refusal::Redirected {
                router.moved(error.details(), &connection);
            }
            Err(error)
        }
    }
}

/// What a connection for feeds says.
pub(super) enum Heard {
    Message(Message),
    /// The process was too slow for the connection, and some messages are gone.
    Lagged(Arc<Connection>),
    /// It has ended.
    Ended(Arc<Connection>),
}

/// What arrives on a connection until it has ended, which comes last; nothing if it is heard already.
pub(super) fn heard_on(connection: &Arc<Connection>) -> Option<BoxStream<'static, Heard>> {
    let messages = connection.take_messages()?;
    let ended = connection.ended().clone().cancelled_owned();
    let last = connection.clone();
    let messages = unfold((messages, connection.clone()), next).take_until(ended);
    Some(messages.chain(once(async move { Heard::Ended(last) })).boxed())
}

type Messages = (Receiver<Message>, Arc<Connection>);

async fn next((mut messages, connection): Messages) -> Option<(Heard, Messages)> {
    let heard = match messages.recv().await {
        Ok(message) => {
            connection.traffic.heard();
            Heard::Message(message)
        }
        Err(RecvError::Lagged(_)) => Heard::Lagged(connection.clone()),
        Err(RecvError::Closed) => return None,
    };
    Some((heard, (messages, connection)))
}
