//! The state machine against a model that remembers every version of a map.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use proptest::prelude::*;
use pulse_core::{Change as Wire, Cursor, Incarnation, MapPage, Revision, Scope};

use super::*;
use crate::{Snapshot, change::difference};

/// A map as a backend keeps it, with everything that it ever was.
#[derive(Debug, Default)]
struct Model {
    content: BTreeMap<String, u8>,
    version: Option<Version>,
    lives: u64,
    /// What goes to the feeds.
    commits: Vec<MapCommit>,
    history: HashMap<Version, BTreeMap<String, u8>>,
}

#[derive(Debug, Clone)]
enum Op {
    Put(u8, u8),
    Delete(u8),
    Clear,
    Destroy,
    /// Gone with everything, and nobody is told.
    Flush,
}

impl Model {
    fn apply(&mut self, op: &Op) {
        let change = match op {
            Op::Put(key, value) => {
                self.content.insert(name(*key), *value);
                Wire::Put { key: name(*key).into(), value: encoded(*value) }
            }
            Op::Delete(key) if self.content.remove(&name(*key)).is_some() => Wire::Deleted { key: name(*key).into() },
            Op::Clear if !self.content.is_empty() => {
                self.content.clear();
                Wire::Cleared
            }
            Op::Destroy if self.version.is_some() => {
                self.content.clear();
                Wire::Destroyed
            }
            Op::Flush => {
                self.content.clear();
                self.version = None;
                return;
            }
            Op::Delete(_) | Op::Clear | Op::Destroy => return,
        };
        let before = self.version.unwrap_or_else(|| {
            self.lives += 1;
            Version { incarnation: Incarnation(self.lives), revision: Revision(0) }
        });
        let after = Revision(before.revision.0 + 1);
        let commit = MapCommit::new(before.incarnation, before.revision, after, vec![change]);
        self.version = commit.version();
        if let Some(version) = self.version {
            self.history.insert(version, self.content.clone());
        }
        self.commits.push(commit);
    }

    fn at(&self, version: Option<Version>) -> BTreeMap<String, u8> {
        version.map_or_else(BTreeMap::new, |version| self.history[&version].clone())
    }

    /// Some entries after the cursor, as they are now.
    fn page(&self, cursor: Option<&Cursor>, limit: usize) -> MapPage {
        let after = cursor.map_or("", |cursor| cursor.0.as_str());
        let mut rest = self.content.iter().filter(|(key, _)| key.as_str() > after);
        let entries: Vec<_> = rest.by_ref().take(limit).collect();
        let next = entries.last().filter(|_| rest.next().is_some()).map(|(key, _)| Cursor((*key).clone()));
        MapPage::new(entries.into_iter().map(|(key, value)| (key.as_str().into(), encoded(*value))).collect(), next)
    }
}

fn name(key: u8) -> String {
    format!("key-{key:03}")
}

fn encoded(value: u8) -> Bytes {
    Codec::message_pack().encode(&value).unwrap()
}

fn replica() -> Replica<u8> {
    Replica::new(Scope::new("s").unwrap().map("m").unwrap(), Codec::message_pack())
}

fn plain(content: &Content<u8>) -> BTreeMap<String, u8> {
    content.iter().map(|(key, value)| (key.to_string(), **value)).collect()
}

fn snapshot(replica: &Replica<u8>) -> Snapshot<u8> {
    Arc::new(replica.view()).into()
}

/// Reads the model as it is, with nothing happening meanwhile.
fn resync(replica: &mut Replica<u8>, model: &Model) {
    let mut scan = replica.scan(model.version);
    scan.page(model.page(None, usize::MAX));
    assert_eq!(scan.reached(model.version), Reached::Yes);
    replica.adopt(scan);
}

fn change<V: std::fmt::Debug>(update: Update<V>) -> Change<V> {
    match update {
        Update::Change(change) => change,
        other => panic!("expected a change, got {other:?}"),
    }
}

/// What a subscriber knows who applies every change to what it knew.
#[derive(Debug, Default)]
struct Folded {
    content: BTreeMap<String, u8>,
}

