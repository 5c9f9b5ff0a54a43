//! Unbound puts into one map, the commonest transactions: a single one, several in one transaction, and single ones of
//! different callers gathered into one command.
//!
//! Their scripts do exactly what the general one would, or nothing: then the general one does it, or says what is
//! wrong.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use fred::types::{Resp3Frame, Value};

use super::{
    Redis,
    commit::{COMMIT, read_version},
    errors::{Ask, Refusal},
    gather::{Given, Kind, Turn},
    link::{Answer, Repeat},
    reply::{self, Misfit},
    scripts::{self, Script},
};
use crate::{Binding, Committed, Error, Revision, Scope, Transaction, Version, Write, WriteResult};

/// The most puts of one transaction that the short script takes; its values travel through the interpreter's stack.
const MOST_PUTS: usize = 1000;

impl Redis {
    /// Carries out a transaction of nothing but unbound puts of different keys into one map; `None` if the general
    /// script has to do it.
    pub(super) async fn commit_puts(
        &self,
        transaction: &Transaction,
        map: &Arc<str>,
    ) -> Result<Option<Committed>, Error> {
        let scope = transaction.scope();
        match transaction.writes() {
            [Write::Put { key, value, .. }] => self.put(scope, map, key, value).await,
            writes => Box::pin(self.put_several(scope, map, writes)).await,
        }
    }

    async fn put(
        &self,
        scope: &Scope,
        map: &Arc<str>,
        key: &Arc<str>,
        value: &Bytes,
    ) -> Result<Option<Committed>, Error> {
        let hash = self.keys.key(scope, "m:", map);
        let feed = || self.keys.key(scope, "f:", map);
        let write = || {
            (
                Puts { scope: scope.clone(), hash: hash.clone(), feed: feed() },
                Put { key: key.clone(), value: value.clone() },
            )
        };
        let done = match self.puts.turn(&hash, write).await? {
            Turn::Together(given) => given,
            Turn::Alone(_flight, _) => {
                let arguments = |all: &mut Vec<Value>| {
                    all.push(Value::Bytes(hash.clone()));
                    all.push(Value::Bytes(feed()));
                    all.push(Value::Bytes(Bytes::copy_from_slice(key.as_bytes())));
                    all.push(Value::Bytes(value.clone()));
                };
                let ask = Ask::new(COMMIT, scope);
                match Box::pin(self.link.run(ask, Repeat::Never, &scripts::PUT, 1, arguments)).await? {
                    Answer::Reply(reply) => Ok(read_put(reply).map_err(|misfit| ask.protocol(misfit))?),
                    Answer::Refused(refusal, message) => Err((refusal, message)),
                }
            }
        };
        match done {
            Ok(Some((version, previous))) => {
                Ok(Some(Committed::new(vec![WriteResult::Previous(previous)], vec![(map.clone(), Some(version))])))
            }
            Ok(None) | Err((Refusal::WrongType, _)) => Ok(None),
            Err((refusal, message)) => Err(self.link.error(Ask::new(COMMIT, scope), refusal, &message)),
        }
    }

    async fn put_several(&self, scope: &Scope, map: &Arc<str>, writes: &[Write]) -> Result<Option<Committed>, Error> {
        let arguments = |all: &mut Vec<Value>| {
            all.reserve_exact(3 + 2 * writes.len());
            all.push(Value::Bytes(self.keys.key(scope, "m:", map)));
            all.push(Value::Bytes(self.keys.key(scope, "f:", map)));
            all.push(Value::from_static_str("1"));
            for write in writes {
                if let Write::Put { key, value, .. } = write {
                    all.push(Value::Bytes(Bytes::copy_from_slice(key.as_bytes())));
                    all.push(Value::Bytes(value.clone()));
                }
            }
        };
        let ask = Ask::new(COMMIT, scope);
        let reply = match self.link.run(ask, Repeat::Never, &scripts::PUTS, 1, arguments).await? {
            Answer::Reply(reply) => reply,
            Answer::Refused(Refusal::WrongType, _) => return Ok(None),
            Answer::Refused(refusal, message) => return Err(self.link.error(ask, refusal, &message)),
        };
        let Some((version, previous)) = read_puts(reply, writes.len()).map_err(|misfit| ask.protocol(misfit))? else {
            return Ok(None);
        };
        let results = previous.into_iter().map(WriteResult::Previous).collect();
        Ok(Some(Committed::new(results, vec![(map.clone(), Some(version))])))
    }
}

/// The map, if the transaction is nothing but unbound puts of different keys into it.
pub(super) fn one_map(transaction: &Transaction) -> Option<&Arc<str>> {
    let writes = transaction.writes();
    let Some(Write::Put { map: first, .. }) = writes.first() else { return None };
    if !transaction.expectations().is_empty() || writes.len() > MOST_PUTS {
        return None;
    }
    let mut keys = HashSet::new();
    let fits = writes.iter().all(|write| match write {
        Write::Put { map, key, binding: Binding::Permanent, .. } => {
            map == first && (writes.len() == 1 || keys.insert(key))
        }
        _ => false,
    });
    fits.then_some(first)
}

