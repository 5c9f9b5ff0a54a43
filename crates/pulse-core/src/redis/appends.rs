//! Single appends: alone, by the plain command with a ring behind it, or gathered with those of other callers.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use fred::types::{Resp3Frame, Value};

use super::{
    Redis,
    errors::{Ask, Refusal, refusal},
    gather::{Given, Kind, Turn},
    link::Answer,
    reply::{self, Misfit},
    scripts::{self, Script},
    streams::event_fields,
};
use crate::{Error, EventId, NewEvent, StreamId};

const APPEND: &str = "append";

impl Redis {
    /// Appends one event; `None` if the stream had to exist and does not.
    pub(super) async fn append(
        &self,
        stream: &StreamId,
        event: &NewEvent,
        must_exist: bool,
    ) -> Result<Option<EventId>, Error> {
        let ask = Ask::new(APPEND, stream);
        let key = self.keys.stream(stream);
        let doorbell = || self.keys.doorbell(stream);
        if must_exist {
            return Box::pin(self.append_alone(ask, stream, &key, event, true)).await;
        }
        let write = || (Appends { stream: stream.clone(), doorbell: doorbell() }, Item::new(event));
        match self.appends.turn(&key, write).await? {
            Turn::Alone(_flight) => Box::pin(self.append_alone(ask, stream, &key, event, false)).await,
            Turn::Together(Ok(id)) => Ok(Some(id)),
            Turn::Together(Err((refusal, message))) => {
                Err(Box::pin(self.append_error(ask, stream, refusal, &message)).await)
            }
        }
    }

    async fn append_alone(
        &self,
        ask: Ask<'_>,
        stream: &StreamId,
        key: &Bytes,
        event: &NewEvent,
        must_exist: bool,
    ) -> Result<Option<EventId>, Error> {
        let attempts = AtomicU32::new(0);
        let fields = || {
            attempts.fetch_add(1, Ordering::Relaxed);
            event_fields(event).map(|(name, value)| (name.into(), value.into())).collect()
        };
        let append = self.link.append(ask, key, must_exist, fields);
        match self.bells.ring_behind(self.keys.doorbell(stream), &attempts, append).await? {
            Answer::Reply(Resp3Frame::Null) => Ok(None),
            Answer::Reply(reply) => reply::event_id(reply).map(Some).map_err(|misfit| ask.protocol(misfit)),
            Answer::Refused(refusal, message) => Err(self.append_error(ask, stream, refusal, &message).await),
        }
    }

    async fn append_error(&self, ask: Ask<'_>, stream: &StreamId, refusal: Refusal, message: &str) -> Error {
        if refusal != Refusal::Exhausted {
            return self.stream_error(ask, stream, refusal, message);
        }
        match self.read_stream_info(stream).await {
            Ok(info) => {
                let last = info.map_or(EventId::MAX, |info| info.last);
                Error::StreamExhausted { stream: stream.clone(), last }
            }
            Err(error) => error,
        }
    }
}

/// Single appends of different callers to one stream.
#[derive(Debug, Clone)]
pub(super) struct Appends {
    stream: StreamId,
    doorbell: Bytes,
}

/// The fields of one event, names and values in turn.
#[derive(Debug)]
pub(super) struct Item(Vec<Bytes>);

impl Item {
    fn new(event: &NewEvent) -> Self {
        Self(event_fields(event).flat_map(|(name, value)| [Bytes::from_static(name.as_bytes()), value]).collect())
    }
}

impl Kind for Appends {
    type Item = Item;
    type Share = EventId;

    fn script() -> &'static Script {
        &scripts::APPEND
    }

    fn weight(item: &Item) -> usize {
        item.0.iter().map(Bytes::len).sum()
    }

    fn ask(&self) -> Ask<'_> {
        Ask::new(APPEND, &self.stream)
    }

    fn arguments(&self, items: &[Item], arguments: &mut Vec<Value>) {
        arguments.reserve_exact(1 + items.iter().map(|item| 1 + item.0.len()).sum::<usize>());
        arguments.push(Value::Bytes(self.doorbell.clone()));
        for item in items {
            arguments.push(Value::Integer(item.0.len() as i64));
            arguments.extend(item.0.iter().cloned().map(Value::Bytes));
        }
    }

    fn share(reply: Resp3Frame, _: &[Item]) -> Result<Vec<Given<EventId>>, Misfit> {
        let read = |frame| match frame {
            Resp3Frame::SimpleError { data, .. } => Ok(Err((refusal(&data), data.to_string()))),
            Resp3Frame::BlobError { data, .. } => {
                let message = String::from_utf8_lossy(&data).into_owned();
                Ok(Err((refusal(&message), message)))
            }
            id => reply::event_id(id).map(Ok),
        };
        reply::list(reply)?.into_iter().map(read).collect()
    }
}
