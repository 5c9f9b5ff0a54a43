//! The conformance suite: every promise of [`Backend`](crate::Backend), checked on any backend.