/// Single puts of different callers into one map.
#[derive(Debug, Clone)]
pub(super) struct Puts {
    scope: Scope,
    hash: Bytes,
    feed: Bytes,
}

#[derive(Debug)]
pub(super) struct Put {
    key: Arc<str>,
    value: Bytes,
}

impl Kind for Puts {
    type Item = Put;
    /// The version that the put made, and the previous value; `None` if the general script has to do it.
    type Share = Option<(Version, Option<Bytes>)>;

    fn script() -> &'static Script {
        &scripts::PUTS
    }

    fn key(&self) -> &Bytes {
        &self.hash
    }

    fn repeat(&self) -> Repeat {
        Repeat::Never
    }

    fn weight(put: &Put) -> usize {
        put.key.len() + put.value.len()
    }

    fn ask(&self) -> Ask<'_> {
        Ask::new(COMMIT, &self.scope)
    }

    fn arguments(&self, puts: &[Put], arguments: &mut Vec<Value>) {
        arguments.reserve_exact(2 + 2 * puts.len());
        arguments.push(Value::Bytes(self.feed.clone()));
        arguments.push(Value::from(puts.len().to_string()));
        for put in puts {
            arguments.push(Value::Bytes(Bytes::copy_from_slice(put.key.as_bytes())));
            arguments.push(Value::Bytes(put.value.clone()));
        }
    }

    fn share(reply: Resp3Frame, puts: &[Put]) -> Result<Vec<Given<Self::Share>>, Misfit> {
        let Some((first, mut previous)) = read_puts(reply, puts.len())? else {
            return Ok(puts.iter().map(|_| Ok(None)).collect());
        };
        // The server told what stood before all of them; a key's later puts replace the value of its earlier ones.
        let mut put_before = HashMap::with_capacity(puts.len());
        for (put, previous) in puts.iter().zip(&mut previous) {
            if let Some(value) = put_before.insert(&put.key, &put.value) {
                *previous = Some(value.clone());
            }
        }
        let versions = (first.revision.0..).map(|revision| Version { revision: Revision(revision), ..first });
        Ok(versions.zip(previous).map(|share| Ok(Some(share))).collect())
    }
}

/// Reads the reply to a single put; `None` if the script left it to the general one.
fn read_put(reply: Resp3Frame) -> Result<Option<(Version, Option<Bytes>)>, Misfit> {
    if !matches!(reply, Resp3Frame::Array { .. }) {
        return Ok(None);
    }
    let [version, previous] = reply::exactly(reply)?;
    let version = read_version(version)?.ok_or("the version is empty")?;
    Ok(Some((version, reply::optional_bytes(previous)?)))
}

/// The version after the first put, and the value that each key had before all of them.
type Replaced = (Version, Vec<Option<Bytes>>);

/// Reads the reply to several puts; `None` if the script left them to the general one.
fn read_puts(reply: Resp3Frame, count: usize) -> Result<Option<Replaced>, Misfit> {
    let Resp3Frame::Array { data, .. } = reply else { return Ok(None) };
    let mut items = data.into_iter();
    let version = read_version(items.next().ok_or("the version is missing")?)?.ok_or("the version is empty")?;
    let previous: Vec<_> = items.map(reply::optional_bytes).collect::<Result<_, Misfit>>()?;
    if previous.len() != count {
        return Err("another number of results than of writes".to_owned());
    }
    Ok(Some((version, previous)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &'static str) -> Resp3Frame {
        Resp3Frame::BlobString { data: Bytes::from_static(text.as_bytes()), attributes: None }
    }

    fn put(key: &str, value: &'static str) -> Put {
        Put { key: key.into(), value: Bytes::from_static(value.as_bytes()) }
    }

    #[test]
    fn each_of_gathered_puts_gets_the_revision_and_the_previous_value_of_its_place() {
        let data = vec![string("00000000000000ff7"), string("old"), Resp3Frame::Null, string("old")];
        let reply = Resp3Frame::Array { data, attributes: None };
        let shares = Puts::share(reply, &[put("a", "1"), put("b", "2"), put("a", "3")]).unwrap();
        let shares: Vec<_> = shares.into_iter().map(|share| share.unwrap().unwrap()).collect();
        let revisions: Vec<_> = shares.iter().map(|(version, _)| version.revision.0).collect();
        assert_eq!(revisions, [7, 8, 9]);
        let previous: Vec<_> = shares.iter().map(|(_, previous)| previous.as_deref()).collect();
        assert_eq!(previous, [Some(&b"old"[..]), None, Some(b"1")]);
    }

    #[test]
    fn puts_that_the_script_left_alone_are_all_left_to_the_general_one() {
        let reply = Resp3Frame::Number { data: 0, attributes: None };
        let shares = Puts::share(reply, &[put("a", "1"), put("b", "2")]).unwrap();
        assert!(shares.into_iter().all(|share| share.unwrap().is_none()));
    }

    #[test]
    fn an_answer_for_another_number_of_puts_is_refused() {
        let reply = Resp3Frame::Array { data: vec![string("00000000000000ff7"), string("old")], attributes: None };
        assert!(Puts::share(reply, &[put("a", "1"), put("b", "2")]).is_err());
    }
}
