//! What a server is found to be when a client connects: whether Pulse works with it, and whether the URL leads to it
//! the right way.

use fred::types::Value;

use super::{
    connection::Place,
    errors::{Ask, Refusal},
    link::{Answer, CLUSTER_NODE, Link, Repeat, Route},
    reply,
};
use crate::Error;

pub(super) const NEEDED: &str = "Redis 7.0 or later, or Valkey 7.2 or later";

const SENTINEL: &str =
    "the server is a sentinel: use redis-sentinel://HOST:PORT?sentinelServiceName=NAME (with TLS: rediss-sentinel://)";

/// Checks that the server is one that Pulse works with, and that this kind of URL is the one that leads to it.
pub(super) async fn examine(link: &Link, place: &Place, shown: &str) -> Result<(), Error> {
    let ask = Ask::new("look at the server", &shown);
    let args = || vec![Value::from_static_str("everything")];
    match link.try_call(ask, Repeat::Freely, "INFO", Route::Any, args).await? {
        Answer::Reply(info) => {
            let info = reply::text(info).map_err(|misfit| ask.protocol(misfit))?;
            check_version(shown, &info)?;
            check_way(place, shown, &info)?;
            warn_of_eviction(shown, &info);
        }
        // It was denied, or renamed away.
        Answer::Refused(refusal, words) if refusal == Refusal::Denied || words.starts_with("ERR unknown command") => {
            tracing::warn!(server = shown, words, "INFO cannot be run, so version and eviction policy are not checked");
        }
        Answer::Refused(refusal, message) => return Err(link.error(ask, refusal, &message)),
    }
    Ok(())
}

/// Checks that the kind of URL is the one for this kind of server.
fn check_way(place: &Place, shown: &str, info: &str) -> Result<(), Error> {
    let is_sentinel = field(info, "redis_mode").or_else(|| field(info, "server_mode")) == Some("sentinel");
    let reason = match place {
        Place::Single(_) | Place::Unix(_) if field(info, "cluster_enabled") == Some("1") => CLUSTER_NODE,
        Place::Single(_) | Place::Unix(_) | Place::Cluster(_) if is_sentinel => SENTINEL,
        _ => return Ok(()),
    };
    Err(Error::InvalidUrl { url: shown.to_owned(), reason: reason.to_owned() })
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn check_version(shown: &str, info: &str) -> Result<(), Error> {
    let (name, version, least) = match (field(info, "valkey_version"), field(info, "redis_version")) {
        (Some(version), _) => ("Valkey", version, (7, 2)),
        (None, Some(version)) => ("Redis", version, (7, 0)),
        (None, None) => ("a server", "without a version", (0, 0)),
    };
    let mut parts = version.split('.').map(str::parse::<u32>);
    let found = match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    };
    if found.is_some_and(|found| found >= least) {
        return Ok(());
    }
    Err(Error::UnsupportedServer { target: shown.to_owned(), found: format!("{name} {version}"), needed: NEEDED })
}

fn warn_of_eviction(shown: &str, info: &str) {
    if let Some(policy) = evicting_policy(info) {
        tracing::warn!(
            target = shown,
            policy,
            "the server evicts keys when its memory is full, and with them maps and streams: set maxmemory-policy to noeviction"
        );
    }
}

/// The policy by which the server throws keys away, whether or not its memory has a limit yet: that can be set later.
fn evicting_policy(info: &str) -> Option<&str> {
    field(info, "maxmemory_policy").filter(|policy| *policy != "noeviction")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_below_the_minimum_are_refused() {
        for (info, fine) in [
            ("redis_version:7.0.15\r\n", true),
            ("redis_version:8.2.0\r\n", true),
            ("redis_version:6.2.14\r\n", false),
            ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\n", true),
            ("redis_version:7.2.4\r\nvalkey_version:7.1.0\r\n", false),
            ("redis_version:many\r\n", false),
            ("", false),
        ] {
            assert_eq!(check_version("redis://h", info).is_ok(), fine, "{info:?}");
        }
    }

    #[test]
    fn a_url_of_the_wrong_kind_is_told_from_the_right_one() {
        let single = Place::Unix("s".into());
        let cluster = Place::Cluster(Vec::new());
        for (place, info, hint) in [
            (&single, "redis_mode:standalone\r\ncluster_enabled:0\r\n", None),
            (&single, "redis_mode:cluster\r\ncluster_enabled:1\r\n", Some("redis-cluster://")),
            (&single, "redis_mode:sentinel\r\n", Some("redis-sentinel://")),
            (&single, "server_mode:sentinel\r\n", Some("redis-sentinel://")),
            (&cluster, "redis_mode:cluster\r\ncluster_enabled:1\r\n", None),
            (&single, "", None),
        ] {
            match (check_way(place, "redis://h", info), hint) {
                (Ok(()), None) => {}
                (Err(Error::InvalidUrl { reason, .. }), Some(hint)) => assert!(reason.contains(hint), "{reason}"),
                (found, _) => panic!("{info:?} of {place:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn every_policy_that_evicts_is_warned_of() {
        for (info, policy) in [
            ("maxmemory:0\r\nmaxmemory_policy:noeviction\r\n", None),
            ("maxmemory:1000\r\nmaxmemory_policy:allkeys-lru\r\n", Some("allkeys-lru")),
            // The limit can be set later.
            ("maxmemory:0\r\nmaxmemory_policy:volatile-ttl\r\n", Some("volatile-ttl")),
            ("", None),
        ] {
            assert_eq!(evicting_policy(info), policy, "{info:?}");
        }
    }
}
