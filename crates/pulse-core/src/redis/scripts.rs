//! The scripts that run in the server.

use std::sync::LazyLock;

use bytes::Bytes;

/// A script with the name that the server caches it under.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) source: &'static str,
    pub(super) sha: Bytes,
}

impl Script {
    fn new(source: &'static str) -> Self {
        Self { source, sha: fred::util::sha1_hash(source).into() }
    }
}

/// Any transaction, and the sweep.
pub(super) static TRANSACTION: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        include_str!("lua/transaction/head.lua"),
        include_str!("lua/transaction/maps.lua"),
        include_str!("lua/transaction/leases.lua"),
        include_str!("lua/transaction/sweep.lua"),
        include_str!("lua/transaction/changes.lua"),
        include_str!("lua/transaction/values.lua"),
        include_str!("lua/transaction/expectations.lua"),
        include_str!("lua/transaction/writes.lua"),
        include_str!("lua/transaction/decide.lua"),
        include_str!("lua/trims.lua"),
        include_str!("lua/onces.lua"),
        include_str!("lua/transaction/streams.lua"),
        include_str!("lua/transaction/apply.lua"),
    ))
});
/// One unbound put.
pub(super) static PUT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/put.lua")));
/// Unbound puts into one map.
pub(super) static PUTS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/puts.lua")));
/// Comparisons, puts that are not bound to leases, and deletions, in several maps.
pub(super) static PLAIN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/plain.lua")));
/// Events for one stream.
pub(super) static APPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        include_str!("lua/append.lua"),
        include_str!("lua/trims.lua"),
        include_str!("lua/onces.lua"),
        include_str!("lua/append_main.lua"),
    ))
});
/// Tells what the user may not do in a scope.
pub(super) static PERMISSIONS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/permissions.lua")));
/// Takes over idle pending events.
pub(super) static CLAIM: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/claim.lua")));
/// Sets idle times.
pub(super) static SET_IDLE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/set_idle.lua")));
/// Describes a stream with its groups.
pub(super) static DETAIL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/detail.lua")));
/// Removes a consumer group.
pub(super) static DESTROY_GROUP: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("lua/destroy_group.lua")));
/// Takes what a consumer group missed.
pub(super) static MISSED: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/missed.lua")));
/// Removes an idle consumer.
pub(super) static REMOVE_CONSUMER: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("lua/remove_consumer.lua")));
