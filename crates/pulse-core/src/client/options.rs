//! What the options of a connection may be. Every backend takes and refuses the same ones, whether or not it has a use
//! for them, so that a program that runs on one also runs on the others.

use std::{fmt, time::Duration};

use super::{ClientBuilder, Reconnect};
use crate::{Error, MAX_NAME_LEN};

/// The shortest time-out, and the shortest wait between attempts to reconnect.
const SHORTEST: Duration = Duration::from_millis(1);

/// The longest. One that is longer acts as this one: it can be added to any time, and is far beyond the life of a
/// connection.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Refuses what makes no sense, and brings what no clock can measure into the range that backends rely on.
pub(super) fn checked(mut builder: ClientBuilder) -> Result<ClientBuilder, Error> {
    builder.connect_timeout = timeout("connect_timeout", builder.connect_timeout)?;
    builder.command_timeout = timeout("command_timeout", builder.command_timeout)?;
    if let Some(time) = builder.unresponsive_after {
        builder.unresponsive_after = Some(timeout("unresponsive_after", time)?);
    }
    builder.reconnect = reconnect(builder.reconnect)?;
    if builder.key_prefix.len() > MAX_NAME_LEN {
        return Err(invalid("key_prefix", format!("{} bytes", builder.key_prefix.len()), "it may have at most 1024"));
    }
    builder.connection_name = match builder.connection_name {
        Some(name) if name.is_empty() => None,
        Some(name) => Some(connection_name(name)?),
        None => None,
    };
    Ok(builder)
}

fn timeout(option: &'static str, time: Duration) -> Result<Duration, Error> {
    if time < SHORTEST {
        return Err(invalid(option, format!("{time:?}"), "it must be at least a millisecond"));
    }
    Ok(time.min(LONGEST))
}

fn reconnect(Reconnect { min, max }: Reconnect) -> Result<Reconnect, Error> {
    if min > max {
        let value = format!("{min:?} to {max:?}");
        return Err(invalid("reconnect", value, "the shortest wait must not be longer than the longest"));
    }
    Ok(Reconnect::new(min.clamp(SHORTEST, LONGEST), max.clamp(SHORTEST, LONGEST)))
}

/// Servers take no other names.
fn connection_name(name: String) -> Result<String, Error> {
    if name.len() > MAX_NAME_LEN {
        return Err(invalid("connection_name", format!("{} bytes", name.len()), "it may have at most 1024"));
    }
    if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(invalid("connection_name", format!("{name:?}"), "it must be of ASCII letters, digits and signs"));
    }
    Ok(name)
}

fn invalid(option: &'static str, value: impl fmt::Display, reason: &'static str) -> Error {
    Error::InvalidOption { option, value: value.to_string(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder() -> ClientBuilder {
        ClientBuilder::new("memory:")
    }

    #[test]
    fn a_time_out_of_nothing_is_refused_and_one_that_no_clock_can_measure_is_a_day() {
        for none in [Duration::ZERO, Duration::from_nanos(1), SHORTEST - Duration::from_nanos(1)] {
            for (bad, name) in [
                (builder().connect_timeout(none), "connect_timeout"),
                (builder().command_timeout(none), "command_timeout"),
                (builder().unresponsive_after(none), "unresponsive_after"),
            ] {
                let Err(Error::InvalidOption { option, value, .. }) = checked(bad) else {
                    panic!("{name} of {none:?}")
                };
                assert_eq!((option, value), (name, format!("{none:?}")));
            }
        }
        for (given, acts_as) in [(SHORTEST, SHORTEST), (LONGEST, LONGEST), (Duration::MAX, LONGEST)] {
            let checked = checked(builder().connect_timeout(given).command_timeout(given)).expect("a sensible time");
            assert_eq!((checked.connect_timeout, checked.command_timeout), (acts_as, acts_as));
        }
    }

    #[test]
    fn waits_to_reconnect_go_from_a_shorter_to_a_longer_one() {
        let (second, day) = (Duration::from_secs(1), LONGEST);
        for (min, max, acts_as) in [
            (Duration::ZERO, Duration::ZERO, (SHORTEST, SHORTEST)),
            (Duration::ZERO, second, (SHORTEST, second)),
            (second, second, (second, second)),
            (second, Duration::MAX, (second, day)),
            (Duration::MAX, Duration::MAX, (day, day)),
        ] {
            let reconnect = checked(builder().reconnect(Reconnect::new(min, max))).expect("a sensible range").reconnect;
            assert_eq!((reconnect.min, reconnect.max), acts_as, "{min:?} to {max:?}");
        }
        let crossed = checked(builder().reconnect(Reconnect::new(Duration::MAX, second)));
        assert!(matches!(crossed, Err(Error::InvalidOption { option: "reconnect", .. })), "{crossed:?}");
    }

    #[tokio::test]
    async fn the_embedded_backend_refuses_what_a_server_would() {
        let (none, most) = (Duration::ZERO, Duration::MAX);
        for (bad, expected) in [
            (builder().connect_timeout(none), "connect_timeout"),
            (builder().command_timeout(none), "command_timeout"),
            (builder().unresponsive_after(none), "unresponsive_after"),
            (builder().reconnect(Reconnect::new(most, none)), "reconnect"),
            (builder().key_prefix("k".repeat(MAX_NAME_LEN + 1)), "key_prefix"),
            (builder().connection_name("two words"), "connection_name"),
        ] {
            let Err(Error::InvalidOption { option, .. }) = bad.connect().await else { panic!("{expected} was taken") };
            assert_eq!(option, expected);
        }
        let longest = builder().connect_timeout(most).command_timeout(most).reconnect(Reconnect::new(none, most));
        longest.connect().await.expect("the longest times are taken").close().await;
    }

    #[test]
    fn a_key_prefix_and_a_connection_name_are_what_servers_take() {
        let long = "n".repeat(MAX_NAME_LEN);
        for prefix in ["", "{shop}:", &long] {
            assert!(checked(builder().key_prefix(prefix)).is_ok(), "{prefix}");
        }
        assert!(checked(builder().key_prefix(format!("{long}n"))).is_err());
        assert_eq!(checked(builder().connection_name("")).expect("no name").connection_name, None);
        for name in ["shop-1", "a/b:c", &long] {
            assert!(checked(builder().connection_name(name)).is_ok(), "{name}");
        }
        for name in ["a b", "a\nb", "\u{e4}", "\0", &format!("{long}n")] {
            let refused = checked(builder().connection_name(name));
            assert!(matches!(refused, Err(Error::InvalidOption { option: "connection_name", .. })), "{refused:?}");
        }
    }
}
