//! Whether the user may do what Pulse does, asked before it is done.
//!
//! A script that is refused a command after it has written with another cannot take that back. So before the first
//! write of a kind into a scope, the server is asked whether it would permit all that such a write may need there, and
//! the write fails with an error that names what is missing. Users who may use every scope, which is the rule, are
//! recognised when the client connects, and cost one atomic load per write from then on.
//!
//! What is permitted is remembered, because servers seldom take it back; what is denied is asked for again, so that a
//! grant takes effect at once. `needs` says what a write needs, `lua/permissions.lua` what that means, `denial` how it is
//! told. Commands that come alone are not asked about: the server's own refusal harms nothing, and `denial` reads it.

mod denial;
mod needs;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
};

use fred::types::{Resp3Frame, Value};

pub(super) use self::{
    denial::{warn_of_denied, what_is_missing},
    needs::Needs,
};
use super::{
    errors::Ask,
    keys::Keys,
    link::{Answer, Link, Repeat},
    reply::{self, Misfit},
    scripts,
};
use crate::{Error, Scope};

/// How many scopes are remembered; beyond it, all are forgotten and asked about again.
const MOST_SCOPES: usize = 4096;

/// What the user of a client may do.
#[derive(Debug)]
pub(super) struct Permissions {
    link: Arc<Link>,
    keys: Keys,
    /// What is permitted in every scope.
    everywhere: AtomicU16,
    /// What is permitted in single scopes.
    scopes: Mutex<HashMap<Scope, Needs>>,
}

impl Permissions {
    /// Knows of no permission yet.
    pub(super) fn new(link: Arc<Link>, keys: Keys) -> Self {
        Self { link, keys, everywhere: AtomicU16::new(0), scopes: Mutex::default() }
    }

    /// Looks whether the user may use a scope that was made up, and so every scope of the server that is shown by this name.
    ///
    /// # Errors
    ///
    /// If the user may not run scripts, or the server does not answer.
    pub(super) async fn look_everywhere(&self, shown: &str) -> Result<(), Error> {
        let made_up = Scope::new(format!("{:016x}{:016x}", crate::entropy::number(), crate::entropy::number()))?;
        let denied = self.look(Ask::new("look at the permissions", &shown), &made_up).await?;
        self.everywhere.store(Needs::ALL.without(&denied).bits(), Ordering::Relaxed);
        Ok(())
    }

    /// Whether everything is permitted in every scope.
    pub(super) fn are_complete(&self) -> bool {
        self.everywhere.load(Ordering::Relaxed) == Needs::ALL.bits()
    }

    /// Makes sure that the user has what is needed in a scope, before `ask` is carried out.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if anything is missing, which then is named. Nothing was changed.
    pub(super) async fn require(&self, ask: Ask<'_>, scope: &Scope, needs: Needs) -> Result<(), Error> {
        if Needs::from_bits(self.everywhere.load(Ordering::Relaxed)).contain(needs) || self.known(scope).contain(needs)
        {
            return Ok(());
        }
        let denied = self.look(ask, scope).await?;
        self.remember(scope, Needs::ALL.without(&denied));
        let missing: Vec<_> = denied.into_iter().filter(|denied| needs.contain(denied.need)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = denial::describe(&missing, &self.keys.scope(scope));
        Err(ask.denied(missing, None))
    }

    async fn look(&self, ask: Ask<'_>, scope: &Scope) -> Result<Vec<Denied>, Error> {
        let prefix = self.keys.scope(scope);
        // It has no key, so that it runs whatever the user may touch; the first argument leads to the slot.
        let args = |args: &mut Vec<Value>| args.push(Value::Bytes(prefix.clone().into()));
        match self.link.run(ask, Repeat::Freely, &scripts::PERMISSIONS, 0, args).await? {
            Answer::Reply(reply) => read(reply).map_err(|misfit| ask.protocol(misfit)),
            Answer::Refused(refusal, message) => Err(self.link.error(ask, refusal, &message)),
        }
    }

    fn known(&self, scope: &Scope) -> Needs {
        // Nothing panics while holding it.
        let scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        scopes.get(scope).copied().unwrap_or(Needs::NONE)
    }

    fn remember(&self, scope: &Scope, permitted: Needs) {
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        if scopes.len() >= MOST_SCOPES && !scopes.contains_key(scope) {
            scopes.clear();
        }
        scopes.insert(scope.clone(), permitted);
    }
}

/// A command that the user may not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Denied {
    need: Needs,
    /// As access control lists write it.
    command: String,
    /// The key or channel; empty if the command takes none.
    subject: String,
}

fn read(reply: Resp3Frame) -> Result<Vec<Denied>, Misfit> {
    let mut parts = reply::list(reply)?.into_iter();
    let mut denied = Vec::new();
    while let Some(need) = parts.next() {
        let mut text = || reply::text(parts.next().ok_or("a command or its subject is missing")?);
        let (command, subject) = (text()?, text()?);
        let need = u16::try_from(reply::number(need)?).map_err(|_| "an unknown need")?;
        denied.push(Denied { need: Needs::from_bits(need), command, subject });
    }
    Ok(denied)
}

#[cfg(test)]
mod tests {
    use super::scripts::{
        APPEND, CLAIM, DESTROY_GROUP, DETAIL, MISSED, PERMISSIONS, PLAIN, PUT, PUTS, REMOVE_CONSUMER, SET_IDLE,
        TRANSACTION,
    };

    /// The commands that a script runs, with the subcommands of those that have them.
    fn commands(source: &str) -> Vec<String> {
        let calls = ["call(", "call_in_chunks(", "try('", "unless_broken(call, "];
        let starts = calls.iter().flat_map(|call| source.match_indices(call).map(|(at, call)| at + call.len()));
        let words = |at: usize| {
            let rest = source[at..].trim_start_matches('\'');
            let upper = |text: &str| text.chars().take_while(char::is_ascii_uppercase).collect::<String>();
            let command = upper(rest);
            let subcommand = rest[command.len()..].strip_prefix("', '").map(upper).unwrap_or_default();
            match command.as_str() {
                "XINFO" | "XGROUP" | "MEMORY" => format!("{command}|{subcommand}").to_lowercase(),
                _ => command.to_lowercase(),
            }
        };
        let commands: Vec<_> = starts.map(words).filter(|command| !command.is_empty()).collect();
        assert!(!commands.is_empty());
        commands
    }

    #[test]
    fn every_command_of_every_script_is_asked_about() {
        for script in [
            &TRANSACTION,
            &PUT,
            &PUTS,
            &PLAIN,
            &APPEND,
            &CLAIM,
            &SET_IDLE,
            &DETAIL,
            &DESTROY_GROUP,
            &MISSED,
            &REMOVE_CONSUMER,
        ] {
            // Scripts do without what INFO says where the user may not run it.
            for command in commands(script.source).into_iter().filter(|command| command != "info") {
                let (bare, keyed) = (format!("'{command}'"), format!("'{command}:"));
                assert!(PERMISSIONS.source.contains(&bare) || PERMISSIONS.source.contains(&keyed), "{command}");
            }
        }
    }
}
