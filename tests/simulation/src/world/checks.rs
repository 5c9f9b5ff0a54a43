//! What must be true at every step, once nothing goes wrong any more, and at the end.

use std::{collections::BTreeSet, time::Duration};

use pulse_pool::{JobState, WorkerId};
use rand::Rng;
use tokio::time::{Instant, sleep, timeout};

use super::{Member, World};
use crate::{book::Known, store, weather::Weather};

/// How long nothing may move for the pool to count as quiet: longer than a lease, for which nodes hold still.
const QUIET: Duration = Duration::from_secs(4);
/// How long everything may take to come right once nothing goes wrong any more.
const HEALING: Duration = Duration::from_secs(90);

impl World<'_> {
    /// What must be true at any time, by what the store holds.
    pub(super) async fn check(&self) {
        self.stage.observe(&self.memory).await;
        for Member { name, node, .. } in &self.members {
            if node.lost_jobs() > 0 && !self.weather.fails_over {
                self.stage.violation(format!("{name} takes {} jobs for lost", node.lost_jobs()));
            }
        }
        let queued = store::keys(&self.memory, store::QUEUE).await.len();
        if queued as u64 > self.weather.max_queued {
            self.stage.violation(format!("{queued} jobs wait where {} may", self.weather.max_queued));
        }
        let jobs: BTreeSet<String> = store::keys(&self.memory, store::JOBS).await.into_iter().collect();
        for (key, known) in self.book.settled() {
            if known == Known::Accepted && !jobs.contains(&key) {
                self.stage.violation(format!("{key} was accepted, and is recorded no more"));
            }
        }
        let dead: BTreeSet<String> = store::keys(&self.memory, store::DEAD).await.into_iter().collect();
        for key in self.book.tasks() {
            if !jobs.contains(&key) && !dead.contains(&key) && !self.stage.is_done(&key) {
                self.stage.violation(format!("{key} was accepted, and is neither recorded nor done"));
            }
        }
    }

    /// Ends all trouble, and waits until everything is as it should be.
    pub(super) async fn calm_down(&mut self) {
        self.stage.note("nothing goes wrong any more");
        self.links.iter().for_each(Weather::clear);
        self.join(false).await;
        if let Some(last) = self.members.pop() {
            Weather::clear(&last.link);
            self.add_tasker(&last).await;
            self.members.push(last);
        }
        self.settle(HEALING).await;
    }

    /// Waits until nothing is left to do: all is right, and stays as it is for a while.
    pub(super) async fn settle(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let (mut places, mut since) = (self.stage.places(), Instant::now());
        loop {
            self.check().await;
            if !self.stage.violations().is_empty() {
                return;
            }
            let (right, now) = (self.is_right().await, self.stage.places());
            if right.is_err() || now != places {
                (places, since) = (now, Instant::now());
            }
            match right {
                Ok(()) if since.elapsed() > QUIET => return,
                Err(left) if Instant::now() > until => {
                    return self.stage.violation(format!("it does not come right: {left}"));
                }
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Every job that was accepted runs, nothing else does, and everybody knows it.
    async fn is_right(&self) -> Result<(), String> {
        if self.book.calls() > 0 {
            return Err(format!("{} calls are under way", self.book.calls()));
        }
        let running = self.stage.running();
        for (key, known) in self.book.settled() {
            if known != Known::Unclear && running.contains_key(&key) != (known == Known::Accepted) {
                let record = match self.members.last() {
                    Some(member) => format!("{:?}", member.node.job(&key).await),
                    None => String::new(),
                };
                return Err(format!("{key} is {known:?}, recorded as {record}; {running:?} run"));
            }
        }
        let dead = store::keys(&self.memory, store::DEAD).await;
        for key in self.book.tasks() {
            if !self.stage.is_done(&key) && !dead.contains(&key) {
                return Err(format!("{key} is not done"));
            }
        }
        for Member { name, node, .. } in &self.members {
            if node.is_cut_off() {
                return Err(format!("{name} is cut off"));
            }
            let jobs = node.jobs().await.map_err(|error| format!("{name} does not know the jobs: {error}"))?;
            let right = jobs.iter().all(|job| {
                let runs = running.get(job.key.as_str()).is_some_and(|(_, epoch)| Some(*epoch) == job.epoch);
                job.state == JobState::Running && runs
            });
            if !right || jobs.len() != running.len() {
                return Err(format!("{name} takes for the jobs {jobs:?}, and {running:?} run"));
            }
        }
        Ok(())
    }

    /// A node comes, and a node goes: only what must moves, and it moves soon.
    pub(super) async fn move_in_fair_weather(&mut self) {
        let before = self.stage.places();
        self.join(false).await;
        let Some(newcomer) = self.members.pop() else { return };
        Weather::clear(&newcomer.link);
        let theirs: BTreeSet<WorkerId> = newcomer.node.workers().iter().map(|worker| worker.id).collect();
        self.members.push(newcomer);
        self.settle(HEALING).await;
        let between = self.stage.places();
        for (key, worker) in &between {
            if before.get(key) != Some(worker) && !theirs.contains(worker) {
                self.stage.violation(format!("{key} moved when others came, and not to them"));
            }
        }
        let Some(leaver) = (self.members.len() > 1).then(|| self.members.remove(0)) else { return };
        let gone: BTreeSet<WorkerId> = leaver.node.workers().iter().map(|worker| worker.id).collect();
        if let Err(error) = leaver.node.close().await {
            self.stage.violation(format!("{} does not close: {error}", leaver.name));
        }
        self.settle(HEALING).await;
        for (key, worker) in self.stage.places() {
            if between.get(&key).is_some_and(|before| *before != worker && !gone.contains(before)) {
                self.stage.violation(format!("{key} moved when others went, and not from them"));
            }
        }
    }

    /// Everybody goes. What is left depends on how.
    pub(super) async fn end(&mut self) {
        let shutdown = self.dice.random_bool(0.3);
        if shutdown && let Some(Member { name, node, .. }) = self.members.first() {
            if let Err(error) = node.shutdown().await {
                self.stage.violation(format!("{name} cannot shut the pool down: {error}"));
            }
            let left = store::keys(&self.memory, store::JOBS).await;
            if !left.is_empty() {
                self.stage.violation(format!("the pool was shut down, and left {left:?}"));
            }
        }
        for Member { name, node, .. } in std::mem::take(&mut self.members) {
            match timeout(Duration::from_secs(60), node.close()).await {
                Ok(Ok(())) => {}
                failed => self.stage.violation(format!("{name} does not close: {failed:?}")),
            }
        }
        let running = self.stage.running();
        if !running.is_empty() {
            self.stage.violation(format!("everybody has gone, and {running:?} run"));
        }
        if !shutdown {
            self.check().await;
        }
    }
}
