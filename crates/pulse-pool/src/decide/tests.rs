use proptest::prelude::*;

use super::*;
use crate::{Epoch, NodeId, id::DispatchId, record::Terms};

const A: WorkerId = WorkerId(1);
const B: WorkerId = WorkerId(2);
const KEYS: [&str; 4] = ["a", "b", "c", "d"];

fn members(workers: &[WorkerId]) -> Members {
    members_with(workers.iter().map(|&worker| (worker, false)))
}

fn members_with(workers: impl IntoIterator<Item = (WorkerId, bool)>) -> Members {
    members_at(2, workers)
}

fn members_at(revision: u64, workers: impl IntoIterator<Item = (WorkerId, bool)>) -> Members {
    let record = |draining| WorkerRecord { node: NodeId(0), weight: 1, draining, labels: Vec::new() };
    let workers = workers.into_iter().map(|(worker, draining)| (worker, record(draining)));
    Members::new(at(revision), workers.collect())
}

fn at(revision: u64) -> Option<PlacedBy> {
    Some(PlacedBy { incarnation: 1, revision })
}

fn ours(workers: &[WorkerId]) -> HashSet<WorkerId> {
    workers.iter().copied().collect()
}

fn record(owner: Option<WorkerId>) -> JobRecord {
    JobRecord::dispatched(DispatchId(1), Terms::default(), owner, at(1))
}

/// A key that A owns where A and B are the workers.
fn key_of(worker: WorkerId) -> String {
    let members = members(&[A, B]);
    let keys = (0..).map(|index| format!("key-{index}"));
    keys.into_iter().find(|key| members.owner(key, &[]) == Some(worker)).expect("half of all keys are")
}

#[test]
fn a_job_of_ours_that_does_not_run_is_started_whether_or_not_it_ran_before() {
    let assigned = record(Some(A));
    for record in [assigned.running(Epoch(3)), assigned] {
        let step = decide("a", Some(&record), Here::Nothing, &members(&[A]), &ours(&[A]));
        assert_eq!(step, Some(Step::Start(A)));
    }
}

#[test]
fn a_running_job_is_left_alone_while_nothing_changes() {
    let record = record(Some(A)).running(Epoch(3));
    let here = Here::Running(record.assignment);
    assert_eq!(decide("a", Some(&record), here, &members(&[A]), &ours(&[A])), None);
}

#[test]
fn a_job_that_was_told_to_stop_is_stopped_also_if_it_were_to_go_on_by_now() {
    let record = record(Some(A)).running(Epoch(3));
    let step = |here| decide("a", Some(&record), here, &members(&[A]), &ours(&[A]));
    assert_eq!(step(Here::Ending(record.assignment)), Some(Step::Stop));
    // And then it starts again.
    assert_eq!(step(Here::Nothing), Some(Step::Start(A)));
}

#[test]
fn a_running_job_is_stopped_before_it_is_handed_over() {
    let key = key_of(B);
    let record = record(Some(A)).running(Epoch(3));
    let (members, ours) = (members(&[A, B]), ours(&[A]));
    assert_eq!(decide(&key, Some(&record), Here::Running(record.assignment), &members, &ours), Some(Step::Stop));
    assert_eq!(
        decide(&key, Some(&record), Here::Nothing, &members, &ours),
        Some(Step::HandOver { from: A, to: Some(B) })
    );
}

#[test]
fn a_start_under_way_is_broken_off_when_the_job_is_to_stop() {
    let record = record(Some(A)).stopping();
    let step = decide("a", Some(&record), Here::Starting(record.assignment), &members(&[A]), &ours(&[A]));
    assert_eq!(step, Some(Step::Interrupt));
}

#[test]
fn what_runs_here_without_a_record_or_under_another_assignment_is_stopped() {
    let current = record(Some(A)).running(Epoch(4));
    for record in [None, Some(&current)] {
        let here = Here::Running(AssignmentId::random());
        assert_eq!(decide("a", record, here, &members(&[A]), &ours(&[A])), Some(Step::Stop));
    }
}

#[test]
fn a_node_without_its_lease_stops_everything_and_takes_nothing() {
    let running = record(Some(A)).running(Epoch(4));
    let members = members(&[B]);
    let step = decide("a", Some(&running), Here::Running(running.assignment), &members, &ours(&[]));
    assert_eq!(step, Some(Step::Stop));
    assert_eq!(decide("a", Some(&running), Here::Nothing, &members, &ours(&[])), None);
}

#[test]
fn a_job_of_a_dead_owner_is_pulled_by_the_worker_that_it_belongs_to() {
    let dead = WorkerId(9);
    let record = record(Some(dead)).running(Epoch(1));
    let (key, members) = (key_of(A), members(&[A, B]));
    assert_eq!(
        decide(&key, Some(&record), Here::Nothing, &members, &ours(&[A])),
        Some(Step::Pull { to: A, dead: Some(dead) })
    );
    assert_eq!(decide(&key, Some(&record), Here::Nothing, &members, &ours(&[B])), None);
}

