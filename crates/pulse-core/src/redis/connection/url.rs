//! URLs of servers: what they say, and what is wrong with them, without ever showing a password.

use std::path::PathBuf;

use fred::types::config::{Server, ServerConfig};

use crate::Error;

/// What a URL says.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) server: ServerConfig,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: Option<u8>,
    pub(super) tls: bool,
    /// The URL without user, password and options, for logs and errors.
    pub(super) shown: String,
}

const FORMS: &str =
    "redis://, rediss://, redis-cluster://, redis-sentinel:// or redis+unix://, the same with valkey, or memory:";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Single,
    Cluster,
    Sentinel,
    Unix,
}

/// Reads a URL.
pub(super) fn parse(url: &str) -> Result<Address, Error> {
    // Nothing of a URL that cannot be read is shown, because any part of it may be the password.
    let unreadable = |scheme: &str, reason: &str| {
        let url = if scheme.is_empty() { "…".to_owned() } else { format!("{scheme}://…") };
        Error::InvalidUrl { url, reason: reason.to_owned() }
    };
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(unreadable("", &format!("it begins with none of {FORMS}")));
    };
    let Some((kind, tls)) = read_scheme(scheme) else {
        let known =
            scheme.len() <= 32 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        return Err(unreadable(if known { scheme } else { "" }, &format!("it begins with none of {FORMS}")));
    };
    let fail = |reason: &str| unreadable(scheme, reason);

    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let (user_info, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (username, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let decoded = |text: &str, what: &str| {
        percent_decode(text).map_err(|()| fail(&format!("the {what} is not percent-encoded UTF-8")))
    };
    let username = Some(decoded(username, "user")?).filter(|text| !text.is_empty());
    let password = Some(decoded(password, "password")?).filter(|text| !text.is_empty());
    let options = read_query(query).ok_or_else(|| fail("the part after ? is not NAME=VALUE joined by &"))?;
    let allowed: &[&str] = match kind {
        Kind::Single | Kind::Unix => &[],
        Kind::Cluster => &["node"],
        Kind::Sentinel => &["node", SERVICE, SENTINEL_USER, SENTINEL_PASSWORD],
    };
    if let Some((unknown, _)) = options.iter().find(|(name, _)| !allowed.contains(&name.as_str())) {
        let known = unknown.len() <= 32 && unknown.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let name = if known { format!(" {unknown:?}") } else { String::new() };
        return Err(fail(&format!("the option{name} after ? is unknown for this kind of URL")));
    }

    if kind == Kind::Unix {
        if tls || !hosts.is_empty() || path.len() < 2 {
            return Err(fail("a unix socket is given as redis+unix:///PATH"));
        }
        let path = decoded(path, "path")?;
        let shown = format!("{scheme}://{path}");
        let server = ServerConfig::Unix { path: PathBuf::from(path) };
        return Ok(Address { server, username, password, database: None, tls, shown });
    }

    let default_port = if kind == Kind::Sentinel { 26379 } else { 6379 };
    let mut servers = Vec::new();
    let nodes = options.iter().filter(|(name, _)| name == "node").map(|(_, value)| value.as_str());
    for host in std::iter::once(hosts).chain(nodes) {
        let (host, port) = read_host(host, default_port)
            .ok_or_else(|| fail("a server is given as HOST or HOST:PORT, an IPv6 address as [ADDRESS]:PORT"))?;
        servers.push(Server::new(host, port));
    }
    let database = match path.trim_matches('/') {
        "" => None,
        number => Some(number.parse().map_err(|_| fail("the part after / is the number of a database, 0 to 255"))?),
    };
    let list = servers.iter().map(|server| format!("{}:{}", server.host, server.port)).collect::<Vec<_>>().join(",");
    let mut shown = format!("{scheme}://{list}");
    if let Some(database) = database {
        shown = format!("{shown}/{database}");
    }
    let option = |name: &str| options.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
    let server = match kind {
        Kind::Cluster => {
            if database.is_some_and(|database| database != 0) {
                return Err(fail("a cluster has no databases but 0"));
            }
            ServerConfig::new_clustered(servers.iter().map(|server| (server.host.to_string(), server.port)).collect())
        }
        Kind::Sentinel => {
            let service_name = option(SERVICE)
                .ok_or_else(|| fail("the name of the service is missing: add ?sentinelServiceName=NAME"))?;
            ServerConfig::Sentinel {
                hosts: servers,
                service_name,
                username: option(SENTINEL_USER),
                password: option(SENTINEL_PASSWORD),
            }
        }
        Kind::Single | Kind::Unix => match servers.into_iter().next() {
            Some(server) => ServerConfig::Centralized { server },
            None => return Err(fail("the server is missing")),
        },
    };
    Ok(Address { server, username, password, database, tls, shown })
}

const SERVICE: &str = "sentinelServiceName";
const SENTINEL_USER: &str = "sentinelUsername";
const SENTINEL_PASSWORD: &str = "sentinelPassword";

fn read_scheme(scheme: &str) -> Option<(Kind, bool)> {
    let scheme = scheme.to_ascii_lowercase();
    let (base, kind) = match scheme.split_once(['-', '+']) {
        None => (scheme.as_str(), Kind::Single),
        Some((base, "cluster")) => (base, Kind::Cluster),
        Some((base, "sentinel")) => (base, Kind::Sentinel),
        Some((base, "unix")) => (base, Kind::Unix),
        Some(_) => return None,
    };
    match base {
        "redis" | "valkey" => Some((kind, false)),
        "rediss" | "valkeys" => Some((kind, true)),
        _ => None,
    }
}

fn read_host(text: &str, default_port: u16) -> Option<(String, u16)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        (host, rest.strip_prefix(':').or_else(|| rest.is_empty().then_some("")))
    } else {
        let (host, port) = text.split_once(':').unwrap_or((text, ""));
        (host, Some(port))
    };
    let port = match port? {
        "" => default_port,
        port => port.parse().ok().filter(|port| *port != 0)?,
    };
    let fine = |character: char| character.is_alphanumeric() || "-_.:%".contains(character);
    (!host.is_empty() && host.chars().all(fine)).then(|| (host.to_owned(), port))
}

