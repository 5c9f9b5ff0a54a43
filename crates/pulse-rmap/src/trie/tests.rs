//! Against a map of the standard library, with copies that must not change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pair(String, u32);

impl Keyed for Pair {
    fn key(&self) -> &str {
        &self.0
    }
}

fn content(trie: &Trie<Pair>) -> BTreeMap<String, u32> {
    let content: BTreeMap<String, u32> = trie.iter().map(|pair| (pair.0.clone(), pair.1)).collect();
    assert_eq!(trie.iter().count(), content.len(), "an item occurs twice");
    assert_eq!(trie.len(), content.len());
    content
}

/// What differs: key, value before, value after, in the order of the keys.
fn differences(before: &Trie<Pair>, after: &Trie<Pair>) -> Vec<(String, Option<u32>, Option<u32>)> {
    let mut differences = Vec::new();
    before.compare(after, |before, after| {
        if before != after {
            let key = before.or(after).map(|pair| pair.0.clone()).expect("one of the two");
            differences.push((key, before.map(|pair| pair.1), after.map(|pair| pair.1)));
        }
    });
    differences.sort();
    differences
}

#[derive(Debug, Clone)]
enum Op {
    Insert(u16, u32),
    Remove(u16),
    /// Many at once, so that nodes divide and close up.
    Fill(u16),
    Empty(u16),
    Copy,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..600_u16, any::<u32>()).prop_map(|(key, value)| Op::Insert(key, value)),
        3 => (0..600_u16).prop_map(Op::Remove),
        1 => (0..600_u16).prop_map(Op::Fill),
        1 => (0..600_u16).prop_map(Op::Empty),
        1 => Just(Op::Copy),
    ]
}

proptest! {
    #[test]
    fn it_is_a_map_and_copies_never_change(ops in prop::collection::vec(op(), 1..80)) {
        let (mut trie, mut model) = (Trie::default(), BTreeMap::new());
        let mut copies = Vec::new();
        let name = |key: u16| format!("key-{key}");
        for op in ops {
            match op {
                Op::Insert(key, value) => {
                    let previous = trie.insert(Pair(name(key), value)).map(|pair: Pair| pair.1);
                    prop_assert_eq!(previous, model.insert(name(key), value));
                }
                Op::Remove(key) => {
                    prop_assert_eq!(trie.remove(&name(key)).map(|pair| pair.1), model.remove(&name(key)));
                }
                Op::Fill(from) => {
                    for key in from..from + 200 {
                        prop_assert_eq!(
                            trie.insert(Pair(name(key), 1)).map(|pair| pair.1),
                            model.insert(name(key), 1)
                        );
                    }
                }
                Op::Empty(from) => {
                    for key in from..from + 200 {
                        prop_assert_eq!(trie.remove(&name(key)).map(|pair| pair.1), model.remove(&name(key)));
                    }
                }
                Op::Copy => copies.push((trie.clone(), model.clone())),
            }
            prop_assert_eq!(trie.len(), model.len());
        }
        copies.push((trie, model));
        for pair in copies.windows(2) {
            let [(before, old), (after, new)] = pair else { unreachable!("two") };
            let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
            let differ = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
            let expected: Vec<_> = differ.map(|key| (key.clone(), old.get(key).copied(), new.get(key).copied())).collect();
            prop_assert_eq!(differences(before, after), expected);
        }
        for (trie, model) in copies {
            prop_assert_eq!(&content(&trie), &model);
            for key in 0..800 {
                prop_assert_eq!(trie.get(&name(key)).map(|pair| pair.1), model.get(&name(key)).copied());
            }
        }
    }
}

#[test]
fn keys_whose_hashes_agree_to_the_last_bit_are_told_apart() {
    let mut root = Node::default();
    let item = |number: u32, hash| Item { hash, item: Pair(number.to_string(), number) };
    for number in 0..100 {
        assert!(root.insert(0, item(number, 7)).is_none());
        root.insert(0, item(1_000 + number, 7 | 1 << 31));
    }
    assert_eq!(Iter::new(&root).count(), 200);
    assert!(root.insert(0, item(5, 7)).is_some());
    for number in 0..100 {
        assert_eq!(root.remove(0, 7, &number.to_string()).map(|pair| pair.1), Some(number));
        assert!(root.remove(0, 7, &number.to_string()).is_none());
    }
    assert_eq!(Iter::new(&root).count(), 100);
}

#[test]
fn a_change_copies_a_path_and_not_the_map() {
    static COPIES: AtomicUsize = AtomicUsize::new(0);
    struct Counting(String);
    impl Clone for Counting {
        fn clone(&self) -> Self {
            COPIES.fetch_add(1, Ordering::Relaxed);
            Self(self.0.clone())
        }
    }
    impl Keyed for Counting {
        fn key(&self) -> &str {
            &self.0
        }
    }
    let mut trie = Trie::default();
    for number in 0..10_000 {
        trie.insert(Counting(number.to_string()));
    }
    let copy = trie.clone();
    COPIES.store(0, Ordering::Relaxed);
    trie.insert(Counting("77".into()));
    trie.insert(Counting("new".into()));
    trie.remove("78");
    trie.remove("never there");
    assert!(COPIES.load(Ordering::Relaxed) <= 4 * LEAF, "{} items were copied", COPIES.load(Ordering::Relaxed));
    assert_eq!((copy.len(), trie.len()), (10_000, 10_000));
}

#[test]
fn what_is_emptied_closes_up() {
    let mut trie = Trie::default();
    for number in 0..5_000 {
        trie.insert(Pair(number.to_string(), number));
    }
    for number in 10..5_000 {
        trie.remove(&number.to_string());
    }
    assert_eq!(trie.len(), 10);
    assert!(matches!(trie.root, Node::Leaf(_)), "ten items in one leaf");
}

#[test]
fn comparing_passes_over_what_two_tries_share() {
    let mut trie = Trie::default();
    for number in 0..10_000 {
        trie.insert(Pair(number.to_string(), number));
    }
    let before = trie.clone();
    trie.insert(Pair("77".into(), 0));
    trie.insert(Pair("new".into(), 0));
    trie.remove("78");
    let mut visited = 0;
    before.compare(&trie, |_, _| visited += 1);
    assert!((3..=3 * (LEAF + 1)).contains(&visited), "{visited} items were visited");
    let expected = [("77", Some(77), Some(0)), ("78", Some(78), None), ("new", None, Some(0))];
    assert_eq!(differences(&before, &trie), expected.map(|(key, before, after)| (key.to_owned(), before, after)));
    assert!(differences(&trie, &trie.clone()).is_empty());
}

#[test]
fn keys_whose_hashes_agree_are_compared_below_the_last_bits() {
    let (mut one, mut other) = (Node::default(), Node::default());
    let item = |number: u32| Item { hash: 7, item: Pair(number.to_string(), number) };
    for number in 0..100 {
        one.insert(0, item(number));
        other.insert(0, item(number + 1));
    }
    let mut lonely = Vec::new();
    one.compare(0, &other, &mut |before: Option<&Pair>, after: Option<&Pair>| {
        if before.is_none() || after.is_none() {
            lonely.push(before.or(after).map(|pair| pair.1));
        }
    });
    assert_eq!(lonely, [Some(0), Some(100)]);
}
