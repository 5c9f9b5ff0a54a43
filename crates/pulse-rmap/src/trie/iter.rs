//! Visiting all items.

use super::{Item, Node};

/// All items of a trie, in no particular order.
pub(crate) struct Iter<'a, T> {
    /// What is left of each node on the way to the leaf.
    nodes: Vec<std::slice::Iter<'a, Node<T>>>,
    /// What is left of the leaf.
    items: std::slice::Iter<'a, Item<T>>,
}

impl<'a, T> Iter<'a, T> {
    pub(super) fn new(root: &'a Node<T>) -> Self {
        Self { nodes: vec![std::slice::from_ref(root).iter()], items: [].iter() }
    }

    /// The same with their hashes.
    pub(super) fn items(mut self) -> impl Iterator<Item = &'a Item<T>> {
        std::iter::from_fn(move || self.next_item())
    }

    fn next_item(&mut self) -> Option<&'a Item<T>> {
        loop {
            if let Some(item) = self.items.next() {
                return Some(item);
            }
            match self.nodes.last_mut()?.next() {
                Some(Node::Leaf(items)) => self.items = items.iter(),
                Some(Node::Inner(children)) => self.nodes.push(children.iter()),
                None => drop(self.nodes.pop()),
            }
        }
    }
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        self.next_item().map(|item| &item.item)
    }
}
