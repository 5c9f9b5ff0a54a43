//! Reading maps.

use std::sync::Arc;

use bytes::Bytes;
use fred::types::{Resp3Frame, Value};

use super::{
    Redis,
    commit::parse_header,
    errors::{Ask, Refusal},
    link::{Answer, Repeat, Route},
    reply::{self, Misfit},
};
use crate::{Cursor, Error, MapId, MapPage, Version};

impl Redis {
    pub(super) async fn read_version(&self, map: &MapId) -> Result<Option<Version>, Error> {
        let ask = Ask::new("read the version", map);
        let key = self.keys.map(map);
        // Several fields, because the client library takes a single value that begins with MOVED for a redirection.
        let reply =
            self.map_call(ask, map, "HMGET", || vec![Value::Bytes(key.clone()), Value::from_static_str("")]).await?;
        let read = || {
            let [header] = reply::exactly(reply)?;
            reply::optional_bytes(header)
        };
        let Some(header) = read().map_err(|misfit: Misfit| ask.protocol(misfit))? else { return Ok(None) };
        let version = std::str::from_utf8(&header).ok().and_then(parse_header);
        match version {
            Some(version) => Ok(Some(version)),
            None => Err(Error::Corrupt {
                key: String::from_utf8_lossy(&key).into_owned(),
                reason: "the header of the map is not one".into(),
            }),
        }
    }

    pub(super) async fn read_page(&self, map: &MapId, cursor: Option<&Cursor>, limit: usize) -> Result<MapPage, Error> {
        let ask = Ask::new("read a page", map);
        let key = self.keys.map(map);
        let cursor = cursor.map_or("0", |cursor| cursor.0.as_str());
        if cursor.is_empty() || !cursor.bytes().all(|byte| byte.is_ascii_digit()) || cursor.parse::<u64>().is_err() {
            let reason = format!("{cursor:?} is not a cursor that this backend made");
            return Err(Error::InvalidRequest { subject: format!("map {map}"), reason });
        }
        let limit = limit.clamp(1, 10_000).to_string();
        let args = || {
            vec![
                Value::Bytes(key.clone()),
                Value::from(cursor),
                Value::from_static_str("COUNT"),
                Value::from(limit.as_str()),
            ]
        };
        let reply = self.map_call(ask, map, "HSCAN", args).await?;
        read_page(reply).map_err(|misfit| ask.protocol(misfit))
    }

    pub(super) async fn read_values(&self, map: &MapId, keys: &[&str]) -> Result<Vec<Option<Bytes>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let ask = Ask::new("read", map);
        let key = self.keys.map(map);
        let args = || {
            let mut args = Vec::with_capacity(1 + keys.len());
            args.push(Value::Bytes(key.clone()));
            args.extend(keys.iter().map(|key| Value::from(*key)));
            args
        };
        let reply = self.map_call(ask, map, "HMGET", args).await?;
        let read = || {
            let values: Vec<_> =
                reply::list(reply)?.into_iter().map(reply::optional_bytes).collect::<Result<_, _>>()?;
            if values.len() == keys.len() {
                Ok(values)
            } else {
                Err("another number of values than of keys".to_owned())
            }
        };
        let mut values = read().map_err(|misfit| ask.protocol(misfit))?;
        for (key, value) in keys.iter().zip(&mut values) {
            // There the header stands, which is no entry.
            if key.is_empty() {
                *value = None;
            }
        }
        Ok(values)
    }

    async fn map_call(
        &self,
        ask: Ask<'_>,
        map: &MapId,
        command: &'static str,
        args: impl Fn() -> Vec<Value> + Send + Sync,
    ) -> Result<Resp3Frame, Error> {
        match self.link.try_call(ask, Repeat::Freely, command, Route::Key(0), args).await? {
            Answer::Reply(reply) => Ok(reply),
            Answer::Refused(Refusal::WrongType, _) => {
                Err(Error::WrongType { key: String::from_utf8_lossy(&self.keys.map(map)).into_owned() })
            }
            Answer::Refused(refusal, message) => Err(self.link.error(ask, refusal, &message)),
        }
    }
}

fn read_page(reply: Resp3Frame) -> Result<MapPage, Misfit> {
    let [next, fields] = reply::exactly(reply)?;
    let next = reply::text(next)?;
    let mut page = MapPage::default();
    let mut fields = reply::list(fields)?.into_iter();
    while let (Some(key), Some(value)) = (fields.next(), fields.next()) {
        let key = reply::bytes(key)?;
        if key.is_empty() {
            continue;
        }
        match std::str::from_utf8(&key) {
            Ok(key) => page.entries.push((Arc::from(key), reply::bytes(value)?)),
            Err(_) => page.skipped += 1,
        }
    }
    page.next = (next != "0").then_some(Cursor(next));
    Ok(page)
}
