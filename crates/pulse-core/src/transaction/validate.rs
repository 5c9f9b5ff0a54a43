//! Checks of a transaction that need nothing but the transaction and the limits.

use std::time::Duration;

use super::{Binding, Deadline, Expectation, MAX_ONCE_LEN, Once, Transaction, Write};
use crate::{Error, Limits, Scope, limits::within, name};

/// The shortest accepted lifetime of a lease, entry, map, stream or once-id: the unit in which servers count.
pub const MIN_LIFETIME: Duration = Duration::from_millis(1);

/// The longest accepted lifetime of a lease, entry, map, stream or once-id: a hundred years. No time that is added to a
/// clock may be longer, so that no sum overflows.
pub const MAX_LIFETIME: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

pub(super) fn validate(transaction: &Transaction, limits: &Limits) -> Result<(), Error> {
    let mut bytes = 0;
    for expectation in transaction.expectations() {
        bytes += check_expectation(expectation, limits)?;
    }
    for write in transaction.writes() {
        if let Write::Put { map, binding: Binding::Session { lease, scope }, .. }
        | Write::Add { map, binding: Binding::Session { lease, scope }, .. } = write
            && scope != transaction.scope()
        {
            let subject = format!("the session with lease {lease} that an entry of map {map} is bound to");
            return Err(other_scope(transaction, &subject, scope));
        }
        bytes += check_write(write, limits)?;
    }
    let operations = transaction.expectations().len() + transaction.writes().len();
    limits.check_transaction(transaction.scope().as_str(), operations, bytes)
}

