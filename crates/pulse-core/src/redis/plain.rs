//! Transactions that only compare, put and delete entries, perhaps of several maps and as long as a lease lives: what
//! most protocols on maps are made of, a compare-and-set as much as a job that changes hands.
//!
//! The script does exactly what the general one would, or nothing: then the general one does it, or says what is wrong.
//! It gets a plan of fixed form in place of a program, so that it has nothing to interpret.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use fred::types::{Resp3Frame, Value};
use rmp::encode::write_sint;

use super::{
    Redis,
    commit::{COMMIT, expectation_failed, read_version},
    encode::millis,
    errors::{Ask, Refusal},
    keys::Keys,
    link::Answer,
    reply::{self, Misfit},
    scripts,
};
use crate::{
    Binding, Committed, Error, Expectation, FailedExpectation, Found, LeaseId, Transaction, Write, WriteResult,
};

/// The most keys of one map; they travel through the interpreter's stack, some with a value.
const MOST_KEYS: usize = 1000;

/// The most maps; their plans travel there too.
const MOST_MAPS: usize = 100;

/// The place of the first channel among the script's arguments, which count from 1.
const CHANNELS: usize = 4;

impl Redis {
    /// Carries out a transaction of puts that are not bound to leases, deletions and comparisons; `None` if it is not
    /// one, or if the general script has to do it.
    pub(super) async fn commit_plainly(&self, transaction: &Transaction) -> Result<Option<Committed>, Error> {
        let Some(plan) = Plan::of(transaction) else { return Ok(None) };
        let scope = transaction.scope();
        let (keys, arguments) = plan.encode(&self.keys, transaction);
        let ask = Ask::new(COMMIT, scope);
        let run = self.link.run(ask, self.repeat(transaction), &scripts::PLAIN, keys, |all| {
            all.extend_from_slice(&arguments);
        });
        let reply = match run.await? {
            Answer::Reply(reply) => reply,
            Answer::Refused(Refusal::WrongType, _) => return Ok(None),
            Answer::Refused(refusal, message) => return Err(self.link.error(ask, refusal, &message)),
        };
        match plan.read(transaction, reply).map_err(|misfit| ask.protocol(misfit))? {
            Outcome::Committed(committed) => Ok(Some(committed)),
            Outcome::Failed(failed) => Err(expectation_failed(scope, *failed)),
            Outcome::Left => Ok(None),
        }
    }
}

/// What the script answered.
enum Outcome {
    Committed(Committed),
    Failed(Box<FailedExpectation>),
    /// The general script has to do it.
    Left,
}

/// How a transaction is carried out, map by map.
#[derive(Default)]
struct Plan<'a> {
    /// First those that are written, in the order in which the writes name them.
    maps: Vec<MapPlan<'a>>,
    written: usize,
    lease: Option<LeaseId>,
    /// For each write the map, and the place of the value that stood there among those that were read; `None` if nobody
    /// asks for it.
    previous: Option<Vec<(usize, usize)>>,
}

/// What is done with one map.
struct MapPlan<'a> {
    name: &'a Arc<str>,
    absent: Vec<&'a Arc<str>>,
    equal: Vec<(&'a Arc<str>, &'a Bytes)>,
    present: Vec<&'a Arc<str>>,
    /// Keys that are put and not compared.
    others: Vec<&'a Arc<str>>,
    puts: Vec<(&'a Arc<str>, &'a Bytes)>,
    /// For how long the puts are, in milliseconds; empty if they are for good.
    ttls: Vec<u64>,
    deletions: Vec<&'a Arc<str>>,
    fewer_than: Option<u64>,
}

impl<'a> MapPlan<'a> {
    fn new(name: &'a Arc<str>) -> Self {
        Self {
            name,
            absent: Vec::new(),
            equal: Vec::new(),
            present: Vec::new(),
            others: Vec::new(),
            puts: Vec::new(),
            ttls: Vec::new(),
            deletions: Vec::new(),
            fewer_than: None,
        }
    }

