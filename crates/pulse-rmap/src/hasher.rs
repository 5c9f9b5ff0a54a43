//! The hash function of the local maps: xxh3 with a seed drawn per process.
//!
//! Keys come from the network, so the seed keeps a stranger from choosing keys that collide; and a lookup spends most
//! of its time on hashing, so the standard library's hasher would be felt.

use std::{
    hash::{BuildHasher, Hasher},
    sync::LazyLock,
};

use pulse_core::entropy;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Makes [`KeyHasher`]s. All of a process share one seed, so that maps can share nodes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KeyHash;

static SEED: LazyLock<u64> = LazyLock::new(entropy::hash_seed);

impl BuildHasher for KeyHash {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher(*SEED)
    }
}

/// Folds each write into a seed for the next one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u8(&mut self, _: u8) {
        // What `str` appends to tell where it ends. A key is one string, so its end needs no mark.
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
