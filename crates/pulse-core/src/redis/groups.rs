//! Consumer groups.

use std::time::Duration;

use fred::types::{Resp3Frame, Value};

use super::{
    Redis,
    commit::ids,
    errors::{Ask, Refusal},
    link::{Answer, Repeat, Route},
    permissions::Needs,
    reply::{self, Fields, Misfit},
    scripts::{self, Script},
    streams::{EntryReader, read_entries, read_info},
};
use crate::{
    Acks, Claimed, Consumer, ConsumerInfo, Delivery, Error, EventId, Group, GroupInfo, GroupStart, Missed,
    PendingEvent, PendingQuery, StreamDetail, StreamId, StreamInfo,
};

impl Redis {
    pub(super) async fn create_group(
        &self,
        stream: &StreamId,
        group: &Group,
        start: GroupStart,
    ) -> Result<bool, Error> {
        let ask = Ask::new("create a group", stream);
        let key = self.keys.stream(stream);
        let start = match start {
            GroupStart::Newest => "$".to_owned(),
            GroupStart::Oldest => "0-0".to_owned(),
            GroupStart::After(id) => id.to_string(),
        };
        let args = || {
            vec![
                Value::from_static_str("CREATE"),
                Value::Bytes(key.clone()),
                Value::from(group.as_str()),
                Value::from(start.as_str()),
                Value::from_static_str("MKSTREAM"),
            ]
        };
        // Not repeated: the second attempt would find the group of the first, and say that it was there already.
        match self.link.try_call(ask, Repeat::Never, "XGROUP", Route::Key(1), args).await? {
            Answer::Reply(_) => Ok(true),
            Answer::Refused(Refusal::BusyGroup, _) => Ok(false),
            Answer::Refused(refusal, message) => Err(self.group_error(ask, stream, group, refusal, &message)),
        }
    }

    pub(super) async fn destroy_group(&self, stream: &StreamId, group: &Group) -> Result<bool, Error> {
        let ask = Ask::new("destroy a group", stream);
        self.permissions.require(ask, stream.scope(), Needs::GROUP_REMOVAL).await?;
        let key = self.keys.stream(stream);
        let missed = self.keys.missed(stream);
        let args = |args: &mut Vec<Value>| {
            args.extend([Value::Bytes(key.clone()), Value::from(group.as_str()), Value::Bytes(missed.clone())]);
        };
        match self.link.run(ask, Repeat::Never, &scripts::DESTROY_GROUP, 1, args).await? {
            Answer::Reply(reply) => {
                // Whoever waits for its events learns that there is no such group any more.
                drop(self.bells.ring(self.keys.doorbell(stream)));
                Ok(reply::number(reply).map_err(|misfit| ask.protocol(misfit))? > 0)
            }
            Answer::Refused(Refusal::NoKey, _) => Ok(false),
            Answer::Refused(refusal, message) => Err(self.group_error(ask, stream, group, refusal, &message)),
        }
    }

    /// Hands out the next events to a consumer, without waiting.
    pub(super) async fn hand_out(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
        limit: usize,
        acks: Acks,
    ) -> Result<Vec<Delivery>, Error> {
        let ask = Ask::new("read", stream);
        let key = self.keys.stream(stream);
        let limit = limit.max(1).to_string();
        let args = || {
            let mut args = Vec::with_capacity(9);
            args.extend([
                Value::from_static_str("GROUP"),
                Value::from(group.as_str()),
                Value::from(consumer.as_str()),
                Value::from_static_str("COUNT"),
                Value::from(limit.as_str()),
            ]);
            args.extend((acks == Acks::None).then_some(Value::from_static_str("NOACK")));
            args.extend([Value::from_static_str("STREAMS"), Value::Bytes(key.clone()), Value::from_static_str(">")]);
            args
        };
        let place = if acks == Acks::None { 7 } else { 6 };
        match self.link.try_call(ask, Repeat::Never, "XREADGROUP", Route::Key(place), args).await? {
            Answer::Reply(reply) => read_handed_out(reply).map_err(|misfit| ask.protocol(misfit)),
            Answer::Refused(refusal, message) => Err(self.group_error(ask, stream, group, refusal, &message)),
        }
    }

