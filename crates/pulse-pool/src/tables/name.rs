//! The names of maps, and of a key, as every write and expectation of a transaction shares them.

use std::sync::{Arc, OnceLock};

/// A name of which no transaction needs a copy.
#[derive(Debug)]
pub(super) struct Name {
    text: &'static str,
    shared: OnceLock<Arc<str>>,
}

impl Name {
    pub(super) const fn new(text: &'static str) -> Self {
        Self { text, shared: OnceLock::new() }
    }

    pub(super) fn text(&self) -> &'static str {
        self.text
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.text == name
    }
}

impl From<&Name> for Arc<str> {
    fn from(name: &Name) -> Self {
        name.shared.get_or_init(|| name.text.into()).clone()
    }
}
