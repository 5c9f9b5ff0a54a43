//! Streams: what an event looks like in the server, and reading.
//!
//! An event is an entry with the fields `n` (name), `t` (topic, if any), `h` (headers, if any: a MessagePack array of
//! names and values in turn) and `p` (payload). Whatever else stands in a stream is handed out as malformed.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use fred::types::{Resp3Frame, Value};

use super::{
    Redis,
    commit::ids,
    errors::{Ask, Refusal},
    link::{Answer, Repeat, Route},
    reply::{self, Fields, Misfit},
};
use crate::{Entry, Error, Event, EventId, Group, Headers, Malformed, NewEvent, Read, StreamId, StreamInfo};

/// The fields of an event, each a name and a value.
pub(super) fn event_fields(event: &NewEvent) -> impl Iterator<Item = (&'static str, Bytes)> + use<> {
    let topic = event.topic().map(|topic| Bytes::copy_from_slice(topic.as_bytes()));
    let headers = (!event.headers().is_empty()).then(|| encode_headers(event.headers()));
    let name = Bytes::copy_from_slice(event.name().as_bytes());
    let fields = [("n", Some(name)), ("t", topic), ("h", headers), ("p", Some(event.payload().clone()))];
    fields.into_iter().filter_map(|(field, value)| Some((field, value?)))
}

fn encode_headers(headers: &Headers) -> Bytes {
    let mut encoded = Vec::with_capacity(64);
    // Writing to a vector cannot fail, and the limit on events bounds the lengths.
    let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let _ = rmp::encode::write_array_len(&mut encoded, length(headers.len() * 2));
    for (name, value) in headers.iter() {
        let _ = rmp::encode::write_str(&mut encoded, name);
        let _ = rmp::encode::write_bin(&mut encoded, value);
    }
    encoded.into()
}

fn decode_headers(mut encoded: Bytes) -> Result<Headers, String> {
    let mut headers = Headers::default();
    let mut rest = &encoded[..];
    let count = rmp::decode::read_array_len(&mut rest).map_err(|_| "the headers are no MessagePack array")?;
    encoded.advance(encoded.len() - rest.len());
    for _ in 0..count / 2 {
        let name = take_string(&mut encoded).ok_or("the headers end early or hold something else than strings")?;
        let value = take_string(&mut encoded).ok_or("the headers end early or hold something else than strings")?;
        let name = String::from_utf8(name.into()).map_err(|_| "the name of a header is not UTF-8")?;
        headers.push(name, value);
    }
    if count % 2 == 0 && encoded.is_empty() { Ok(headers) } else { Err("the headers have no even number".into()) }
}

/// Takes a MessagePack string, text or binary, from the front.
pub(super) fn take_string(encoded: &mut Bytes) -> Option<Bytes> {
    let (marker, rest) = encoded.split_first()?;
    let number = |width: usize| {
        let bytes = rest.get(..width)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let (width, length) = match marker {
        0xa0..=0xbf => (0, usize::from(marker & 0x1f)),
        0xc4 | 0xd9 => (1, number(1)?),
        0xc5 | 0xda => (2, number(2)?),
        0xc6 | 0xdb => (4, number(4)?),
        _ => return None,
    };
    let start: usize = 1 + width;
    let end = start.checked_add(length)?;
    if end > encoded.len() {
        return None;
    }
    let string = encoded.slice(start..end);
    encoded.advance(end);
    Some(string)
}

/// Reads entries of a stream. Most events of a stream share few names and topics, so each is kept once for as long as
/// it repeats.
#[derive(Debug, Default)]
pub(super) struct EntryReader {
    name: Option<Arc<str>>,
    topic: Option<Arc<str>>,
}

impl EntryReader {
    /// Reads one entry as `XRANGE` and its relatives give it.
    pub(super) fn read(&mut self, frame: Resp3Frame) -> Result<Entry, Misfit> {
        let [id, fields] = reply::exactly(frame)?;
        let id = reply::event_id(id)?;
        let event = self.read_event(id, fields).map_err(|reason| Malformed { reason });
        Ok(Entry { id, event })
    }

    fn read_event(&mut self, id: EventId, fields: Resp3Frame) -> Result<Event, String> {
        let (mut name, mut topic, mut headers, mut payload) = (None, None, Headers::default(), None);
        let mut fields = reply::list(fields)?.into_iter();
        while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
            let value = reply::bytes(value)?;
            match &reply::bytes(field)?[..] {
                b"n" => name = Some(shared(&mut self.name, "name", &value)?),
                b"t" => topic = Some(shared(&mut self.topic, "topic", &value)?),
                b"h" => headers = decode_headers(value)?,
                b"p" => payload = Some(value),
                // Left to later versions.
                _ => {}
            }
        }
        let name = name.ok_or("the field `n`, its name, is missing")?;
        let payload = payload.ok_or("the field `p`, its payload, is missing")?;
        Ok(Event { id, name, topic, headers, payload })
    }
}