impl Folded {
    fn fold(&mut self, updates: Vec<Update<u8>>) {
        for update in updates {
            let change = match update {
                Update::Change(change) => change,
                Update::Cleared(cleared) => {
                    assert_eq!(cleared.keys, self.content.len() as u64, "the deletions follow");
                    continue;
                }
                Update::Lagged => panic!("a replica does not lag"),
            };
            let key = change.key.to_string();
            let previous = match change.value {
                Some(value) => self.content.insert(key, *value),
                None => self.content.remove(&key),
            };
            assert_eq!(previous, change.previous.as_deref().copied(), "of {}", change.key);
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (0..12_u8, any::<u8>()).prop_map(|(key, value)| Op::Put(key, value)),
        8 => (0..12_u8).prop_map(Op::Delete),
        1 => Just(Op::Clear),
        1 => Just(Op::Destroy),
        1 => Just(Op::Flush),
    ]
}

/// What happens to a commit on its way.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrives,
    IsLost,
    ArrivesTwice,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![10 => Just(Fate::Arrives), 1 => Just(Fate::IsLost), 1 => Just(Fate::ArrivesTwice)]
}

/// One moment of a scan.
#[derive(Debug, Clone)]
enum Moment {
    Change(Op),
    /// The feed brings the next commit.
    Deliver,
    /// The backend reads a page of that many entries; its answer sets out.
    Page(usize),
    /// The answer arrives.
    Answer,
}

fn moment(ops: impl Strategy<Value = Op>) -> impl Strategy<Value = Moment> {
    prop_oneof![
        3 => ops.prop_map(Moment::Change),
        3 => Just(Moment::Deliver),
        2 => (1..5_usize).prop_map(Moment::Page),
        2 => Just(Moment::Answer),
    ]
}

/// The pages of a scan, one at a time.
#[derive(Debug, Default)]
struct Pages {
    cursor: Option<Cursor>,
    on_its_way: Option<MapPage>,
    complete: bool,
}

impl Pages {
    fn read(&mut self, model: &Model, limit: usize) {
        if !self.complete && self.on_its_way.is_none() {
            self.on_its_way = Some(model.page(self.cursor.as_ref(), limit));
        }
    }

    fn answer(&mut self, scan: &mut Scan<u8>) {
        if let Some(page) = self.on_its_way.take() {
            self.cursor.clone_from(&page.next);
            self.complete = page.next.is_none();
            scan.page(page);
        }
    }
}

/// Scans through the moments, then to its end. `late` commits before the scan are still on their way when it begins.
/// Returns what it found, `None` if the scan must be begun again.
fn scan_through(model: &mut Model, late: usize, moments: &[Moment]) -> Option<(BTreeMap<String, u8>, Option<Version>)> {
    let mut next = model.commits.len().saturating_sub(late);
    let mut scan = replica().scan(model.version);
    let mut pages = Pages::default();
    for moment in moments {
        match moment {
            Moment::Change(op) => model.apply(op),
            Moment::Page(limit) => pages.read(model, *limit),
            Moment::Answer => pages.answer(&mut scan),
            Moment::Deliver => {
                if let Some(commit) = model.commits.get(next) {
                    next += 1;
                    scan.commit(commit.clone()).ok()?;
                }
            }
        }
    }
    while !pages.complete {
        pages.read(model, 3);
        pages.answer(&mut scan);
    }
    let second = model.version;
    while scan.reached(second) == Reached::NotYet {
        let commit = model.commits.get(next)?;
        next += 1;
        scan.commit(commit.clone()).ok()?;
    }
    (scan.reached(second) == Reached::Yes).then(|| {
        let (content, position) = scan.into_parts();
        (plain(&content), position.version())
    })
}