    pub(super) async fn claim(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
        min_idle: Duration,
        limit: usize,
    ) -> Result<Claimed, Error> {
        let ask = Ask::new("claim", stream);
        self.permissions.require(ask, stream.scope(), Needs::ACKS).await?;
        let (idle, limit) = (millis(min_idle), limit.clamp(1, 1000).to_string());
        let more = || vec![Value::from(consumer.as_str()), Value::from(idle.as_str()), Value::from(limit.as_str())];
        let reply = self.run_on_group(ask, stream, group, &scripts::CLAIM, more).await?;
        read_claimed(reply).map_err(|misfit| ask.protocol(misfit))
    }

    pub(super) async fn set_idle(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
        events: &[EventId],
        idle: Duration,
    ) -> Result<Vec<EventId>, Error> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let ask = Ask::new("set idle times", stream);
        self.permissions.require(ask, stream.scope(), Needs::ACKS).await?;
        let idle = millis(idle.min(LONGEST_PAST));
        let more = || {
            let mut args = vec![Value::from(consumer.as_str()), Value::from(idle.as_str())];
            args.extend(ids(events));
            args
        };
        let reply = self.run_on_group(ask, stream, group, &scripts::SET_IDLE, more).await?;
        let kept = || reply::list(reply)?.into_iter().map(reply::event_id).collect::<Result<Vec<_>, _>>();
        kept().map_err(|misfit: Misfit| ask.protocol(misfit))
    }

    pub(super) async fn list_pending(
        &self,
        stream: &StreamId,
        group: &Group,
        query: PendingQuery,
    ) -> Result<Vec<PendingEvent>, Error> {
        let ask = Ask::new("list pending events", stream);
        let key = self.keys.stream(stream);
        // Nothing can follow the largest id, and the server would call such a range invalid.
        if query.after == EventId::MAX {
            return Ok(Vec::new());
        }
        let (idle, after) = (millis(query.min_idle), format!("({}", query.after));
        let limit = query.limit.clamp(1, LIMIT).to_string();
        let args = || {
            let mut args = vec![
                Value::Bytes(key.clone()),
                Value::from(group.as_str()),
                Value::from_static_str("IDLE"),
                Value::from(idle.as_str()),
                Value::from(after.as_str()),
                Value::from_static_str("+"),
                Value::from(limit.as_str()),
            ];
            args.extend(query.consumer.iter().map(|consumer| Value::from(consumer.as_str())));
            args
        };
        match self.link.try_call(ask, Repeat::Freely, "XPENDING", Route::Key(0), args).await? {
            Answer::Reply(reply) => read_pending(reply).map_err(|misfit| ask.protocol(misfit)),
            Answer::Refused(refusal, message) => Err(self.group_error(ask, stream, group, refusal, &message)),
        }
    }

    pub(super) async fn describe_group(&self, stream: &StreamId, group: &Group) -> Result<Option<GroupInfo>, Error> {
        let ask = Ask::new("describe a group", stream);
        let Some(groups) = self.group_details(ask, stream, "GROUPS", None).await? else { return Ok(None) };
        let Some(found) = find_group(groups, group).map_err(|misfit| ask.protocol(misfit))? else { return Ok(None) };
        let Some(consumers) = self.group_details(ask, stream, "CONSUMERS", Some(group)).await? else { return Ok(None) };
        let mut info = read_group(found, consumers).map_err(|misfit| ask.protocol(misfit))?;
        if info.pending > 0 {
            let oldest = self.list_pending(stream, group, PendingQuery::new(1)).await;
            match oldest {
                Ok(oldest) => info.oldest_pending = oldest.first().map(|pending| pending.id),
                Err(Error::NoGroup { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        if let Some(stream) = self.read_stream_info(stream).await? {
            info.lag = lag(&info, &stream);
        }
        Ok(Some(info))
    }

    pub(super) async fn describe_stream(&self, stream: &StreamId) -> Result<Option<StreamDetail>, Error> {
        let ask = Ask::new("describe", stream);
        self.permissions.require(ask, stream.scope(), Needs::DETAILS).await?;
        let key = self.keys.stream(stream);
        let args = |args: &mut Vec<Value>| args.push(Value::Bytes(key.clone()));
        match self.link.run(ask, Repeat::Freely, &scripts::DETAIL, 1, args).await? {
            Answer::Reply(Resp3Frame::Null | Resp3Frame::Boolean { data: false, .. }) => Ok(None),
            Answer::Reply(reply) => read_detail(reply).map(Some).map_err(|misfit| ask.protocol(misfit)),
            Answer::Refused(refusal, message) => Err(self.stream_error(ask, stream, refusal, &message)),
        }
    }

    /// The answer of `XINFO`, `None` if there is no such stream or group.
    async fn group_details(
        &self,
        ask: Ask<'_>,
        stream: &StreamId,
        what: &'static str,
        group: Option<&Group>,
    ) -> Result<Option<Resp3Frame>, Error> {
        let key = self.keys.stream(stream);
        let args = || {
            let mut args = vec![Value::from_static_str(what), Value::Bytes(key.clone())];
            args.extend(group.map(|group| Value::from(group.as_str())));
            args
        };
        match self.link.try_call(ask, Repeat::Freely, "XINFO", Route::Key(1), args).await? {
            Answer::Reply(reply) => Ok(Some(reply)),
            Answer::Refused(Refusal::NoKey | Refusal::NoGroup, _) => Ok(None),
            Answer::Refused(refusal, message) => Err(self.stream_error(ask, stream, refusal, &message)),
        }
    }

    pub(super) async fn take_missed(&self, stream: &StreamId, group: &Group) -> Result<Option<Missed>, Error> {
        let ask = Ask::new("take what was missed", stream);
        self.permissions.require(ask, stream.scope(), Needs::MISSED).await?;
        let key = self.keys.missed(stream);
        let events = self.keys.stream(stream);
        let args = |args: &mut Vec<Value>| {
            args.extend([Value::Bytes(key.clone()), Value::Bytes(events.clone()), Value::from(group.as_str())]);
        };
        let key = || String::from_utf8_lossy(&key).into_owned();
        let reply = match self.link.run(ask, Repeat::Never, &scripts::MISSED, 2, args).await? {
            Answer::Reply(reply) => reply,
            Answer::Refused(Refusal::WrongType, _) => return Err(Error::WrongType { key: key() }),
            Answer::Refused(refusal, message) => return Err(self.link.error(ask, refusal, &message)),
        };
        let Some(text) = reply::optional_bytes(reply).map_err(|misfit| ask.protocol(misfit))? else { return Ok(None) };
        let corrupt =
            || Error::Corrupt { key: key(), reason: "what a group missed is not written as Pulse does".into() };
        read_missed(&text).map(Some).ok_or_else(corrupt)
    }

    pub(super) async fn remove_consumer(
        &self,
        stream: &StreamId,
        group: &Group,
        consumer: &Consumer,
    ) -> Result<bool, Error> {
        let ask = Ask::new("remove a consumer", stream);
        self.permissions.require(ask, stream.scope(), Needs::CONSUMER_REMOVAL).await?;
        let more = || vec![Value::from(consumer.as_str())];
        let reply = self.run_on_group(ask, stream, group, &scripts::REMOVE_CONSUMER, more).await?;
        Ok(reply::number(reply).map_err(|misfit| ask.protocol(misfit))? == 1)
    }

    /// Runs a script that takes the stream as its key, and the group as its first argument.
    async fn run_on_group(
        &self,
        ask: Ask<'_>,
        stream: &StreamId,
        group: &Group,
        script: &'static Script,
        more: impl Fn() -> Vec<Value> + Send + Sync,
    ) -> Result<Resp3Frame, Error> {
        let key = self.keys.stream(stream);
        let args = |args: &mut Vec<Value>| {
            args.extend([Value::Bytes(key.clone()), Value::from(group.as_str())]);
            args.extend(more());
        };
        // A claim that is repeated finds what the first one took no longer idle: it comes back later.
        match self.link.run(ask, Repeat::Never, script, 1, args).await? {
            Answer::Reply(reply) => Ok(reply),
            Answer::Refused(refusal, message) => Err(self.group_error(ask, stream, group, refusal, &message)),
        }
    }

    fn group_error(&self, ask: Ask<'_>, stream: &StreamId, group: &Group, refusal: Refusal, message: &str) -> Error {
        match refusal {
            Refusal::NoGroup | Refusal::NoKey => Error::NoGroup { stream: stream.clone(), group: group.clone() },
            refusal => self.stream_error(ask, stream, refusal, message),
        }
    }
}

/// The most pending events listed at once.
const LIMIT: usize = 100_000;

/// The longest idle time that the server takes.
const LONGEST: u64 = i64::MAX as u64 / 4;

/// The longest that an event is made to have been idle: ten years. The server counts back from its clock, and where
/// that leads to before 1970, takes the event for one that was handed out just now.
const LONGEST_PAST: Duration = Duration::from_secs(10 * 365 * 86_400);

fn millis(duration: Duration) -> String {
    u64::try_from(duration.as_millis()).unwrap_or(LONGEST).min(LONGEST).to_string()
}

fn read_handed_out(reply: Resp3Frame) -> Result<Vec<Delivery>, Misfit> {
    // One stream was asked for: its name and its entries, as a table or as a list of pairs.
    let entries = match reply {
        Resp3Frame::Null => return Ok(Vec::new()),
        Resp3Frame::Map { data, .. } => data.into_iter().next().map(|(_, entries)| entries),
        other => match reply::list(other)?.into_iter().next() {
            Some(pair) => {
                let [_, entries] = reply::exactly(pair)?;
                Some(entries)
            }
            None => None,
        },
    };
    let entries = read_entries(entries.unwrap_or(Resp3Frame::Null))?;
    Ok(entries.into_iter().map(|entry| Delivery::new(entry, 1)).collect())
}

fn read_claimed(reply: Resp3Frame) -> Result<Claimed, Misfit> {
    let [entries, counts, deleted] = reply::exactly(reply)?;
    let entries = reply::list(entries)?.into_iter().zip(reply::list(counts)?);
    let mut reader = EntryReader::default();
    let deliveries = entries.map(|(entry, count)| Ok(Delivery::new(reader.read(entry)?, reply::count(count)?)));
    let deleted = reply::list(deleted)?.into_iter().map(reply::event_id);
    Ok(Claimed::new(deliveries.collect::<Result<_, Misfit>>()?, deleted.collect::<Result<_, Misfit>>()?))
}

/// Reads a record as `lua/trims.lua` writes it.
fn read_missed(text: &[u8]) -> Option<Missed> {
    let mut parts = std::str::from_utf8(text).ok()?.split(' ');
    let (after, before) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let events = match parts.next()? {
        "?" => None,
        number => Some(number.parse().ok()?),
    };
    parts.next().is_none().then(|| Missed::new(after, before, events))
}

fn read_pending(reply: Resp3Frame) -> Result<Vec<PendingEvent>, Misfit> {
    let event = |item| {
        let [id, consumer, idle, deliveries] = reply::exactly(item)?;
        let consumer = likeness(&reply::bytes(consumer)?).map_err(|error| error.to_string())?;
        // Negative for a moment where clocks were set back.
        let idle = Duration::from_millis(u64::try_from(reply::number(idle)?).unwrap_or(0));
        Ok(PendingEvent::new(reply::event_id(id)?, consumer, idle, reply::count(deliveries)?))
    };
    reply::list(reply)?.into_iter().map(event).collect()
}

/// The name of a consumer, or, where a stranger gave it one that Pulse cannot give, one that comes close.
fn likeness(name: &[u8]) -> Result<Consumer, Error> {
    let text = String::from_utf8_lossy(name);
    Consumer::new(&text).or_else(|_| {
        let start: String = text.chars().take(64).collect();
        Consumer::new(if start.is_empty() { "\u{fffd}" } else { &start })
    })
}

fn find_group(groups: Resp3Frame, group: &Group) -> Result<Option<Fields>, Misfit> {
    for found in reply::list(groups)? {
        let mut fields = Fields::of(found)?;
        if reply::bytes(fields.take("name"))? == group.as_str() {
            return Ok(Some(fields));
        }
    }
    Ok(None)
}

/// How many events were not handed out yet.
///
/// Servers work this out from counters, and some get it wrong after trims and deletions (an emptied stream, or one
/// trimmed past the cursor). So their figure counts only where the two ends of the stream do not decide.
fn lag(group: &GroupInfo, stream: &StreamInfo) -> Option<u64> {
    match stream.first {
        None => Some(0),
        Some(first) if first > group.last_delivered => Some(stream.length),
        Some(_) if stream.last <= group.last_delivered => Some(0),
        Some(_) if stream.max_deleted > group.last_delivered => None,
        Some(_) => group.lag,
    }
}

fn read_detail(reply: Resp3Frame) -> Result<StreamDetail, Misfit> {
    let [stream, bytes, found] = reply::exactly(reply)?;
    let info = read_info(stream)?;
    let mut groups = Vec::new();
    for group in reply::list(found)? {
        let [group, consumers, oldest] = reply::exactly(group)?;
        let mut fields = Fields::of(group)?;
        let name = reply::bytes(fields.take("name"))?;
        let Some(name) = std::str::from_utf8(&name).ok().and_then(|name| Group::new(name).ok()) else {
            tracing::debug!(?name, "a consumer group of a stranger is left out: Pulse gives no such names");
            continue;
        };
        let mut group = read_group(fields, consumers)?;
        group.lag = lag(&group, &info);
        group.oldest_pending = match oldest {
            Resp3Frame::Null | Resp3Frame::Boolean { data: false, .. } => None,
            oldest => Some(reply::event_id(oldest)?),
        };
        groups.push((name, group));
    }
    groups.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(StreamDetail::new(info, reply::count(bytes)?, groups))
}

fn read_group(mut group: Fields, consumers: Resp3Frame) -> Result<GroupInfo, Misfit> {
    let lag = match group.take("lag") {
        Resp3Frame::Null => None,
        lag => Some(reply::count(lag)?),
    };
    let consumer = |found| {
        let mut fields = Fields::of(found)?;
        let name = reply::bytes(fields.take("name"))?;
        let Some(name) = std::str::from_utf8(&name).ok().and_then(|name| Consumer::new(name).ok()) else {
            tracing::debug!(?name, "a consumer of a stranger is left out: Pulse gives no such names");
            return Ok(None);
        };
        let idle = Duration::from_millis(u64::try_from(reply::number(fields.take("idle"))?).unwrap_or(0));
        Ok(Some(ConsumerInfo::new(name, fields.count("pending")?, idle)))
    };
    let consumers = reply::list(consumers)?.into_iter().filter_map(|found| consumer(found).transpose());
    let mut consumers: Vec<_> = consumers.collect::<Result<_, Misfit>>()?;
    consumers.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(GroupInfo::new(group.event_id("last-delivered-id")?, group.count("pending")?, lag, consumers))
}