#[test]
fn a_job_of_a_living_owner_is_not_pulled_even_by_the_worker_that_it_belongs_to() {
    let record = record(Some(B));
    assert_eq!(decide(&key_of(A), Some(&record), Here::Nothing, &members(&[A, B]), &ours(&[A])), None);
}

#[test]
fn a_waiting_job_waits_while_there_is_no_worker_and_is_pulled_when_there_is_one() {
    let record = record(None);
    assert_eq!(decide("a", Some(&record), Here::Nothing, &members(&[]), &ours(&[])), None);
    assert_eq!(
        decide("a", Some(&record), Here::Nothing, &members(&[A]), &ours(&[A])),
        Some(Step::Pull { to: A, dead: None })
    );
}

#[test]
fn a_draining_worker_hands_its_jobs_over_or_leaves_them_waiting() {
    let record = record(Some(A));
    for (others, to) in [(vec![(B, false)], Some(B)), (vec![], None)] {
        let members = members_with([(A, true)].into_iter().chain(others));
        let step = decide("a", Some(&record), Here::Nothing, &members, &ours(&[A]));
        assert_eq!(step, Some(Step::HandOver { from: A, to }));
    }
}

#[test]
fn a_job_asked_to_stop_is_removed_by_its_owner_or_else_by_anybody() {
    let stopping = record(Some(A)).stopping();
    let step = decide("a", Some(&stopping), Here::Nothing, &members(&[A]), &ours(&[A]));
    assert_eq!(step, Some(Step::Remove { dead: None }));
    let step = decide("a", Some(&stopping), Here::Nothing, &members(&[]), &ours(&[]));
    assert_eq!(step, Some(Step::Remove { dead: Some(A) }));
}

#[test]
fn the_trace_of_a_refused_job_is_no_job() {
    let rejected = record(Some(A)).rejected("no");
    assert_eq!(decide("a", Some(&rejected), Here::Nothing, &members(&[A]), &ours(&[A])), None);
    let step = decide("a", Some(&rejected), Here::Running(rejected.assignment), &members(&[A]), &ours(&[A]));
    assert_eq!(step, Some(Step::Stop));
}

#[test]
fn a_job_is_not_given_away_by_a_view_that_is_no_later_than_the_one_it_was_placed_by() {
    let key = key_of(B);
    let (members, ours) = (members(&[A, B]), ours(&[A]));
    for (placed_by, stays) in [(1, false), (2, true), (3, true)] {
        let record = JobRecord::dispatched(DispatchId(1), Terms::default(), Some(A), at(placed_by));
        let expected = if stays { Step::Start(A) } else { Step::HandOver { from: A, to: Some(B) } };
        assert_eq!(decide(&key, Some(&record), Here::Nothing, &members, &ours), Some(expected));
        let running = record.running(Epoch(1));
        let step = decide(&key, Some(&running), Here::Running(running.assignment), &members, &ours);
        assert_eq!(step, (!stays).then_some(Step::Stop));
    }
}

