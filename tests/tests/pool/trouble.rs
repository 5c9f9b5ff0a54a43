//! Everything at once: nodes join, leave, die, are cut off and come back, over links that lose requests and answers.
//!
//! The schedule follows from the seed, which a failure prints. The ids of workers are drawn at random, so that two runs
//! of a seed may still place jobs differently.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pulse_core::{
    Backend, Client, Limits, Memory,
    testing::{Chances, Faulty, FeedChances},
};
use pulse_pool::{Error, JobState, Node};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tests::eventually;

use crate::{TTL, board::Board, keys};

#[tokio::test(start_paused = true)]
async fn no_job_is_lost_and_none_runs_twice_whatever_happens() {
    // PULSE_SEED=7 runs that one alone.
    let only = std::env::var("PULSE_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in only.map_or(0..30, |seed: u64| seed..seed + 1) {
        // Shown if the test fails.
        println!("seed {seed}");
        Trouble::run(seed).await;
    }
}

/// A node with its link.
struct Member {
    link: Faulty,
    node: Node,
    /// Without workers, and without a replica of the jobs.
    is_client: bool,
}

/// What the test knows of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It was never dispatched, or was stopped.
    Absent,
    /// Its dispatch was confirmed.
    Accepted,
    /// The last call on it did not say what it came to.
    Unclear,
}

struct Trouble {
    dice: StdRng,
    store: Arc<dyn Backend>,
    board: Board,
    members: Vec<Member>,
    born: usize,
    jobs: BTreeMap<String, Known>,
}

impl Trouble {
    async fn run(seed: u64) {
        let mut trouble = Self {
            dice: StdRng::seed_from_u64(seed),
            store: Arc::new(Memory::with_limits(Limits::default())),
            board: Board::default(),
            members: Vec::new(),
            born: 0,
            jobs: keys(12).into_iter().map(|key| (key, Known::Absent)).collect(),
        };
        trouble.join(false).await;
        for _ in 0..60 {
            trouble.step().await;
            trouble.board.check();
            tokio::time::sleep(Duration::from_millis(trouble.dice.random_range(0..700))).await;
        }
        trouble.calm_down().await;
    }

    async fn step(&mut self) {
        let index = self.dice.random_range(0..self.members.len());
        let member = &self.members[index];
        match self.dice.random_range(0..14) {
            0 | 1 if self.members.len() < 4 => self.join(true).await,
            2 if self.members.len() > 1 => {
                let node = self.members.swap_remove(index).node;
                assert_eq!(node.lost_jobs(), 0);
            }
            3 if self.members.len() > 1 => {
                let node = self.members.swap_remove(index).node;
                // It may be in no state to do so in good order.
                let _ = node.close().await;
                assert_eq!(node.lost_jobs(), 0);
            }
            4 => member.link.partition(),
            5 => member.link.pause(),
            6 | 7 => self.members.iter().for_each(|member| {
                member.link.heal();
                member.link.resume();
            }),
            8 => self.stop(index).await,
            _ => self.dispatch(index).await,
        }
    }

    async fn join(&mut self, may_be_client: bool) {
        self.born += 1;
        let link = Faulty::new(self.store.clone(), self.dice.random());
        link.set_patience(Duration::from_secs(1));
        let client = Client::from_backend(Arc::new(link.clone()));
        let builder = Node::builder("orchestra").worker_ttl(TTL).timeout(Duration::from_secs(4));
        let builder = builder.shutdown_timeout(Duration::from_secs(4));
        let is_client = may_be_client && self.dice.random_bool(0.2);
        let builder = if is_client { builder.client_only() } else { builder };
        let node = builder.join(&client).await.expect("nothing fails yet");
        if !is_client {
            node.add_worker(self.board.player(&format!("node {}", self.born))).await.expect("nothing fails yet");
        }
        let delay = Duration::ZERO..=Duration::from_millis(30);
        let chances = Chances::none().with_delay(delay.clone());
        link.set_chances(chances.with_failures_before(0.03).with_failures_after(0.03));
        link.set_feed_chances(FeedChances::none().with_delay(delay));
        self.members.push(Member { link, node, is_client });
    }

    fn any_key(&mut self) -> String {
        let keys: Vec<&String> = self.jobs.keys().collect();
        (*keys.choose(&mut self.dice).expect("there are keys")).clone()
    }

    async fn dispatch(&mut self, index: usize) {
        let key = self.any_key();
        let known = self.jobs[&key];
        let dispatched = self.members[index].node.dispatch(&key, "").await;
        let now = match &dispatched {
            Ok(_) | Err(Error::NotStarted { .. }) => Known::Accepted,
            Err(Error::Exists { .. }) => known,
            Err(_) => Known::Unclear,
        };
        match known {
            Known::Absent => assert!(!matches!(dispatched, Err(Error::Exists { .. })), "{key} was absent"),
            Known::Accepted => assert!(now != Known::Accepted || dispatched.is_err(), "{key} was lost: {dispatched:?}"),
            Known::Unclear => {}
        }
        self.jobs.insert(key, now);
    }

    async fn stop(&mut self, index: usize) {
        let key = self.any_key();
        let stopped = self.members[index].node.stop(&key).await;
        let lost = self.jobs[&key] == Known::Accepted && matches!(stopped, Err(Error::UnknownJob { .. }));
        assert!(!lost, "{key} was lost: {stopped:?}");
        let now = match stopped {
            Ok(()) | Err(Error::UnknownJob { .. }) => Known::Absent,
            Err(_) => Known::Unclear,
        };
        self.jobs.insert(key, now);
    }

    /// Ends all trouble, and checks that everything is as it should be.
    async fn calm_down(mut self) {
        for Member { link, .. } in &self.members {
            link.heal();
            link.resume();
            link.set_chances(Chances::none());
            link.set_feed_chances(FeedChances::none());
        }
        if self.members.iter().all(|member| member.is_client) {
            self.join(false).await;
        }
        eventually("every accepted job runs, and nothing else does", async || {
            let running = self.board.running();
            for (key, known) in &self.jobs {
                let right = match known {
                    Known::Absent => !running.contains_key(key),
                    Known::Accepted => running.contains_key(key),
                    Known::Unclear => true,
                };
                if !right {
                    return Err(format!("{key} was {known:?}, running: {running:?}"));
                }
            }
            // Every replica agrees with the outside world.
            for Member { node, .. } in &self.members {
                let jobs = node.jobs().await.unwrap();
                let right = jobs.len() == running.len()
                    && jobs.iter().all(|job| {
                        job.state == JobState::Running
                            && running.get(job.key.as_str()).is_some_and(|run| Some(run.epoch) == job.epoch)
                    });
                if !right {
                    return Err(format!("{jobs:?}, running: {running:?}"));
                }
            }
            Ok(())
        })
        .await;
        for member in self.members.drain(..) {
            member.node.close().await.expect("all trouble has ended");
            assert_eq!(member.node.lost_jobs(), 0, "the store has lost nothing");
        }
        self.board.check();
    }
}