proptest! {
    #[test]
    fn a_scan_that_completes_is_exactly_the_map_at_its_version(
        earlier in prop::collection::vec(op(), 0..30),
        late in 0..4_usize,
        moments in prop::collection::vec(moment(op()), 0..60),
    ) {
        let mut model = Model::default();
        earlier.iter().for_each(|op| model.apply(op));
        if let Some((content, version)) = scan_through(&mut model, late, &moments) {
            prop_assert_eq!(content, model.at(version));
        }
    }

    #[test]
    fn a_scan_always_completes_while_the_map_is_only_written_and_cleared(
        earlier in prop::collection::vec(op(), 0..30),
        moments in prop::collection::vec(
            moment(op().prop_filter("same life", |op| !matches!(op, Op::Destroy | Op::Flush))), 0..60,
        ),
    ) {
        let mut model = Model::default();
        earlier.iter().for_each(|op| model.apply(op));
        let (content, version) = scan_through(&mut model, 0, &moments).expect("a complete scan");
        prop_assert_eq!(content, model.at(version));
    }

    #[test]
    fn a_replica_shows_only_versions_that_existed_and_its_changes_fold_to_each(
        steps in prop::collection::vec((op(), fate()), 0..120),
    ) {
        let (mut model, mut replica, mut folded) = (Model::default(), replica(), Folded::default());
        for (op, fate) in &steps {
            let sent = model.commits.len();
            model.apply(op);
            for commit in &model.commits[sent..] {
                let times = match fate { Fate::Arrives => 1, Fate::IsLost => 0, Fate::ArrivesTwice => 2 };
                for _ in 0..times {
                    if replica.commit(commit.clone()).is_err() {
                        folded.fold(replica.take_changes());
                        let before = snapshot(&replica);
                        resync(&mut replica, &model);
                        folded.fold(difference(&before, &snapshot(&replica)));
                    }
                    folded.fold(replica.take_changes());
                    prop_assert_eq!(plain(&replica.content), model.at(replica.version()));
                    prop_assert_eq!(&folded.content, &plain(&replica.content));
                }
            }
        }
        // When it is quiet, comparing versions finds what the feed did not show.
        if replica.version() != model.version {
            let before = snapshot(&replica);
            resync(&mut replica, &model);
            folded.fold(difference(&before, &snapshot(&replica)));
        }
        prop_assert_eq!(&folded.content, &model.content);
    }
}

fn model_with(ops: &[Op]) -> Model {
    let mut model = Model::default();
    ops.iter().for_each(|op| model.apply(op));
    model
}

#[test]
fn a_missing_commit_stops_the_replica_before_it_applies_the_next() {
    let model = model_with(&[Op::Put(1, 1), Op::Put(2, 2), Op::Put(3, 3)]);
    let mut replica = replica();
    replica.commit(model.commits[0].clone()).unwrap();
    assert!(matches!(replica.commit(model.commits[2].clone()), Err(Broken::Discontinuous { .. })));
    assert_eq!(plain(&replica.content), model.at(replica.version()));
    assert_eq!(replica.take_changes().len(), 1);
}

#[test]
fn commits_that_a_read_version_includes_are_passed_over_until_the_feed_has_caught_up() {
    let mut model = model_with(&[Op::Put(1, 1), Op::Put(1, 2), Op::Put(1, 3)]);
    let mut replica = replica();
    resync(&mut replica, &model);
    for commit in &model.commits[1..] {
        replica.commit(commit.clone()).unwrap();
    }
    assert!(replica.take_changes().is_empty());
    model.apply(&Op::Put(1, 4));
    replica.commit(model.commits[3].clone()).unwrap();
    assert_eq!(replica.take_changes().len(), 1);
}

#[test]
fn a_revision_that_goes_back_once_the_feed_leads_is_no_old_news() {
    let model = model_with(&[Op::Put(1, 1), Op::Put(1, 2)]);
    let mut replica = replica();
    for commit in &model.commits {
        replica.commit(commit.clone()).unwrap();
    }
    assert!(matches!(replica.commit(model.commits[1].clone()), Err(Broken::Discontinuous { .. })));
}

