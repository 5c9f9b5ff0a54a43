//! How a denial is told: what is missing, and what an administrator would grant.

use std::fmt::Write;

use super::Denied;

/// How many denied commands are spelled out.
const SPELLED_OUT: usize = 3;

/// Describes what the server's checks denied in the scope whose keys begin like this.
pub(super) fn describe(denied: &[Denied], prefix: &str) -> String {
    let mut text = String::from("the user may not ");
    let (mut commands, mut keys, mut channels) = (Vec::new(), false, false);
    for denied in denied {
        if is_about_channel(&denied.command) {
            channels = true;
        } else if !denied.subject.is_empty() {
            keys = true;
        }
        if !commands.contains(&denied.command.as_str()) {
            commands.push(&denied.command);
        }
    }
    // The check is a script itself, so what was denied of scripts is not the command but the keys.
    let touches_none = denied.iter().any(|denied| denied.command == "evalsha");
    if touches_none {
        let _ = write!(text, "use the keys {prefix}*");
    } else {
        text.push_str("run ");
        for (place, denied) in denied.iter().take(SPELLED_OUT).enumerate() {
            let Denied { command, subject, .. } = denied;
            let comma = if place == 0 { "" } else { ", " };
            let kind = if is_about_channel(command) { "channel" } else { "key" };
            let _ = write!(text, "{comma}{}", command.to_uppercase().replace('|', " "));
            if !subject.is_empty() {
                let _ = write!(text, " on {kind} {subject}");
            }
        }
        if denied.len() > SPELLED_OUT {
            let _ = write!(text, " and {} more", denied.len() - SPELLED_OUT);
        }
    }
    text.push_str(": grant");
    for command in commands {
        // Whether the commands are granted cannot be seen while their keys are not.
        let unseen = touches_none && !is_about_channel(command);
        if !unseen {
            let _ = write!(text, " +{command}");
        }
    }
    if keys {
        let _ = write!(text, " ~{prefix}*");
    }
    if channels {
        let _ = write!(text, " &{prefix}*");
    }
    text
}

fn is_about_channel(command: &str) -> bool {
    matches!(command, "spublish" | "ssubscribe")
}

/// Whether the server's words deny a permission, directly or within a script; what is missing then.
pub(crate) fn what_is_missing(message: &str) -> Option<String> {
    let in_script =
        message.contains("ACL failure in script") || message.contains("The user executing the script can't");
    if !in_script && !message.starts_with("NOPERM") {
        return None;
    }
    let quoted = message.split_once("run the '").and_then(|(_, rest)| rest.split_once('\''));
    Some(match quoted {
        Some((command, _)) => {
            let command = command.to_lowercase();
            format!("the user may not run {}: grant +{command}", command.to_uppercase().replace('|', " "))
        }
        None if message.contains("channel") => {
            "the user may not use a channel of it: grant the channels of its scope (&…)".to_owned()
        }
        None if message.contains("key") => {
            "the user may not use a key of it: grant the keys of its scope (~…)".to_owned()
        }
        None => "the user lacks a permission".to_owned(),
    })
}

/// For what goes on by itself and has no caller to tell.
pub(crate) fn warn_of_denied(channel: &[u8], words: &str) {
    let channel = String::from_utf8_lossy(channel);
    let missing = what_is_missing(words).unwrap_or_default();
    tracing::warn!(%channel, words, "{missing}");
}

#[cfg(test)]
mod tests {
    use super::{super::Needs, *};

    fn denied(command: &str, subject: &str) -> Denied {
        Denied { need: Needs::MAPS, command: command.into(), subject: subject.into() }
    }

    #[test]
    fn a_missing_command_is_named_with_its_key_and_with_what_to_grant() {
        assert_eq!(
            describe(&[denied("hset", "shop:{orders}:m:*")], "shop:{orders}:"),
            "the user may not run HSET on key shop:{orders}:m:*: grant +hset ~shop:{orders}:*"
        );
        assert_eq!(
            describe(&[denied("spublish", "shop:{orders}:f:*")], "shop:{orders}:"),
            "the user may not run SPUBLISH on channel shop:{orders}:f:*: grant +spublish &shop:{orders}:*"
        );
        assert_eq!(describe(&[denied("time", "")], "p:"), "the user may not run TIME: grant +time");
    }

    #[test]
    fn many_missing_commands_are_counted_and_all_granted_together() {
        let all = ["hget", "hset", "hdel", "xinfo|groups", "hset"].map(|command| denied(command, "p:m:*"));
        let text = describe(&all, "p:");
        assert!(text.contains("HGET on key p:m:*, HSET on key p:m:*, HDEL on key p:m:* and 2 more"), "{text}");
        assert!(text.ends_with(": grant +hget +hset +hdel +xinfo|groups ~p:*"), "{text}");
    }

    #[test]
    fn keys_that_are_out_of_reach_are_told_without_the_commands() {
        let all = [denied("evalsha", "p:m:*"), denied("hset", "p:m:*"), denied("spublish", "p:f:*")];
        assert_eq!(describe(&all, "p:"), "the user may not use the keys p:*: grant +spublish ~p:* &p:*");
    }

    #[test]
    fn the_words_of_every_server_are_understood() {
        for (message, expected) in [
            ("NOPERM this user has no permissions to run the 'hget' command", Some("run HGET: grant +hget")),
            (
                "NOPERM User u has no permissions to run the 'client|id' command",
                Some("run CLIENT ID: grant +client|id"),
            ),
            ("NOPERM this user has no permissions to access one of the keys used as arguments", Some("use a key")),
            ("NOPERM No permissions to access a key", Some("use a key")),
            ("NOPERM this user has no permissions to access one of the channels used as arguments", Some("a channel")),
            ("NOPERM No permissions to access a channel", Some("a channel")),
            (
                "ERR ACL failure in script: User u has no permissions to run the 'set' command script: 6e0d, on @user_script:1.",
                Some("run SET: grant +set"),
            ),
            (
                "ERR The user executing the script can't run this command or subcommand script: 697, on @user_script:1.",
                Some("lacks a permission"),
            ),
            ("ERR The user executing the script can't publish to the channel mentioned", Some("a channel")),
            ("NOAUTH Authentication required.", None),
            ("ERR no such key", None),
        ] {
            let missing = what_is_missing(message);
            match expected {
                Some(expected) => assert!(missing.as_ref().is_some_and(|text| text.contains(expected)), "{missing:?}"),
                None => assert_eq!(missing, None, "{message}"),
            }
        }
    }
}
