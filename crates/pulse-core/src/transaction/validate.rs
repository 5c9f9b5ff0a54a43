//! Checks of a transaction that need nothing but the transaction and the limits.

use std::time::Duration;

use super::{Binding, Deadline, Expectation, Transaction, Write};
use crate::{Error, Limits, name};

/// The longest accepted lifetime of a lease, entry, map or stream: a hundred years.
const MAX_TTL: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

pub(super) fn validate(transaction: &Transaction, limits: &Limits) -> Result<(), Error> {
    let mut bytes = 0;
    for expectation in transaction.expectations() {
        bytes += check_expectation(expectation, limits)?;
    }
    for write in transaction.writes() {
        bytes += check_write(write, limits)?;
    }
    let operations = transaction.expectations().len() + transaction.writes().len();
    limits.check_transaction(transaction.scope().as_str(), operations, bytes)
}

fn check_expectation(expectation: &Expectation, limits: &Limits) -> Result<usize, Error> {
    match expectation {
        Expectation::Equals { map, key, value } => {
            name::check("map", map)?;
            Ok(limits.check_key(map, key)? + limits.check_value(map, key, value.len())?)
        }
        Expectation::Absent { map, key } | Expectation::Present { map, key } => {
            name::check("map", map)?;
            limits.check_key(map, key)
        }
        Expectation::Version { map, .. } | Expectation::FewerThan { map, .. } => {
            name::check("map", map)?;
            Ok(map.len())
        }
        Expectation::LeaseAlive { .. } | Expectation::LeaseExpired { .. } => Ok(8),
        Expectation::StreamExists { stream } | Expectation::ShorterThan { stream, .. } => {
            name::check("stream", stream)?;
            Ok(stream.len())
        }
    }
}

fn check_write(write: &Write, limits: &Limits) -> Result<usize, Error> {
    match write {
        Write::Put { map, key, value, binding } => {
            name::check("map", map)?;
            if let Binding::Ttl(ttl) = binding {
                check_ttl(map, *ttl)?;
            }
            Ok(limits.check_key(map, key)? + limits.check_value(map, key, value.len())?)
        }
        Write::Delete { map, key } | Write::Add { map, key, .. } => {
            name::check("map", map)?;
            limits.check_key(map, key)
        }
        Write::ListAppend { map, key, items, .. } | Write::ListRemove { map, key, items } => {
            name::check("map", map)?;
            let size = items.iter().map(|item| item.len() + 5).sum();
            Ok(limits.check_key(map, key)? + limits.check_value(map, key, size)?)
        }
        Write::Clear { map } | Write::DestroyMap { map } => {
            name::check("map", map)?;
            Ok(map.len())
        }
        Write::ExpireMap { map: name, deadline } | Write::ExpireStream { stream: name, deadline } => {
            name::check("map or stream", name)?;
            if let Deadline::IfUnset(ttl) | Deadline::Renew(ttl) = deadline {
                check_ttl(name, *ttl)?;
            }
            Ok(name.len())
        }
        Write::Append { stream, event } => {
            name::check("stream", stream)?;
            limits.check_event(stream, event)
        }
        Write::TrimStream { stream, .. } | Write::DestroyStream { stream } => {
            name::check("stream", stream)?;
            Ok(stream.len())
        }
        Write::DeleteEvents { stream, ids } | Write::Ack { stream, ids, .. } => {
            name::check("stream", stream)?;
            Ok(stream.len() + 16 * ids.len())
        }
        Write::GrantLease { lease, ttl } | Write::RenewLease { lease, ttl } => {
            check_ttl(&format!("lease {lease}"), *ttl)?;
            Ok(16)
        }
        Write::DropLease { .. } => Ok(8),
    }
}

fn check_ttl(subject: &str, ttl: Duration) -> Result<(), Error> {
    let reason = if ttl < Duration::from_millis(1) {
        "a lifetime must be at least one millisecond"
    } else if ttl > MAX_TTL {
        "a lifetime must be at most a hundred years"
    } else {
        return Ok(());
    };
    Err(Error::InvalidRequest { subject: subject.to_owned(), reason: reason.into() })
}