    /// The keys to read, in order: those that are deleted come last.
    fn read(&self) -> impl Iterator<Item = &'a Arc<str>> {
        let compared = self.absent.iter().copied().chain(self.equal.iter().map(|(key, _)| *key));
        let unchanged = self.present.iter().chain(&self.others).copied();
        compared.chain(unchanged).chain(self.deletions.iter().copied())
    }

    /// How long the keys are, each as often as it is sent.
    fn text_bytes(&self) -> usize {
        self.read().map(|key| key.len()).sum::<usize>() + self.puts.iter().map(|(key, _)| key.len()).sum::<usize>()
    }

    fn deletes_what_it_puts(&self) -> bool {
        if self.puts.is_empty() || self.deletions.is_empty() {
            return false;
        }
        let deletions: HashSet<_> = self.deletions.iter().collect();
        self.puts.iter().any(|(key, _)| deletions.contains(key))
    }

    fn count(&self) -> usize {
        self.absent.len() + self.equal.len() + self.present.len() + self.others.len() + self.deletions.len()
    }
}

/// What is left of the keys.
struct Texts(Bytes);

impl Texts {
    fn next(&mut self, key: &str) -> Value {
        Value::Bytes(self.0.split_to(key.len()))
    }
}

impl<'a> Plan<'a> {
    /// `None` if the transaction is more than comparisons, puts that are not bound to leases, and deletions.
    fn of(transaction: &'a Transaction) -> Option<Self> {
        // Without a map there is no key to send the script to.
        transaction.writes().first()?;
        let mut plan = Self::default();
        for write in transaction.writes() {
            match write {
                Write::Put { map, key, value, binding } => {
                    let place = plan.map(map);
                    if !plan.maps[place].deletions.is_empty() {
                        // The script puts first, and tells of the changes in the order of the writes.
                        return None;
                    }
                    plan.maps[place].puts.push((key, value));
                    match binding {
                        Binding::Permanent => {}
                        Binding::Ttl(ttl) => plan.maps[place].ttls.push(millis(*ttl)),
                        Binding::Lease(_) | Binding::Session { .. } => return None,
                    }
                }
                Write::Delete { map, key } => {
                    let place = plan.map(map);
                    plan.maps[place].deletions.push(key);
                }
                _ => return None,
            }
        }
        plan.written = plan.maps.len();
        for expectation in transaction.expectations() {
            match expectation {
                Expectation::Absent { map, key } => {
                    let place = plan.map(map);
                    plan.maps[place].absent.push(key);
                }
                Expectation::Equals { map, key, value } => {
                    let place = plan.map(map);
                    plan.maps[place].equal.push((key, value));
                }
                Expectation::Present { map, key } => {
                    let place = plan.map(map);
                    plan.maps[place].present.push(key);
                }
                Expectation::FewerThan { map, entries } => {
                    let place = plan.map(map);
                    let least = plan.maps[place].fewer_than.map_or(*entries, |before| before.min(*entries));
                    plan.maps[place].fewer_than = Some(least);
                }
                Expectation::LeaseAlive { lease } if plan.lease.is_none_or(|before| before == *lease) => {
                    plan.lease = Some(*lease);
                }
                _ => return None,
            }
        }
        if transaction.is_without_previous() { plan.suits().then_some(plan) } else { plan.locate(transaction.writes()) }
    }

    fn map(&mut self, name: &'a Arc<str>) -> usize {
        self.maps.iter().position(|map| map.name == name).unwrap_or_else(|| {
            self.maps.push(MapPlan::new(name));
            self.maps.len() - 1
        })
    }

    /// Whether the script can do it.
    fn suits(&self) -> bool {
        self.maps.len() <= MOST_MAPS
            && self.maps.iter().all(|map| {
                map.count() <= MOST_KEYS
                // They are told in one message.
                && map.puts.len() + map.deletions.len() <= MOST_KEYS
                // All for a time, or none.
                && (map.ttls.is_empty() || map.ttls.len() == map.puts.len())
                // The second deletion of a key is none, and its second put replaces the first.
                && !repeats(map.deletions.iter().copied())
                && !map.deletes_what_it_puts()
                && (self.previous.is_none() || !repeats(map.puts.iter().map(|(key, _)| *key)))
            })
    }

