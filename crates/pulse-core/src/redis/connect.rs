//! The way in: from a builder to connections that are known to lead to a server that Pulse can work with.

use std::sync::Arc;

use fred::error::Error as FredError;
use tokio::time::{Instant, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connection::{Place, Router, Settings},
    errors::{Ask, is_credentials, source},
    examine::NEEDED,
    link::CLUSTER_NODE,
    permissions::what_is_missing,
};
use crate::{Error, entropy};

/// Connects, and waits for a server that is still loading its data, for no longer than a call would.
pub(super) async fn open(
    settings: &Arc<Settings>,
    tasks: &TaskTracker,
    closed: &CancellationToken,
) -> Result<Router, Error> {
    let deadline = Instant::now() + settings.command_timeout;
    let mut pause = settings.reconnect.min;
    loop {
        let error = match Router::connect(settings.clone(), tasks.clone(), closed.clone()).await {
            Ok(router) => return Ok(router),
            Err(error) => error,
        };
        let again = Instant::now() + pause.mul_f64(0.5 + 0.5 * entropy::fraction());
        if !is_passing(&error) || again >= deadline {
            return Err(connect_error(settings, error));
        }
        tracing::debug!(target = &*settings.target, %error, "the server is not ready, trying again");
        sleep(again - Instant::now()).await;
        pause = (pause * 2).min(settings.reconnect.max);
    }
}

/// Whether the server is there, and will be ready by itself.
fn is_passing(error: &FredError) -> bool {
    let code = error.details().split(' ').next().unwrap_or_default();
    matches!(code, "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "BUSY")
}

/// What was tried, and how it failed.
#[derive(Debug, thiserror::Error)]
#[error("tried {tried}{}", advice.map_or_else(String::new, |advice| format!("; {advice}")))]
struct Tried {
    tried: String,
    /// What to do about it.
    advice: Option<&'static str>,
    #[source]
    error: FredError,
}

fn connect_error(settings: &Settings, error: FredError) -> Error {
    let target = settings.target.to_string();
    let words = error.details();
    if let Some(missing) = what_is_missing(words) {
        return Ask::new("connect", &target).denied(missing, Some(words));
    }
    if is_credentials(&error) {
        return Error::Auth { target, source: source(error) };
    }
    let wrong_way = match &settings.place {
        Place::Cluster(_) if words.contains("cluster support disabled") => {
            Some("the server is no node of a cluster: begin the URL with redis:// (with TLS: rediss://)")
        }
        Place::Cluster(_) if words.contains("unknown command") => {
            Some("the server is no node of a cluster: use the URL of a node")
        }
        Place::Sentinel(_) if words.contains("unknown command") => {
            Some("the server is no sentinel: use its own URL, redis:// or redis-cluster:// (with TLS: rediss://)")
        }
        Place::Single(_) | Place::Unix(_) if words.starts_with("MOVED") => Some(CLUSTER_NODE),
        _ => None,
    };
    if let Some(reason) = wrong_way {
        return Error::InvalidUrl { url: target, reason: reason.to_owned() };
    }
    if is_passing(&error) {
        return Error::Unavailable {
            operation: "connect",
            subject: target,
            outcome: crate::Outcome::NotApplied,
            source: source(error),
        };
    }
    if words.contains("unknown command") {
        return Error::UnsupportedServer { target, found: "a server without the commands".into(), needed: NEEDED };
    }
    #[cfg(feature = "rustls")]
    let advice = super::connection::advice(words);
    #[cfg(not(feature = "rustls"))]
    let advice = None;
    Error::Connect { target, source: Arc::new(Tried { tried: settings.hosts(), advice, error }) }
}

#[cfg(test)]
mod tests {
    use fred::error::ErrorKind;

    use super::*;

    #[test]
    fn what_passes_by_itself_is_told_from_what_does_not() {
        for (words, passes) in [
            ("LOADING Redis is loading the dataset in memory", true),
            ("BUSY Redis is busy running a script", true),
            ("WRONGPASS invalid username-password pair or user is disabled.", false),
            ("Connection refused", false),
        ] {
            assert_eq!(is_passing(&FredError::new(ErrorKind::Unknown, words)), passes, "{words}");
        }
    }
}