#[test]
fn a_map_that_begins_anew_without_having_ended_is_not_continued() {
    let model = model_with(&[Op::Put(1, 1), Op::Flush, Op::Put(2, 2)]);
    let mut replica = replica();
    replica.commit(model.commits[0].clone()).unwrap();
    assert!(matches!(replica.commit(model.commits[1].clone()), Err(Broken::Discontinuous { .. })));
}

#[test]
fn a_destroyed_map_begins_anew_as_a_continuation() {
    let model = model_with(&[Op::Put(1, 1), Op::Destroy, Op::Put(2, 2)]);
    let mut replica = replica();
    for commit in &model.commits {
        replica.commit(commit.clone()).unwrap();
    }
    assert_eq!(plain(&replica.content), model.content);
    let [Update::Change(set), Update::Cleared(cleared), Update::Change(deleted), Update::Change(again)] =
        &replica.take_changes()[..]
    else {
        panic!("a change, the end with its one deletion, and a change")
    };
    assert!(set.version.is_some() && again.version.is_some());
    assert_eq!((cleared.keys, cleared.version, deleted.version), (1, None, None));
}

#[test]
fn a_scan_of_a_map_that_was_flushed_meanwhile_is_never_complete() {
    let model = model_with(&[Op::Put(1, 1)]);
    let mut scan = replica().scan(model.version);
    scan.page(model.page(None, 10));
    assert_eq!(scan.reached(None), Reached::Never);
    assert_eq!(scan.reached(model_with(&[Op::Put(1, 1), Op::Flush, Op::Put(1, 2)]).version), Reached::Never);
}

#[test]
fn values_that_do_not_decode_are_counted_readable_raw_and_replaced_like_others() {
    let mut replica = replica();
    let commit = |before: u64, raw: &'static [u8]| {
        let change = Wire::Put { key: "k".into(), value: Bytes::from_static(raw) };
        MapCommit::new(Incarnation(1), Revision(before), Revision(before + 1), vec![change])
    };
    replica.commit(commit(0, b"\x07")).unwrap();
    replica.commit(commit(1, b"not a number")).unwrap();
    assert_eq!((replica.content.len(), replica.content.unreadable()), (0, 1));
    assert_eq!(replica.content.get_raw("k").unwrap(), "not a number");
    replica.commit(commit(2, b"\x08")).unwrap();
    assert_eq!((replica.content.len(), replica.content.unreadable()), (1, 0));
    let changes = replica.take_changes().into_iter().map(change);
    let kinds: Vec<_> = changes.map(|change| (change.kind, change.value)).collect();
    assert!(matches!(
        kinds.as_slice(),
        [(crate::ChangeKind::Set, Some(_)), (crate::ChangeKind::Unreadable, None), (crate::ChangeKind::Set, Some(_))]
    ));
}

#[test]
fn a_resync_shares_values_that_did_not_change_and_reports_only_those_that_did() {
    let mut model = model_with(&[Op::Put(1, 1), Op::Put(2, 2), Op::Put(3, 3)]);
    let mut replica = replica();
    resync(&mut replica, &model);
    let before = snapshot(&replica);
    model.apply(&Op::Put(2, 9));
    model.apply(&Op::Delete(3));
    resync(&mut replica, &model);
    let after = snapshot(&replica);
    let changed: Vec<_> =
        difference(&before, &after).into_iter().map(|update| change(update).key.to_string()).collect();
    assert_eq!(changed, [name(3), name(2)]);
    let pointer = |snapshot: &Snapshot<u8>| snapshot.value(&name(1)).unwrap().raw().as_ptr();
    assert_eq!(pointer(&before), pointer(&after));
}

#[test]
fn a_scan_of_no_map_takes_in_a_life_that_begins_before_the_answer_that_there_is_none() {
    let model = model_with(&[Op::Put(1, 1)]);
    let mut scan = replica().scan(None);
    scan.page(MapPage::new(Vec::new(), None));
    scan.commit(model.commits[0].clone()).unwrap();
    assert_eq!(scan.reached(None), Reached::Yes);
    assert_eq!(plain(&scan.into_parts().0), model.content);
}