pub(super) fn other_scope(transaction: &Transaction, subject: &str, scope: &Scope) -> Error {
    let (scope, transaction) = (scope.to_string(), transaction.scope().to_string());
    Error::OtherScope { subject: subject.to_owned(), scope, transaction }
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
            check_binding(map, binding)?;
            Ok(limits.check_key(map, key)? + limits.check_value(map, key, value.len())?)
        }
        Write::Add { map, key, binding, .. } => {
            name::check("map", map)?;
            check_binding(map, binding)?;
            limits.check_key(map, key)
        }
        Write::Delete { map, key } => {
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
        Write::Append { stream, event, once } => {
            name::check("stream", stream)?;
            let once = once.as_ref().map_or(Ok(0), |once| check_once(stream, once))?;
            Ok(limits.check_event(stream, event)? + once)
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

fn check_binding(map: &str, binding: &Binding) -> Result<(), Error> {
    match binding {
        Binding::Ttl(ttl) => check_ttl(map, *ttl),
        Binding::Permanent | Binding::Lease(_) | Binding::Session { .. } => Ok(()),
    }
}

fn check_once(stream: &str, once: &Once) -> Result<usize, Error> {
    if once.id.is_empty() {
        return Err(Error::InvalidRequest {
            subject: format!("stream {stream}"),
            reason: "the once-id is empty".into(),
        });
    }
    check_ttl(stream, once.window)?;
    within("the once-id in bytes", stream, once.id.len(), MAX_ONCE_LEN)
}

fn check_ttl(subject: &str, ttl: Duration) -> Result<(), Error> {
    if (MIN_LIFETIME..=MAX_LIFETIME).contains(&ttl) {
        return Ok(());
    }
    let reason = format!("a lifetime of {ttl:?} is not from a millisecond to a hundred years");
    Err(Error::InvalidRequest { subject: subject.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Duplicates, EventId, LeaseId, NewEvent, Scope};

    fn begin() -> Transaction {
        Transaction::new(&Scope::new("s").expect("a valid name"))
    }

    fn check(transaction: &Transaction) -> Result<(), Error> {
        validate(transaction, &Limits::default())
    }

    #[test]
    fn what_fits_passes_also_if_it_does_nothing() {
        assert!(check(&begin()).is_ok());
        assert!(check(&begin().put("m", "k", "").list_append("m", "k", vec![], Duplicates::Keep)).is_ok());
    }

    #[test]
    fn every_name_is_checked_wherever_it_stands() {
        let long = "n".repeat(crate::MAX_NAME_LEN + 1);
        for name in ["", &long] {
            for bad in [
                begin().expect_absent(name, "k"),
                begin().expect_equals(name, "k", "v"),
                begin().expect_version(name, None),
                begin().expect_fewer_than(name, 1),
                begin().expect_stream(name),
                begin().expect_shorter_than(name, 1),
                begin().put(name, "k", "v"),
                begin().delete(name, "k"),
                begin().add(name, "k", 1),
                begin().list_remove(name, "k", vec![]),
                begin().clear(name),
                begin().destroy_map(name),
                begin().expire_map(name, Deadline::Never),
                begin().append(name, NewEvent::new("n", "p")),
                begin().delete_events(name, vec![EventId::ZERO]),
                begin().destroy_stream(name),
                begin().expire_stream(name, Deadline::Never),
            ] {
                assert!(matches!(check(&bad), Err(Error::InvalidName { .. })), "{bad:?}");
            }
        }
    }

    #[test]
    fn an_empty_key_is_refused() {
        for bad in [begin().put("m", "", "v"), begin().delete("m", ""), begin().expect_present("m", "")] {
            assert!(matches!(check(&bad), Err(Error::InvalidRequest { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_once_id_is_from_one_byte_to_a_kibibyte_long() {
        let with =
            |id: String| begin().append_once("e", NewEvent::new("n", "p"), Once::new(id, Duration::from_secs(1)));
        assert!(matches!(check(&with(String::new())), Err(Error::InvalidRequest { .. })));
        assert!(check(&with("i".repeat(MAX_ONCE_LEN))).is_ok());
        let long = check(&with("i".repeat(MAX_ONCE_LEN + 1)));
        assert!(matches!(long, Err(Error::LimitExceeded { what: "the once-id in bytes", .. })), "{long:?}");
        let limits = Limits::default().with_transaction_bytes(100);
        assert!(validate(&with("i".repeat(99)), &limits).is_err(), "it counts towards the size of the transaction");
    }

    #[test]
    fn lifetimes_are_from_a_millisecond_to_a_hundred_years() {
        let with = |ttl| {
            [
                begin().put_bound("m", "k", "v", Binding::Ttl(ttl)),
                begin().add_bound("m", "k", 1, Binding::Ttl(ttl)),
                begin().expire_map("m", Deadline::IfUnset(ttl)),
                begin().expire_stream("e", Deadline::Renew(ttl)),
                begin().grant_lease(LeaseId(1), ttl),
                begin().renew_lease(LeaseId(1), ttl),
                begin().append_once("e", NewEvent::new("n", "p"), Once::new("id", ttl)),
            ]
        };
        for ttl in [Duration::from_millis(1), MAX_LIFETIME] {
            assert!(with(ttl).iter().all(|fine| check(fine).is_ok()), "{ttl:?}");
        }
        for ttl in [Duration::ZERO, Duration::from_micros(999), MAX_LIFETIME + Duration::from_nanos(1), Duration::MAX] {
            for bad in with(ttl) {
                assert!(matches!(check(&bad), Err(Error::InvalidRequest { .. })), "{bad:?}");
            }
        }
    }

    #[test]
    fn each_limit_names_what_is_too_large() {
        let limits = Limits::default()
            .with_key_bytes(4)
            .with_value_bytes(8)
            .with_event_bytes(8)
            .with_operations(3)
            .with_transaction_bytes(30);
        let put = |key: &'static str| begin().put("m", key, "value");
        let fits = put("key1").put("m", "key2", "12345678").append("e", NewEvent::new("name", "load"));
        validate(&fits, &limits).expect("exactly at the limits");
        for (bad, expected) in [
            (put("key12"), "the key in bytes"),
            (begin().put("m", "k", "123456789"), "the value in bytes"),
            (begin().expect_equals("m", "k", "123456789"), "the value in bytes"),
            (begin().list_append("m", "k", vec!["1234".into()], Duplicates::Keep), "the value in bytes"),
            (begin().append("e", NewEvent::new("name", "load").with_topic("t")), "the event in bytes"),
            (begin().clear("m").clear("m").clear("m").expect_absent("m", "k"), "the transaction in operations"),
            (
                begin().ack("e", &crate::Group::new("g").expect("a valid name"), vec![EventId::ZERO; 2]),
                "the transaction in bytes",
            ),
        ] {
            match validate(&bad, &limits) {
                Err(Error::LimitExceeded { what, size, limit, .. }) => {
                    assert_eq!(what, expected);
                    assert!(size > limit);
                }
                other => panic!("{bad:?}: {other:?}"),
            }
        }
    }
}