/// A pool whose nodes (one worker each) all see the jobs as they are, and the workers as they were some time ago.
#[derive(Debug, Clone)]
struct Model {
    /// Every state that the workers' map was in. The last one is what the backend checks expectations against.
    history: Vec<BTreeMap<WorkerId, bool>>,
    /// Which state each node sees.
    views: BTreeMap<WorkerId, usize>,
    jobs: BTreeMap<&'static str, JobRecord>,
    /// By node and key.
    here: BTreeMap<(WorkerId, &'static str), AssignmentId>,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Join(WorkerId),
    Drain(WorkerId),
    Die(WorkerId),
    CatchUp(WorkerId),
    Dispatch(&'static str, WorkerId),
    Stop(&'static str),
    /// Everybody does what there is to do.
    Steps,
}

impl Model {
    fn new() -> Self {
        Self { history: vec![BTreeMap::new()], views: BTreeMap::new(), jobs: BTreeMap::new(), here: BTreeMap::new() }
    }

    fn now(&self) -> usize {
        self.history.len() - 1
    }

    fn workers(&self) -> &BTreeMap<WorkerId, bool> {
        &self.history[self.now()]
    }

    fn change(&mut self, change: impl FnOnce(&mut BTreeMap<WorkerId, bool>)) {
        let mut workers = self.workers().clone();
        change(&mut workers);
        self.history.push(workers);
    }

    fn view(&self, state: usize) -> Members {
        members_at(u64::try_from(state).expect("few"), self.history[state].clone())
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Join(worker) if !self.workers().contains_key(&worker) => {
                self.change(|workers| {
                    workers.insert(worker, false);
                });
                // It may take a while until it sees itself.
                self.views.insert(worker, self.now() - 1);
            }
            Event::Drain(worker) if self.workers().contains_key(&worker) => {
                self.change(|workers| {
                    workers.insert(worker, true);
                });
            }
            Event::Die(worker) if self.workers().contains_key(&worker) => {
                self.here.retain(|(node, _), _| *node != worker);
                self.views.remove(&worker);
                self.change(|workers| {
                    workers.remove(&worker);
                });
            }
            Event::CatchUp(worker) => {
                let now = self.now();
                self.views.entry(worker).and_modify(|view| *view = now);
            }
            Event::Dispatch(key, by) if !self.jobs.contains_key(key) => {
                let view = self.view(self.views.get(&by).copied().unwrap_or(self.now()));
                let owner = view.owner(key, &[]).filter(|owner| self.workers().get(owner) == Some(&false));
                let dispatched = JobRecord::dispatched(DispatchId(1), Terms::default(), owner, view.version());
                self.jobs.insert(key, dispatched);
            }
            Event::Stop(key) => {
                self.jobs.entry(key).and_modify(|record| *record = record.stopping());
            }
            Event::Steps => self.come_to_rest(),
            _ => {}
        }
    }

    /// Lets everybody act until nobody can any more, by whatever they see.
    fn come_to_rest(&mut self) {
        for _ in 0..100 {
            if !self.step() {
                return;
            }
        }
        panic!("never at rest: {self:?}");
    }

    /// Takes every step there is once, as far as its transaction is not refused; returns whether any was taken.
    fn step(&mut self) -> bool {
        let mut taken = false;
        for (worker, view) in self.views.clone() {
            let members = self.view(view);
            for key in KEYS {
                let at = self.here.get(&(worker, key));
                let here = at.map_or(Here::Nothing, |&assignment| Here::Running(assignment));
                let Some(step) = decide(key, self.jobs.get(key), here, &members, &ours(&[worker])) else { continue };
                taken |= self.take(worker, key, step, &members);
                let runners = self.here.keys().filter(|(_, other)| *other == key).count();
                assert!(runners <= 1, "{key} runs {runners} times: {self:?}");
            }
        }
        taken
    }

    fn take(&mut self, worker: WorkerId, key: &'static str, step: Step, seen: &Members) -> bool {
        let as_seen = |of: WorkerId| self.workers().get(&of) == seen.get(of).map(|record| record.draining).as_ref();
        let gone = |of: Option<WorkerId>| of.is_none_or(|of| !self.workers().contains_key(&of));
        match step {
            Step::Start(_) => {
                let running = self.jobs[key].running(Epoch(1));
                self.here.insert((worker, key), running.assignment);
                self.jobs.insert(key, running);
            }
            Step::Stop | Step::Interrupt => {
                self.here.remove(&(worker, key));
            }
            Step::Pull { to, dead } if as_seen(to) && gone(dead) => {
                self.jobs.insert(key, self.jobs[key].assigned_to(Some(to), seen.version()));
            }
            Step::HandOver { to, .. } if to.is_none_or(as_seen) => {
                self.jobs.insert(key, self.jobs[key].assigned_to(to, seen.version()));
            }
            Step::Remove { dead } if gone(dead) => {
                self.jobs.remove(key);
            }
            _ => return false,
        }
        true
    }
}

fn event() -> impl Strategy<Value = Event> {
    let worker = (1..6_u64).prop_map(WorkerId);
    let key = prop::sample::select(&KEYS[..]);
    prop_oneof![
        3 => worker.clone().prop_map(Event::Join),
        1 => worker.clone().prop_map(Event::Drain),
        2 => worker.clone().prop_map(Event::Die),
        3 => worker.clone().prop_map(Event::CatchUp),
        4 => (key.clone(), worker).prop_map(|(key, by)| Event::Dispatch(key, by)),
        1 => key.prop_map(Event::Stop),
        4 => Just(Event::Steps),
    ]
}

proptest! {
    /// Also that nodes which see different workers come to rest, rather than throw a job to and fro.
    #[test]
    fn every_job_comes_to_run_once_where_it_belongs(events in prop::collection::vec(event(), 0..60)) {
        let mut model = Model::new();
        for event in events {
            model.apply(event);
        }
        for worker in model.views.keys().copied().collect::<Vec<_>>() {
            model.apply(Event::CatchUp(worker));
        }
        model.come_to_rest();
        let members = model.view(model.now());
        for (key, record) in &model.jobs {
            let belongs_to = members.owner(key, &[]);
            let running = model.here.keys().find(|(_, other)| other == key).map(|(worker, _)| *worker);
            if belongs_to.is_some() {
                prop_assert_eq!(running, belongs_to);
                prop_assert_eq!(record.owner(), belongs_to);
                prop_assert_eq!(&record.phase, &Phase::Running);
            } else {
                prop_assert_eq!(running, None);
            }
        }
    }
}
