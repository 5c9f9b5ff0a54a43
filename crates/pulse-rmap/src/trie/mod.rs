//! A persistent hash trie: a copy costs nothing, copies share what they have in common, and an item takes about 20
//! bytes beside itself.
//!
//! The persistent maps of the ecosystem take four times that (measured: 77 to 91 bytes an item of 8 bytes with `imbl`
//! 7, whose nodes are of fixed size), which in a replica is as much as the keys and values themselves. Here inner nodes
//! are arrays of 16 children, chosen by four bits of the hash each, and leaves are slices of exactly their items; a
//! leaf that outgrows [`LEAF`] becomes a node, and a node whose items fit half a leaf becomes one again. The shape
//! follows Bagwell's hash array mapped tries (Ideal Hash Trees, 2001), with buckets at the leaves.
//!
//! Pure: no clock, no I/O, no locks.

mod iter;

use std::{hash::BuildHasher, sync::Arc};

pub(crate) use self::iter::Iter;
use crate::hasher::KeyHash;

/// How many bits of the hash a level takes.
const BITS: u32 = 4;
const WIDTH: usize = 1 << BITS;
/// The most items of a leaf, as long as there are bits of the hash left to tell them apart.
const LEAF: usize = 32;

/// What is kept under its own key.
pub(crate) trait Keyed: Clone {
    fn key(&self) -> &str;
}

/// Items by their keys.
pub(crate) struct Trie<T> {
    root: Node<T>,
    len: usize,
}

enum Node<T> {
    Leaf(Arc<[Item<T>]>),
    Inner(Arc<[Self; WIDTH]>),
}

#[derive(Clone)]
struct Item<T> {
    hash: u32,
    item: T,
}

impl<T> Clone for Trie<T> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), len: self.len }
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { root: Node::default(), len: 0 }
    }
}

impl<T> Clone for Node<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(items) => Self::Leaf(Arc::clone(items)),
            Self::Inner(children) => Self::Inner(Arc::clone(children)),
        }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self::Leaf(Arc::from([]))
    }
}

impl<T> Trie<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All items, in no particular order.
    pub(crate) fn iter(&self) -> Iter<'_, T> {
        Iter::new(&self.root)
    }
}

impl<T: Keyed> Trie<T> {
    pub(crate) fn get(&self, key: &str) -> Option<&T> {
        self.root.get(0, hash(key), key)
    }

    /// Visits each item that only one of two tries has, and each that both have under one key; but passes over what the
    /// two share, so that the difference between a trie and a later one costs about as much as the changes between
    /// them.
    pub(crate) fn compare<'a>(&'a self, other: &'a Self, mut visit: impl FnMut(Option<&'a T>, Option<&'a T>)) {
        self.root.compare(0, &other.root, &mut visit);
    }

    /// Puts an item in, and returns the one that had its key.
    pub(crate) fn insert(&mut self, item: T) -> Option<T> {
        let hash = hash(item.key());
        let previous = self.root.insert(0, Item { hash, item });
        self.len += usize::from(previous.is_none());
        previous
    }

    /// Takes an item out.
    pub(crate) fn remove(&mut self, key: &str) -> Option<T> {
        let removed = self.root.remove(0, hash(key), key);
        self.len -= usize::from(removed.is_some());
        removed
    }
}

impl<T: Keyed> Node<T> {
    /// At the level that is reached after that many bits of the hash, as everywhere here.
    fn get(&self, bits: u32, hash: u32, key: &str) -> Option<&T> {
        // Below the last bits there are leaves alone, which need none.
        let (mut node, mut rest) = (self, hash.checked_shr(bits).unwrap_or_default());
        loop {
            match node {
                Self::Inner(children) => {
                    node = &children[index(rest)];
                    rest >>= BITS;
                }
                Self::Leaf(items) => return items.iter().find(|item| item.is(hash, key)).map(|item| &item.item),
            }
        }
    }