    /// Finds out where the previous value of each written key will stand. `None` if the plan does not suit the script.
    fn locate(mut self, writes: &'a [Write]) -> Option<Self> {
        let mut places: Vec<HashMap<&str, usize>> = Vec::with_capacity(self.written);
        for map in &mut self.maps {
            if map.puts.is_empty() && map.deletions.is_empty() {
                continue;
            }
            let compared = map.absent.len() + map.equal.len() + map.present.len();
            let mut of_map = HashMap::with_capacity(map.puts.len() + map.deletions.len());
            if compared > 0 && !map.puts.is_empty() {
                of_map.extend(map.read().enumerate().map(|(place, key)| (&**key, place)));
            }
            for (key, _) in &map.puts {
                if !of_map.contains_key(&***key) {
                    of_map.insert(key, compared + map.others.len());
                    map.others.push(key);
                }
            }
            let before = compared + map.others.len();
            of_map.extend(map.deletions.iter().enumerate().map(|(place, key)| (&***key, before + place)));
            places.push(of_map);
        }
        let mut previous = Vec::with_capacity(writes.len());
        for write in writes {
            let (Write::Put { map, key, .. } | Write::Delete { map, key }) = write else { return None };
            let at = self.maps.iter().position(|other| other.name == map)?;
            previous.push((at, *places.get(at)?.get(&**key)?));
        }
        self.previous = Some(previous);
        self.suits().then_some(self)
    }

    /// All keys as they will be asked for, in one piece of memory.
    fn texts(&self) -> Texts {
        let mut all = Vec::with_capacity(self.maps.iter().map(MapPlan::text_bytes).sum());
        for map in &self.maps {
            let puts = map.puts.iter().map(|(key, _)| *key);
            map.read().chain(puts).for_each(|key| all.extend_from_slice(key.as_bytes()));
        }
        Texts(all.into())
    }

    /// The arguments of the script, and how many of them are keys.
    fn encode(&self, keys: &Keys, transaction: &Transaction) -> (usize, Vec<Value>) {
        let scope = transaction.scope();
        let key = |kind, map: &MapPlan<'_>| Value::Bytes(keys.key(scope, kind, map.name));
        let channels = self.maps[..self.written].iter().map(|map| key("f:", map));
        let mut numbers = Vec::with_capacity(1 + 22 * self.maps.len());
        let mut number = |number| {
            // Writing to a vector cannot fail.
            let _ = write_sint(&mut numbers, number);
        };
        number(i64::from(self.previous.is_none()));
        let mut strings: Vec<Value> = channels.collect();
        let mut texts = self.texts();
        for map in &self.maps {
            let first = CHANNELS + strings.len();
            let absent = first + map.absent.len();
            let equal = absent + map.equal.len();
            strings.extend(map.read().map(|key| texts.next(key)));
            let last = first + map.count();
            strings.extend(map.equal.iter().map(|(_, value)| Value::Bytes((*value).clone())));
            let values = last + map.equal.len();
            for (key, value) in &map.puts {
                strings.extend([texts.next(key), Value::Bytes((*value).clone())]);
            }
            let (puts, from, to) = match map.puts.len() {
                0 => (0, 0, 0),
                count => (if map.ttls.is_empty() { 1 } else { 2 }, values, values + 2 * count),
            };
            let gone = if map.deletions.is_empty() { 0 } else { last - map.deletions.len() };
            strings.extend(map.ttls.iter().map(|ttl| Value::Bytes(ttl.to_string().into())));
            let ends = [absent, equal, equal + map.present.len(), last].map(|end| end - 1);
            let most = map
                .fewer_than
                .map_or(-1, |most| i64::try_from(most).unwrap_or(i64::MAX).min(super::encode::LARGEST as i64));
            let places = [first, ends[0], ends[1], ends[2], ends[3], last, puts, from, to.saturating_sub(1)];
            places.iter().for_each(|place| number(*place as i64));
            number(most);
            number(gone as i64);
        }
        let mut all = Vec::with_capacity(self.maps.len() + 3 + strings.len());
        all.extend(self.maps.iter().map(|map| key("m:", map)));
        all.push(Value::Bytes(numbers.into()));
        all.push(Value::Bytes(keys.scope(scope).into()));
        all.push(Value::Bytes(self.lease.map(|lease| lease.to_string()).unwrap_or_default().into()));
        all.append(&mut strings);
        (self.maps.len(), all)
    }

