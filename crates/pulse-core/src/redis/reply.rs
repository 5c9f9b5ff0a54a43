//! Reading the server's answers, which are never trusted to have the right shape.

use bytes::Bytes;
use fred::types::Resp3Frame;

use crate::EventId;

/// What does not fit the expected shape, and why.
pub(super) type Misfit = String;

fn kind(frame: &Resp3Frame) -> &'static str {
    match frame {
        Resp3Frame::BlobString { .. } | Resp3Frame::SimpleString { .. } | Resp3Frame::VerbatimString { .. } => {
            "a string"
        }
        Resp3Frame::Number { .. } => "a number",
        Resp3Frame::Null => "nothing",
        Resp3Frame::Array { .. } | Resp3Frame::Push { .. } | Resp3Frame::Set { .. } => "a list",
        Resp3Frame::Map { .. } => "a table",
        Resp3Frame::SimpleError { .. } | Resp3Frame::BlobError { .. } => "an error",
        _ => "something else",
    }
}

fn misfit(expected: &str, frame: &Resp3Frame) -> Misfit {
    format!("expected {expected}, found {}", kind(frame))
}

pub(super) fn bytes(frame: Resp3Frame) -> Result<Bytes, Misfit> {
    match frame {
        Resp3Frame::BlobString { data, .. }
        | Resp3Frame::SimpleString { data, .. }
        | Resp3Frame::VerbatimString { data, .. } => Ok(data),
        Resp3Frame::Number { data, .. } => Ok(data.to_string().into()),
        other => Err(misfit("a string", &other)),
    }
}

/// A string, or `None` for null.
pub(super) fn optional_bytes(frame: Resp3Frame) -> Result<Option<Bytes>, Misfit> {
    match frame {
        // Scripts say `false` for nothing, which one version of the protocol makes null of, and the other may not.
        Resp3Frame::Null | Resp3Frame::Boolean { data: false, .. } => Ok(None),
        other => bytes(other).map(Some),
    }
}

pub(super) fn text(frame: Resp3Frame) -> Result<String, Misfit> {
    let bytes = bytes(frame)?;
    String::from_utf8(bytes.into()).map_err(|_| "expected text, found bytes that are not UTF-8".to_owned())
}

pub(super) fn number(frame: Resp3Frame) -> Result<i64, Misfit> {
    match frame {
        Resp3Frame::Number { data, .. } => Ok(data),
        Resp3Frame::Boolean { data, .. } => Ok(i64::from(data)),
        other => text(other)?.parse().map_err(|_| "expected a number, found other text".to_owned()),
    }
}

pub(super) fn count(frame: Resp3Frame) -> Result<u64, Misfit> {
    u64::try_from(number(frame)?).map_err(|_| "expected a count, found a negative number".to_owned())
}

pub(super) fn event_id(frame: Resp3Frame) -> Result<EventId, Misfit> {
    let bytes = bytes(frame)?;
    let id = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
    id.ok_or_else(|| format!("expected an event id, found {:?}", String::from_utf8_lossy(&bytes)))
}

/// A list; null is an empty one, and a table is keys and values in turn.
pub(super) fn list(frame: Resp3Frame) -> Result<Vec<Resp3Frame>, Misfit> {
    match frame {
        Resp3Frame::Array { data, .. } | Resp3Frame::Push { data, .. } => Ok(data),
        Resp3Frame::Set { data, .. } => Ok(data.into_iter().collect()),
        Resp3Frame::Map { data, .. } => Ok(data.into_iter().flat_map(|(key, value)| [key, value]).collect()),
        Resp3Frame::Null => Ok(Vec::new()),
        other => Err(misfit("a list", &other)),
    }
}

/// A list of known length.
pub(super) fn exactly<const N: usize>(frame: Resp3Frame) -> Result<[Resp3Frame; N], Misfit> {
    let items = list(frame)?;
    let found = items.len();
    items.try_into().map_err(|_| format!("expected a list of {N}, found {found}"))
}

/// The fields of an answer of `XINFO` and the like, by name.
pub(super) struct Fields(Vec<Resp3Frame>);

impl Fields {
    pub(super) fn of(frame: Resp3Frame) -> Result<Self, Misfit> {
        list(frame).map(Self)
    }

    /// Takes a field; null if it is missing.
    pub(super) fn take(&mut self, name: &str) -> Resp3Frame {
        let is_named = |frame: &Resp3Frame| match frame {
            Resp3Frame::BlobString { data, .. } | Resp3Frame::SimpleString { data, .. } => data == name,
            _ => false,
        };
        let place = self.0.iter().step_by(2).position(is_named);
        match place.and_then(|place| self.0.get_mut(place * 2 + 1)) {
            Some(value) => std::mem::replace(value, Resp3Frame::Null),
            None => Resp3Frame::Null,
        }
    }

    pub(super) fn count(&mut self, name: &str) -> Result<u64, Misfit> {
        count(self.take(name)).map_err(|misfit| format!("{name}: {misfit}"))
    }

    pub(super) fn event_id(&mut self, name: &str) -> Result<EventId, Misfit> {
        event_id(self.take(name)).map_err(|misfit| format!("{name}: {misfit}"))
    }
}