fn read_query(query: &str) -> Option<Vec<(String, String)>> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=')?;
            Some((percent_decode(name).ok()?, percent_decode(value).ok()?))
        })
        .collect()
}

fn percent_decode(text: &str) -> Result<String, ()> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or(());
            let (high, low) = (digit()?, digit()?);
            decoded.push((high * 16 + low) as u8);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).map_err(|_| ())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn servers(address: &Address) -> Vec<String> {
        address.server.hosts().iter().map(|server| format!("{}:{}", server.host, server.port)).collect()
    }

    #[test]
    fn every_form_is_understood() {
        let address = parse("redis://localhost").unwrap();
        assert_eq!(servers(&address), ["localhost:6379"]);
        assert!(!address.tls);

        let address = parse("rediss://me:p%40ss@[::1]:7000/3").unwrap();
        assert_eq!(servers(&address), ["::1:7000"]);
        assert_eq!((address.username.as_deref(), address.password.as_deref()), (Some("me"), Some("p@ss")));
        assert_eq!((address.database, address.tls), (Some(3), true));

        let address = parse("valkey-cluster://a:1?node=b:2&node=c").unwrap();
        assert!(address.server.is_clustered());
        assert_eq!(servers(&address), ["a:1", "b:2", "c:6379"]);

        let address = parse("redis-sentinel://:secret@a/1?sentinelServiceName=main&sentinelPassword=other").unwrap();
        assert!(address.server.is_sentinel());
        assert_eq!(servers(&address), ["a:26379"]);
        assert_eq!((address.username.as_deref(), address.password.as_deref()), (None, Some("secret")));

        for url in ["redis+unix:///run/redis.sock", "valkey+unix://u:p@/run/redis.sock"] {
            let ServerConfig::Unix { path } = parse(url).unwrap().server else { panic!("no socket in {url}") };
            assert_eq!(path, PathBuf::from("/run/redis.sock"));
        }
        for base in ["redis", "rediss", "valkey", "valkeys"] {
            for rest in ["://h", "-cluster://h", "-sentinel://h?sentinelServiceName=n"] {
                let with_tls = ["rediss", "valkeys"].contains(&base);
                assert_eq!(parse(&format!("{base}{rest}")).unwrap().tls, with_tls, "{base}{rest}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_showing_a_secret() {
        for (url, hint) in [
            ("localhost:6379", "begins with none of"),
            ("http://localhost", "begins with none of"),
            ("redis://", "HOST:PORT"),
            ("redis://:secret", "HOST:PORT"),
            ("redis://host:secret", "HOST:PORT"),
            ("redis://me:secret@host:99999", "HOST:PORT"),
            ("redis://me:sec/secret@host", "HOST:PORT"),
            ("redis://me:%zzsecret@host", "percent-encoded"),
            ("redis://host/secret", "number of a database"),
            ("redis://host?secret", "NAME=VALUE"),
            ("redis://host?secret/=1", "unknown"),
            ("redis-cluster://me:secret@host/1", "no databases"),
            ("redis-sentinel://me:secret@host", "sentinelServiceName"),
            ("redis+unix://secret", "redis+unix:///PATH"),
        ] {
            let Err(error) = parse(url) else { panic!("{url} was accepted") };
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(hint), "{shown}");
            assert!(!shown.contains("secret"), "{shown}");
        }
    }

    #[test]
    fn the_shown_form_holds_neither_user_nor_password_nor_options() {
        let address = parse("redis-sentinel://me:secret@a/1?sentinelServiceName=n&sentinelPassword=secret").unwrap();
        assert_eq!(address.shown, "redis-sentinel://a:26379/1");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".*", scheme in "(redis|valkeys)(-cluster|-sentinel|\\+unix)?://") {
            let _ = parse(&text);
            let _ = parse(&format!("{scheme}{text}"));
        }
    }
}