    fn read(&self, transaction: &Transaction, reply: Resp3Frame) -> Result<Outcome, Misfit> {
        if !matches!(reply, Resp3Frame::Array { .. }) {
            return Ok(Outcome::Left);
        }
        let items = reply::list(reply)?;
        match items.first() {
            Some(Resp3Frame::Array { .. }) => {
                self.read_committed(items, transaction.writes().len()).map(Outcome::Committed)
            }
            _ => {
                let failed = self.read_failed(transaction, items)?;
                Ok(failed.map_or(Outcome::Left, |failed| Outcome::Failed(Box::new(failed))))
            }
        }
    }

    fn read_committed(&self, items: Vec<Resp3Frame>, writes: usize) -> Result<Committed, Misfit> {
        if items.len() != self.written {
            return Err("another number of maps than were written".to_owned());
        }
        let mut found = items.into_iter().map(reply::list).collect::<Result<Vec<_>, Misfit>>()?;
        let result = |(map, place): &(usize, usize)| {
            let value = found.get_mut(*map).and_then(|found| found.get_mut(*place + 1)).ok_or("a value is missing")?;
            Ok(WriteResult::Previous(reply::optional_bytes(std::mem::replace(value, Resp3Frame::Null))?))
        };
        let results = match &self.previous {
            Some(previous) => previous.iter().map(result).collect::<Result<_, Misfit>>()?,
            None => vec![WriteResult::Done; writes],
        };
        let versions = self.maps.iter().zip(found).map(|(map, found)| {
            let version = found.into_iter().next().ok_or("a version is missing")?;
            Ok((map.name.clone(), read_version(version)?))
        });
        Ok(Committed::new(results, versions.collect::<Result<_, Misfit>>()?))
    }

    /// The first expectation that did not hold.
    fn read_failed(
        &self,
        transaction: &Transaction,
        items: Vec<Resp3Frame>,
    ) -> Result<Option<FailedExpectation>, Misfit> {
        let mut items = items.into_iter();
        let mut next = || items.next().ok_or("an answer that ends early");
        let alive = reply::number(next()?)? == 1;
        let mut found = Vec::with_capacity(self.maps.len());
        for map in &self.maps {
            let count = reply::count(next()?)?;
            let values = reply::list(next()?)?.into_iter().skip(1).map(reply::optional_bytes);
            let values = values.collect::<Result<Vec<_>, Misfit>>()?;
            let values: HashMap<_, _> = map.read().zip(values).collect();
            found.push((map.name, count, values));
        }
        let of_map = |name: &Arc<str>| found.iter().find(|(map, ..)| *map == name).ok_or("a map is missing");
        for (index, expectation) in transaction.expectations().iter().enumerate() {
            let failed = match expectation {
                Expectation::Absent { map, key } => {
                    let value = of_map(map)?.2.get(key).cloned().flatten();
                    value.is_some().then_some(Found::Value(value))
                }
                Expectation::Equals { map, key, value: expected } => {
                    let value = of_map(map)?.2.get(key).cloned().flatten();
                    (value.as_ref() != Some(expected)).then_some(Found::Value(value))
                }
                Expectation::Present { map, key } => {
                    let value = of_map(map)?.2.get(key).cloned().flatten();
                    value.is_none().then_some(Found::Value(None))
                }
                Expectation::FewerThan { map, entries } => {
                    let count = of_map(map)?.1;
                    (count >= *entries).then_some(Found::Count(count))
                }
                Expectation::LeaseAlive { .. } => (!alive).then_some(Found::LeaseExpired),
                _ => None,
            };
            if let Some(found) = failed {
                return Ok(Some(FailedExpectation::new(index, expectation.clone(), found)));
            }
        }
        Ok(None)
    }
}

/// Whether any key is there twice.
fn repeats<'a>(keys: impl ExactSizeIterator<Item = &'a Arc<str>>) -> bool {
    let count = keys.len();
    count > 1 && keys.collect::<HashSet<_>>().len() < count
}

#[cfg(test)]
mod tests;
