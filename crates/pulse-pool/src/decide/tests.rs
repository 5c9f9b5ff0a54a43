use proptest::prelude::*;

use super::*;
use crate::{Epoch, NodeId, id::DispatchId};

const A: WorkerId = WorkerId(1);
const B: WorkerId = WorkerId(2);
const KEYS: [&str; 4] = ["a", "b", "c", "d"];

fn members(workers: &[WorkerId]) -> Members {
    members_with(workers.iter().map(|&worker| (worker, false)))
}

fn members_with(workers: impl IntoIterator<Item = (WorkerId, bool)>) -> Members {
    let record = |draining| WorkerRecord { node: NodeId(0), weight: 1, draining };
    Members::new(workers.into_iter().map(|(worker, draining)| (worker, record(draining))).collect())
}

fn ours(workers: &[WorkerId]) -> HashSet<WorkerId> {
    workers.iter().copied().collect()
}

fn record(owner: Option<WorkerId>) -> JobRecord {
    JobRecord::dispatched(DispatchId::random(), owner)
}

/// A key that A owns where A and B are the workers.
fn key_of(worker: WorkerId) -> String {
    let members = members(&[A, B]);
    let keys = (0..).map(|index| format!("key-{index}"));
    keys.into_iter().find(|key| members.owner(key) == Some(worker)).expect("half of all keys are")
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

/// A pool in which every node sees everything at once and every step succeeds at once.
#[derive(Debug, Clone)]
struct Model {
    workers: BTreeMap<WorkerId, bool>,
    jobs: BTreeMap<&'static str, JobRecord>,
    /// By node (one worker each) and key.
    here: BTreeMap<(WorkerId, &'static str), AssignmentId>,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Join(WorkerId),
    Drain(WorkerId),
    Die(WorkerId),
    Dispatch(&'static str),
    Stop(&'static str),
}

impl Model {
    fn apply(&mut self, event: Event) {
        match event {
            Event::Join(worker) => {
                self.workers.entry(worker).or_insert(false);
            }
            Event::Drain(worker) => {
                self.workers.entry(worker).and_modify(|draining| *draining = true);
            }
            Event::Die(worker) => {
                self.workers.remove(&worker);
                self.here.retain(|(node, _), _| *node != worker);
            }
            Event::Dispatch(key) => {
                let owner = self.members().owner(key);
                self.jobs.entry(key).or_insert_with(|| record(owner));
            }
            Event::Stop(key) => {
                self.jobs.entry(key).and_modify(|record| *record = record.stopping());
            }
        }
    }

    fn members(&self) -> Members {
        members_with(self.workers.clone())
    }

    /// Takes every step there is once; returns how many there were.
    fn step(&mut self) -> usize {
        let members = self.members();
        let mut steps = 0;
        for (worker, key) in self.workers.keys().flat_map(|&worker| KEYS.map(|key| (worker, key))) {
            let at = self.here.get(&(worker, key));
            let here = at.map_or(Here::Nothing, |&assignment| Here::Running(assignment));
            let Some(step) = decide(key, self.jobs.get(key), here, &members, &ours(&[worker])) else { continue };
            steps += 1;
            match step {
                Step::Start(_) => {
                    let running = self.jobs[key].running(Epoch(1));
                    self.here.insert((worker, key), running.assignment);
                    self.jobs.insert(key, running);
                }
                Step::Stop | Step::Interrupt => {
                    self.here.remove(&(worker, key));
                }
                Step::Pull { to, .. } => {
                    self.jobs.insert(key, self.jobs[key].assigned_to(Some(to)));
                }
                Step::HandOver { to, .. } => {
                    self.jobs.insert(key, self.jobs[key].assigned_to(to));
                }
                Step::Remove { .. } => {
                    self.jobs.remove(key);
                }
            }
            let runners = self.here.keys().filter(|(_, other)| *other == key).count();
            assert!(runners <= 1, "{key} runs {runners} times: {self:?}");
        }
        steps
    }
}

fn event() -> impl Strategy<Value = Event> {
    let worker = (1..6_u64).prop_map(WorkerId);
    let key = prop::sample::select(&KEYS[..]);
    prop_oneof![
        worker.clone().prop_map(Event::Join),
        worker.clone().prop_map(Event::Drain),
        worker.prop_map(Event::Die),
        key.clone().prop_map(Event::Dispatch),
        key.prop_map(Event::Stop),
    ]
}

proptest! {
    #[test]
    fn every_job_comes_to_run_once_where_it_belongs(events in prop::collection::vec((event(), 0..4_usize), 0..40)) {
        let mut model = Model { workers: BTreeMap::new(), jobs: BTreeMap::new(), here: BTreeMap::new() };
        for (event, steps) in events {
            model.apply(event);
            for _ in 0..steps {
                model.step();
            }
        }
        let mut rounds = 0;
        while model.step() > 0 {
            rounds += 1;
            prop_assert!(rounds < 10, "never at rest: {model:?}");
        }
        let members = model.members();
        for (key, record) in &model.jobs {
            let belongs_to = members.owner(key);
            let running = model.here.keys().find(|(_, other)| other == key).map(|(worker, _)| *worker);
            prop_assert_eq!(running, belongs_to);
            if belongs_to.is_some() {
                prop_assert_eq!(record.owner, belongs_to);
                prop_assert_eq!(&record.phase, &Phase::Running);
            }
        }
    }
}