/// The text, as the one before if it is the same.
fn shared(last: &mut Option<Arc<str>>, what: &str, value: &Bytes) -> Result<Arc<str>, String> {
    if let Some(last) = last.as_ref().filter(|last| last.as_bytes() == &value[..]) {
        return Ok(last.clone());
    }
    let text = std::str::from_utf8(value).map_err(|_| format!("the {what} is not UTF-8"))?;
    Ok(last.insert(text.into()).clone())
}

pub(super) fn read_entries(frame: Resp3Frame) -> Result<Vec<Entry>, Misfit> {
    let mut entries = EntryReader::default();
    reply::list(frame)?.into_iter().map(|frame| entries.read(frame)).collect()
}

impl Redis {
    pub(super) async fn acknowledge(&self, stream: &StreamId, group: &Group, events: &[EventId]) -> Result<u64, Error> {
        if events.is_empty() {
            return Ok(0);
        }
        let ask = Ask::new("acknowledge", stream);
        let key = self.keys.stream(stream);
        let args = || {
            let mut args = Vec::with_capacity(2 + events.len());
            args.push(Value::Bytes(key.clone()));
            args.push(Value::from(group.as_str()));
            args.extend(ids(events));
            args
        };
        let reply = self.stream_call(ask, stream, Repeat::Freely, "XACK", args).await?;
        reply::count(reply).map_err(|misfit| ask.protocol(misfit))
    }

    pub(super) async fn read_stream(
        &self,
        stream: &StreamId,
        after: EventId,
        limit: usize,
        wait: Duration,
    ) -> Result<Read, Error> {
        let ask = Ask::new("read", stream);
        let key = self.keys.stream(stream);
        // The range begins with the entry after which is read, to see whether it is still there.
        let (start, limit) = (after.to_string(), limit.max(1));
        let count = limit.saturating_add(1).min(MOST).to_string();
        let args = &|| {
            vec![
                Value::Bytes(key.clone()),
                Value::from(start.as_str()),
                Value::from_static_str("+"),
                Value::from_static_str("COUNT"),
                Value::from(count.as_str()),
            ]
        };
        let read = || async move {
            let reply = self.stream_call(ask, stream, Repeat::Freely, "XRANGE", args).await?;
            let mut entries = read_entries(reply).map_err(|misfit| ask.protocol(misfit))?;
            let stands = entries.first().is_some_and(|entry| entry.id == after);
            if stands {
                entries.remove(0);
            }
            entries.truncate(limit);
            Ok(Read::new(entries, stands))
        };
        self.wait_for(stream, wait, |read: &Read| !read.entries.is_empty(), read).await
    }

    pub(super) async fn read_stream_info(&self, stream: &StreamId) -> Result<Option<StreamInfo>, Error> {
        let ask = Ask::new("describe", stream);
        let key = self.keys.stream(stream);
        let args = || vec![Value::from_static_str("STREAM"), Value::Bytes(key.clone())];
        match self.link.try_call(ask, Repeat::Freely, "XINFO", Route::Key(1), args).await? {
            Answer::Reply(reply) => read_info(reply).map(Some).map_err(|misfit| ask.protocol(misfit)),
            Answer::Refused(Refusal::NoKey, _) => Ok(None),
            Answer::Refused(refusal, message) => Err(self.stream_error(ask, stream, refusal, &message)),
        }
    }

    /// Sends a command whose first argument is the stream's key.
    pub(super) async fn stream_call(
        &self,
        ask: Ask<'_>,
        stream: &StreamId,
        repeat: Repeat,
        command: &'static str,
        args: impl Fn() -> Vec<Value> + Send + Sync,
    ) -> Result<Resp3Frame, Error> {
        match self.link.try_call(ask, repeat, command, Route::Key(0), args).await? {
            Answer::Reply(reply) => Ok(reply),
            Answer::Refused(refusal, message) => Err(self.stream_error(ask, stream, refusal, &message)),
        }
    }

    pub(super) fn stream_error(&self, ask: Ask<'_>, stream: &StreamId, refusal: Refusal, message: &str) -> Error {
        match refusal {
            Refusal::WrongType => {
                Error::WrongType { key: String::from_utf8_lossy(&self.keys.stream(stream)).into_owned() }
            }
            refusal => self.link.error(ask, refusal, message),
        }
    }
}

/// The most entries that are asked for at once.
const MOST: usize = 1 << 31;

pub(super) fn read_info(reply: Resp3Frame) -> Result<StreamInfo, Misfit> {
    let mut fields = Fields::of(reply)?;
    let first = match fields.take("first-entry") {
        Resp3Frame::Null => None,
        entry => {
            let [id, _] = reply::exactly(entry)?;
            Some(reply::event_id(id)?)
        }
    };
    Ok(StreamInfo {
        length: fields.count("length")?,
        appended: fields.count("entries-added")?,
        first,
        last: fields.event_id("last-generated-id")?,
        max_deleted: fields.event_id("max-deleted-entry-id")?,
        groups: fields.count("groups")?,
    })
}