    fn compare<'a>(&'a self, bits: u32, other: &'a Self, visit: &mut impl FnMut(Option<&'a T>, Option<&'a T>)) {
        match (self, other) {
            (Self::Leaf(ours), Self::Leaf(theirs)) if Arc::ptr_eq(ours, theirs) => {}
            (Self::Inner(ours), Self::Inner(theirs)) => {
                if !Arc::ptr_eq(ours, theirs) {
                    for (ours, theirs) in ours.iter().zip(&**theirs) {
                        ours.compare(bits + BITS, theirs, visit);
                    }
                }
            }
            _ => {
                for Item { hash, item } in Iter::new(self).items() {
                    visit(Some(item), other.get(bits, *hash, item.key()));
                }
                for Item { hash, item } in Iter::new(other).items() {
                    if self.get(bits, *hash, item.key()).is_none() {
                        visit(None, Some(item));
                    }
                }
            }
        }
    }

    fn insert(&mut self, bits: u32, new: Item<T>) -> Option<T> {
        match self {
            Self::Inner(children) => {
                let child = &mut Arc::make_mut(children)[index(new.hash >> bits)];
                child.insert(bits + BITS, new)
            }
            Self::Leaf(items) => {
                if let Some(at) = items.iter().position(|item| item.is(new.hash, new.item.key())) {
                    let replaced = &mut Arc::make_mut(items)[at];
                    return Some(std::mem::replace(replaced, new).item);
                }
                if items.len() < LEAF || bits >= u32::BITS {
                    *items = items.iter().cloned().chain([new]).collect();
                    return None;
                }
                *self = Self::divided(bits, items);
                self.insert(bits, new)
            }
        }
    }

    fn remove(&mut self, bits: u32, hash: u32, key: &str) -> Option<T> {
        match self {
            Self::Leaf(items) => {
                let at = items.iter().position(|item| item.is(hash, key))?;
                let removed = items[at].item.clone();
                *items = items[..at].iter().chain(&items[at + 1..]).cloned().collect();
                Some(removed)
            }
            Self::Inner(children) => {
                // Looked for first, so that nothing is copied where there is nothing to remove.
                let at = index(hash >> bits);
                if !children[at].has(bits + BITS, hash, key) {
                    return None;
                }
                let removed = Arc::make_mut(children)[at].remove(bits + BITS, hash, key);
                if let Some(items) = few(children) {
                    *self = Self::Leaf(items);
                }
                removed
            }
        }
    }

    fn has(&self, bits: u32, hash: u32, key: &str) -> bool {
        match self {
            Self::Leaf(items) => items.iter().any(|item| item.is(hash, key)),
            Self::Inner(children) => children[index(hash >> bits)].has(bits + BITS, hash, key),
        }
    }

    /// A node with the items of a leaf.
    fn divided(bits: u32, items: &[Item<T>]) -> Self {
        let child = |at: usize| {
            let chosen = items.iter().filter(|item| index(item.hash >> bits) == at);
            Self::Leaf(chosen.cloned().collect())
        };
        Self::Inner(Arc::new(std::array::from_fn(child)))
    }
}

/// The items of a node as one leaf, if they are so few that it will not soon be divided again.
fn few<T: Keyed>(children: &[Node<T>; WIDTH]) -> Option<Arc<[Item<T>]>> {
    let mut leaves = [[].as_slice(); WIDTH];
    let mut count = 0;
    for (leaf, child) in leaves.iter_mut().zip(children) {
        let Node::Leaf(items) = child else { return None };
        count += items.len();
        *leaf = &**items;
    }
    (count <= LEAF / 2).then(|| leaves.concat().into())
}

impl<T: Keyed> Item<T> {
    fn is(&self, hash: u32, key: &str) -> bool {
        self.hash == hash && self.item.key() == key
    }
}

/// Which child the lowest bits choose.
fn index(hash: u32) -> usize {
    hash as usize % WIDTH
}

fn hash(key: &str) -> u32 {
    KeyHash.hash_one(key) as u32
}

#[cfg(test)]
mod tests;
