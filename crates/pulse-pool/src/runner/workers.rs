//! The workers of this node, from joining to leaving.

use std::{collections::HashSet, fmt, num::NonZeroUsize};

use tokio::sync::oneshot;

use crate::{
    Error, NodeId, WorkerId, WorkerOptions,
    contain::Handler,
    decide::Members,
    record::{JobRecord, WorkerRecord},
};

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// The workers of one node.
#[derive(Debug, Default)]
pub(super) struct OurWorkers {
    all: Vec<OurWorker>,
    /// Those that stand in the pool under the lease that the node holds now.
    ours: HashSet<WorkerId>,
}

pub(super) struct OurWorker {
    pub(super) id: WorkerId,
    /// From leases that were lost; whoever added the worker knows it by the first.
    former: Vec<WorkerId>,
    pub(super) handler: Handler,
    options: WorkerOptions,
    pub(super) state: WorkerState,
    /// How many records name it as owner.
    owned: usize,
    /// Told when it takes jobs.
    added: Option<Reply<WorkerId>>,
    /// It has to go, as soon as it is in.
    leaves: bool,
    /// Told when it is gone.
    removed: Vec<Reply<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkerState {
    /// To be written down as soon as the node has a lease.
    Joining,
    /// Written down. `seen`: our own replica shows it.
    Active { seen: bool },
    /// Hands its jobs over. `settled`: the replica shows every job that was ever assigned to it.
    Draining { settled: bool },
    /// Is being taken out of the pool.
    Leaving,
}

impl OurWorkers {
    pub(super) fn ours(&self) -> &HashSet<WorkerId> {
        &self.ours
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn get(&self, id: WorkerId) -> Option<&OurWorker> {
        self.all.iter().find(|worker| worker.id == id)
    }

    /// Whether a worker of this node had that id under a lease that was lost.
    pub(super) fn is_former(&self, id: WorkerId) -> bool {
        self.all.iter().any(|worker| worker.former.contains(&id))
    }

    fn get_mut(&mut self, id: WorkerId) -> Option<&mut OurWorker> {
        self.all.iter_mut().find(|worker| worker.id == id)
    }

    pub(super) fn ids(&self, state: impl Fn(WorkerState) -> bool) -> Vec<WorkerId> {
        self.all.iter().filter(|worker| state(worker.state)).map(|worker| worker.id).collect()
    }

    pub(super) fn add(&mut self, handler: Handler, options: WorkerOptions, reply: Reply<WorkerId>) -> WorkerId {
        let id = WorkerId::random();
        self.all.push(OurWorker {
            id,
            former: Vec::new(),
            handler,
            options,
            state: WorkerState::Joining,
            owned: 0,
            added: Some(reply),
            leaves: false,
            removed: Vec::new(),
        });
        id
    }

    /// Notes that a worker has to go. Gives the reply back if there is no worker of that id, present or former.
    pub(super) fn ask_to_leave(&mut self, id: WorkerId, reply: Reply<()>) -> Result<WorkerId, Reply<()>> {
        match self.all.iter_mut().find(|worker| worker.id == id || worker.former.contains(&id)) {
            Some(worker) => {
                worker.leaves = true;
                worker.removed.push(reply);
                Ok(worker.id)
            }
            None => Err(reply),
        }
    }

    pub(super) fn ask_all_to_leave(&mut self) {
        self.all.iter_mut().for_each(|worker| worker.leaves = true);
    }

    /// Notes that a worker is written down. Returns whether it is to be drained at once; `None` if it is not expected.
    pub(super) fn registered(&mut self, id: WorkerId) -> Option<bool> {
        let worker = self.get_mut(id).filter(|worker| worker.state == WorkerState::Joining)?;
        worker.state = WorkerState::Active { seen: false };
        let leaves = worker.leaves;
        self.ours.insert(id);
        Some(leaves)
    }

    /// Those of them that have to go, and do not stand in the pool.
    pub(super) fn never_in(&self, ids: &[WorkerId]) -> Vec<WorkerId> {
        let is_out = |worker: &OurWorker| worker.leaves && worker.state == WorkerState::Joining;
        ids.iter().copied().filter(|id| self.get(*id).is_some_and(is_out)).collect()
    }

    /// Whether somebody waits to hear that the worker takes jobs.
    pub(super) fn is_being_added(&self, id: WorkerId) -> bool {
        self.get(id).is_some_and(|worker| worker.added.is_some())
    }

    /// Gives up a worker that cannot be written down.
    pub(super) fn failed(&mut self, id: WorkerId, error: Error) {
        if let Some(added) = self.remove(id).and_then(|worker| worker.added) {
            // Whoever asked may not wait for the answer any more.
            let _ = added.send(Err(error));
        }
    }

    /// Moves a worker on from being active to `Draining`; `false` if it is at another point.
    pub(super) fn drain(&mut self, id: WorkerId) -> bool {
        let worker = self.get_mut(id).filter(|worker| matches!(worker.state, WorkerState::Active { .. }));
        worker.is_some_and(|worker| {
            worker.state = WorkerState::Draining { settled: false };
            worker.tell_added();
            true
        })
    }

    /// Takes out those that drain, and of which the replica shows that the backend has forgotten that: to be said
    /// again.
    pub(super) fn drain_again(&mut self, members: &Members) -> Vec<WorkerId> {
        let forgotten = |worker: &&mut OurWorker| {
            worker.state == WorkerState::Draining { settled: true }
                && members.get(worker.id).is_some_and(|record| !record.draining)
        };
        let forgotten = self.all.iter_mut().filter(forgotten);
        forgotten
            .map(|worker| {
                worker.state = WorkerState::Draining { settled: false };
                worker.id
            })
            .collect()
    }

    pub(super) fn settled(&mut self, id: WorkerId) {
        if let Some(worker) = self.get_mut(id).filter(|worker| matches!(worker.state, WorkerState::Draining { .. })) {
            worker.state = WorkerState::Draining { settled: true };
        }
    }

    /// The workers that have handed over everything, as far as the records say.
    pub(super) fn drained(&self) -> Vec<WorkerId> {
        let drained =
            |worker: &&OurWorker| worker.state == WorkerState::Draining { settled: true } && worker.owned == 0;
        self.all.iter().filter(drained).map(|worker| worker.id).collect()
    }

    pub(super) fn leave(&mut self, id: WorkerId) {
        if let Some(worker) = self.get_mut(id) {
            worker.state = WorkerState::Leaving;
        }
    }

    pub(super) fn left(&mut self, id: WorkerId) {
        if let Some(worker) = self.remove(id) {
            worker.tell_removed();
        }
    }

    /// Keeps count of the records that name our workers.
    pub(super) fn count(&mut self, before: Option<&JobRecord>, after: Option<&JobRecord>) {
        let owner = |record: Option<&JobRecord>| record.filter(|record| record.is_job()).and_then(JobRecord::owner);
        let (before, after) = (owner(before), owner(after));
        if before == after {
            return;
        }
        if let Some(worker) = before.and_then(|id| self.get_mut(id)) {
            worker.owned = worker.owned.saturating_sub(1);
        }
        if let Some(worker) = after.and_then(|id| self.get_mut(id)) {
            worker.owned += 1;
        }
    }

    /// Learns what the replica shows. Returns `false` if a worker that it showed has vanished: then the pool takes this
    /// node for dead, whatever its lease.
    pub(super) fn seen(&mut self, members: &Members) -> bool {
        let mut all_there = true;
        for worker in &mut self.all {
            let there = members.get(worker.id).is_some();
            match &mut worker.state {
                WorkerState::Active { seen } if there => {
                    *seen = true;
                    worker.tell_added();
                }
                WorkerState::Active { seen: true } | WorkerState::Draining { settled: true } if !there => {
                    all_there = false;
                }
                _ => {}
            }
        }
        all_there
    }

    /// Turns the workers of a lost lease into new ones that wait for the next; those that had to go are gone.
    pub(super) fn lost(&mut self) {
        self.ours.clear();
        let (leaving, staying): (Vec<_>, Vec<_>) = self.all.drain(..).partition(|worker| worker.leaves);
        self.all = staying;
        leaving.into_iter().for_each(OurWorker::tell_removed);
        for worker in &mut self.all {
            worker.former.push(worker.id);
            worker.id = WorkerId::random();
            worker.state = WorkerState::Joining;
            worker.owned = 0;
        }
    }

    fn remove(&mut self, id: WorkerId) -> Option<OurWorker> {
        self.ours.remove(&id);
        let index = self.all.iter().position(|worker| worker.id == id)?;
        Some(self.all.swap_remove(index))
    }
}

impl OurWorker {
    pub(super) fn record(&self, node: NodeId) -> WorkerRecord {
        let draining = matches!(self.state, WorkerState::Draining { .. });
        let labels = self.options.labels.iter().cloned().collect();
        WorkerRecord { node, weight: self.options.weight, draining, labels }
    }

    /// Whether it is to go on taking jobs.
    pub(super) fn stays(&self) -> bool {
        !self.leaves && matches!(self.state, WorkerState::Active { .. })
    }

    /// How many of its jobs may be in its handler's hands at once.
    pub(super) fn room(&self) -> usize {
        self.options.concurrency.map_or(usize::MAX, NonZeroUsize::get)
    }

    fn tell_added(&mut self) {
        if let Some(added) = self.added.take() {
            // Whoever asked may not wait for the answer any more.
            let _ = added.send(Ok(self.id));
        }
    }

    fn tell_removed(self) {
        for removed in self.removed {
            // Whoever asked may not wait for the answer any more.
            let _ = removed.send(Ok(()));
        }
    }
}

impl fmt::Debug for OurWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OurWorker")
            .field("id", &self.id)
            .field("former", &self.former)
            .field("state", &self.state)
            .field("owned", &self.owned)
            .finish_non_exhaustive()
    }
}
