//! Users who may not do everything: what they are granted suffices, and what is missing is named before any harm is done.
//!
//! The users are those of the guide on permissions, read from the guide itself.

mod crates;
mod missing;
mod scopes;

use pulse_core::{Client, ClientBuilder, Error, Scope};
use tests::Server;

const GUIDE: &str = include_str!("../../../../../crates/pulse-core/src/docs/permissions.md");

/// The commands of the guide that make a user.
fn grants(user: &str) -> Vec<Vec<String>> {
    let start = format!("ACL SETUSER {user} ");
    let lines = GUIDE.lines().filter(|line| line.starts_with(&start));
    let grants: Vec<Vec<_>> = lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
    assert!(!grants.is_empty(), "the guide has no user {user}");
    grants
}

/// The single commands that the guide grants to a user.
fn commands(user: &str) -> Vec<String> {
    let words = grants(user).into_iter().flatten();
    words.filter_map(|word| word.strip_prefix('+').map(str::to_owned)).collect()
}

/// Makes a user as the guide says, and then more as given.
fn make(server: &Server, user: &str, more: &[&str]) {
    for grant in grants(user) {
        server.cli(&grant.iter().map(String::as_str).collect::<Vec<_>>());
    }
    if !more.is_empty() {
        change(server, user, more);
    }
}

fn change(server: &Server, user: &str, rules: &[&str]) {
    server.cli(&[&["ACL", "SETUSER", user], rules].concat());
}

fn builder(server: &Server, user: &str) -> ClientBuilder {
    ClientBuilder::new(server.url()).credentials(user, "secret").key_prefix("shop:")
}

async fn connect(server: &Server, user: &str) -> Client {
    builder(server, user).connect().await.expect("the user may connect")
}

fn other_scope() -> Scope {
    Scope::new("customers").expect("the name is valid")
}

/// What is missing, as the error says it.
fn missing<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Denied { missing, .. }) => missing,
        other => panic!("this should have been denied: {other:?}"),
    }
}
