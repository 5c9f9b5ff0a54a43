//! The names of keys and channels in the server.
//!
//! `PREFIX{SCOPE}:KIND:NAME`, where the scope is a hash tag, so that everything of one scope is in one slot. The scope
//! is escaped so that no name can end the tag early; names need no escaping because they stand last. What each kind is
//! for stands in `lua/transaction/head.lua`.

use std::fmt::Write;

use bytes::Bytes;

use crate::{MapId, Scope, StreamId};

/// Makes keys with one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: Box<str>,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        // Braces in the prefix would become the hash tag, and take away the one of the scope.
        let mut escaped = String::with_capacity(prefix.len());
        push_escaped(&mut escaped, prefix);
        Self { prefix: escaped.into() }
    }

    /// What every key of the scope begins with.
    pub(super) fn scope(&self, scope: &Scope) -> String {
        self.start(scope, 0)
    }

    pub(super) fn map(&self, map: &MapId) -> Bytes {
        self.key(map.scope(), "m:", map.name())
    }

    pub(super) fn feed(&self, map: &MapId) -> Bytes {
        self.key(map.scope(), "f:", map.name())
    }

    pub(super) fn stream(&self, stream: &StreamId) -> Bytes {
        self.key(stream.scope(), "s:", stream.name())
    }

    pub(super) fn missed(&self, stream: &StreamId) -> Bytes {
        self.key(stream.scope(), "g:", stream.name())
    }

    pub(super) fn doorbell(&self, stream: &StreamId) -> Bytes {
        self.key(stream.scope(), "w:", stream.name())
    }

    pub(super) fn leases(&self, scope: &Scope) -> Bytes {
        self.key(scope, "l", "")
    }

    pub(super) fn key(&self, scope: &Scope, kind: &str, name: &str) -> Bytes {
        let mut key = self.start(scope, kind.len() + name.len());
        key.push_str(kind);
        key.push_str(name);
        key.into()
    }

    fn start(&self, scope: &Scope, more: usize) -> String {
        let scope = scope.as_str();
        let mut start = String::with_capacity(self.prefix.len() + scope.len() + 3 + more);
        start.push_str(&self.prefix);
        start.push('{');
        push_escaped(&mut start, scope);
        start.push_str("}:");
        start
    }
}

/// Escapes what would change the hash tag.
fn push_escaped(text: &mut String, name: &str) {
    if !name.bytes().any(|byte| matches!(byte, b'{' | b'}' | b'%')) {
        text.push_str(name);
        return;
    }
    for character in name.chars() {
        if matches!(character, '{' | '}' | '%') {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{:02X}", u32::from(character));
        } else {
            text.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: &[u8]) -> &[u8] {
        let open = key.iter().position(|byte| *byte == b'{').unwrap();
        let close = key[open..].iter().position(|byte| *byte == b'}').unwrap() + open;
        &key[open + 1..close]
    }

    #[test]
    fn everything_of_a_scope_has_the_scope_as_hash_tag() {
        let keys = Keys::new("pulse:");
        for (name, expected) in [("orders", "orders"), ("a{b}c%", "a%7Bb%7Dc%25"), ("}", "%7D")] {
            let scope = Scope::new(name).unwrap();
            let map = scope.map("x{y}").unwrap();
            assert_eq!(tag(&keys.map(&map)), expected.as_bytes());
            assert_eq!(tag(&keys.feed(&map)), expected.as_bytes());
            assert_eq!(tag(&keys.leases(&scope)), expected.as_bytes());
        }
    }

    #[test]
    fn braces_in_the_prefix_do_not_become_the_hash_tag() {
        let scope = Scope::new("orders").unwrap();
        assert_eq!(tag(&Keys::new("{app}:").leases(&scope)), b"orders");
    }

    #[test]
    fn different_kinds_and_scopes_never_share_a_key() {
        let keys = Keys::new("pulse:");
        let scope = Scope::new("a").unwrap();
        let other = Scope::new("a}:m:b").unwrap();
        let made = [
            keys.map(&scope.map("l").unwrap()),
            keys.map(&scope.map("m:l").unwrap()),
            keys.stream(&scope.stream("l").unwrap()),
            keys.leases(&scope),
            keys.map(&other.map("b").unwrap()),
            keys.map(&scope.map("b").unwrap()),
        ];
        for (place, key) in made.iter().enumerate() {
            assert!(!made[..place].contains(key), "{key:?} occurs twice");
        }
    }
}
