//! Names of maps and keys that transactions share instead of copying: every write and every expectation has one.

use std::sync::{Arc, OnceLock};

/// A name that is fixed, and is put into a transaction as a shared handle.
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
