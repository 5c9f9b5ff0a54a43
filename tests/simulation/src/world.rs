//! The nodes of one run, and what is done to them. What must be true then stands in [`checks`].

mod checks;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use pulse_core::{
    Client, Limits, Memory,
    testing::{Checkpoint, Faulty},
};
use pulse_pool::{Error, NewJob, Node, RetryPolicy, WorkerId, WorkerOptions};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    Sabotage,
    book::Book,
    stage::{Player, Stage, task},
    store,
    weather::Weather,
};

/// How many long-running jobs there are.
const JOBS: usize = 10;
/// What a worker has that takes long-running jobs, and one that takes tasks.
const PLAYS: &str = "plays";
const WORKS: &str = "works";
/// How long a link stands still at most. What was sent over it takes effect after that.
const LONGEST_STANDSTILL: Duration = Duration::from_millis(4_500);
/// How many of the last states of the server its replica may be at.
const REPLICATED: usize = 12;

/// A node with its link.
struct Member {
    name: String,
    link: Faulty,
    node: Arc<Node>,
    /// Cancelled when its process dies.
    crash: CancellationToken,
    /// Without workers, and without a replica of the jobs.
    is_client: bool,
}

pub(crate) struct World<'a> {
    dice: StdRng,
    weather: Weather,
    sabotage: Option<Sabotage>,
    memory: Arc<Memory>,
    stage: &'a Stage,
    book: Book,
    members: Vec<Member>,
    /// Of all nodes that ever were.
    links: Vec<Faulty>,
    /// What the server's replica may have got to.
    replicated: VecDeque<(Instant, Checkpoint)>,
    born: usize,
    tasks: usize,
    notes: u64,
}

impl<'a> World<'a> {
    pub(crate) async fn run(seed: u64, stage: &'a Stage, sabotage: Option<Sabotage>) {
        let mut dice = StdRng::seed_from_u64(seed);
        let weather = Weather::draw(&mut dice);
        // What is concealed then has to happen, and to happen often: it is noticed in few of such runs.
        let has_failovers = sabotage == Some(Sabotage::Servers);
        let weather = if has_failovers { weather.with_failovers() } else { weather };
        stage.note(format!("{weather:?}"));
        let mut world = Self {
            dice,
            weather,
            sabotage,
            memory: Arc::new(Memory::with_limits(Limits::default())),
            stage,
            book: Book::new(stage, JOBS),
            members: Vec::new(),
            links: Vec::new(),
            replicated: VecDeque::new(),
            born: 0,
            tasks: 0,
            notes: 0,
        };
        world.join(false).await;
        for _ in 0..weather.steps {
            world.step().await;
            let pause = world.dice.random_range(0..=u64::try_from(weather.pause.as_millis()).unwrap_or(1_000));
            world.pass(Duration::from_millis(pause)).await;
            world.check().await;
            if !stage.violations().is_empty() {
                return;
            }
        }
        world.calm_down().await;
        if stage.violations().is_empty() {
            world.move_in_fair_weather().await;
        }
        if stage.violations().is_empty() {
            world.end().await;
        }
    }

    async fn step(&mut self) {
        let index = self.dice.random_range(0..self.members.len());
        let many = self.members.len() > 1;
        match self.dice.random_range(0..26) {
            0..=2 if self.members.len() < self.weather.nodes => self.join(true).await,
            3 if many => self.crash(index),
            4 if many => self.close(index),
            5 | 6 => self.trouble(index, "is cut off", Faulty::partition),
            7 => self.stand_still(index),
            8..=10 => {
                self.stage.note("all links are well");
                // Those that are closing have links as well.
                for link in &self.links {
                    link.heal();
                    link.resume();
                }
            }
            11 | 12 => self.stop(index),
            13 => self.notify(index),
            14 => self.change_worker(index),
            17 | 18 if self.sabotage == Some(Sabotage::Servers) => self.fail_over().await,
            15..=18 => self.add_task(index),
            19 if self.weather.fails_over => self.fail_over().await,
            20 => self.add_many(index),
            _ => self.dispatch(index),
        }
    }

    /// Lets time go by.
    async fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while self.weather.fails_over && Instant::now() < until {
            self.replicated.push_back((Instant::now(), self.memory.checkpoint()));
            while self.replicated.len() > REPLICATED {
                self.replicated.pop_front();
            }
            sleep((until - Instant::now()).min(Duration::from_millis(40))).await;
        }
        tokio::time::sleep_until(until).await;
    }

    /// The server dies, and its replica takes over, which lacks the last writes.
    async fn fail_over(&mut self) {
        let Some((at, replicated)) =
            self.replicated.iter().collect::<Vec<_>>().choose(&mut self.dice).map(|it| (*it).clone())
        else {
            return;
        };
        self.replicated.clear();
        self.stage.note(format!("the server fails over, and loses {:?}", at.elapsed()));
        // Those that are closing have links as well.
        let cut = self.links.clone();
        cut.iter().for_each(Faulty::partition);
        sleep(Duration::from_millis(self.dice.random_range(100..1_500))).await;
        self.memory.restore(&replicated);
        self.book.loses(at);
        self.stage.loses(at);
        let deaf: Vec<Faulty> = cut.iter().filter(|_| self.dice.random_bool(0.2)).cloned().collect();
        deaf.iter().for_each(Faulty::mute);
        cut.iter().for_each(Faulty::heal);
        self.stage.note(format!("the replica has taken over, and {} links do not tell", deaf.len()));
        let late = Duration::from_millis(self.dice.random_range(0..6_000));
        tokio::spawn(async move {
            sleep(late).await;
            deaf.iter().for_each(Faulty::unmute);
        });
    }

    fn trouble(&self, index: usize, what: &str, make: impl Fn(&Faulty)) {
        let Member { name, link, .. } = &self.members[index];
        self.stage.note(format!("{name} {what}"));
        make(link);
    }

    /// A link stands still, and what is on its way over it arrives when it goes on.
    fn stand_still(&mut self, index: usize) {
        self.trouble(index, "stands still", Faulty::pause);
        let (link, time) =
            (self.members[index].link.clone(), self.dice.random_range(Duration::ZERO..LONGEST_STANDSTILL));
        tokio::spawn(async move {
            sleep(time).await;
            link.resume();
        });
    }

    async fn join(&mut self, may_be_client: bool) {
        self.born += 1;
        let is_client = may_be_client && self.dice.random_bool(0.2);
        let name = format!("{} {}", if is_client { "client" } else { "node" }, self.born);
        self.stage.note(format!("{name} joins"));
        // Nothing goes wrong before it is in.
        let link = Faulty::new(Arc::new(self.memory.another_client()), self.dice.random());
        link.set_patience(Duration::from_secs(1));
        if let Some(sabotage) = self.sabotage {
            sabotage.bribe(&link);
        }
        let client = Client::from_backend(Arc::new(link.clone()));
        let builder = Node::builder(store::POOL)
            .worker_ttl(self.weather.ttl)
            .max_queued(self.weather.max_queued)
            .timeout(Duration::from_secs(6))
            .shutdown_timeout(Duration::from_secs(6));
        let builder = if is_client { builder.client_only() } else { builder };
        let node = match builder.join(&client).await {
            Ok(node) => Arc::new(node),
            Err(error) => return self.stage.violation(format!("{name} cannot join: {error}")),
        };
        let crash = CancellationToken::new();
        let member = Member { name, link, node, crash, is_client };
        if !is_client {
            self.add_player(&member).await;
            if self.born == 1 || self.dice.random_bool(0.7) {
                self.add_tasker(&member).await;
            }
            self.follow_ticks(&member).await;
        }
        self.weather.set_in(&member.link);
        self.links.push(member.link.clone());
        self.members.push(member);
    }

    async fn add_player(&mut self, member: &Member) {
        let options = WorkerOptions::default().with_label(PLAYS).with_weight(self.dice.random_range(1..=3));
        let player = Player::new(self.stage, &self.memory, &member.name);
        if let Err(error) = member.node.add_worker_with(player, options).await {
            self.stage.violation(format!("{} cannot add a worker: {error}", member.name));
        }
    }

    async fn add_tasker(&self, member: &Member) {
        let (stage, name) = (self.stage.clone(), member.name.clone());
        let added = member
            .node
            .worker_fn(move |job| task(stage.clone(), name.clone(), job))
            .label(WORKS)
            .concurrency(2)
            .retry(RetryPolicy::new().attempts(6).pauses(Duration::from_millis(100), Duration::from_secs(1)))
            .stop_grace(Duration::from_millis(200));
        if let Err(error) = added.await {
            self.stage.violation(format!("{} cannot add a worker: {error}", member.name));
        }
    }

    async fn follow_ticks(&self, member: &Member) {
        let mut ticker = match member.node.ticker("beat", Duration::from_millis(800)).await {
            Ok(ticker) => ticker,
            Err(error) => return self.stage.violation(format!("{} cannot join a ticker: {error}", member.name)),
        };
        let (stage, name, crash) = (self.stage.clone(), member.name.clone(), member.crash.clone());
        tokio::spawn(async move {
            let follow = async {
                while let Some(tick) = ticker.next().await {
                    stage.tick(&name, &tick);
                }
            };
            unless(&crash, follow).await;
        });
    }

    /// Ends a node as the death of its process would.
    fn crash(&mut self, index: usize) {
        let member = self.members.swap_remove(index);
        self.stage.note(format!("{} dies", member.name));
        member.link.kill();
        member.crash.cancel();
    }

    fn close(&mut self, index: usize) {
        let Member { name, node, .. } = self.members.swap_remove(index);
        let (stage, call) = (self.stage.clone(), self.book.any_call());
        stage.note(format!("{name} closes"));
        tokio::spawn(async move {
            // It may be in no state to do so in good order.
            let closed = node.close().await;
            stage.note(format!("{name} has closed: {closed:?}"));
            drop(call);
        });
    }

    /// Removes a worker, or adds one, which may leave again at once.
    fn change_worker(&mut self, index: usize) {
        let member = &self.members[index];
        if member.is_client {
            return;
        }
        let workers: Vec<WorkerId> = member.node.workers().iter().map(|worker| worker.id).collect();
        let (stage, name, node) = (self.stage.clone(), member.name.clone(), member.node.clone());
        let (crash, call) = (member.crash.clone(), self.book.any_call());
        let remove = self.dice.random_bool(0.6).then(|| workers.choose(&mut self.dice).copied()).flatten();
        let (player, passes_by) = (Player::new(self.stage, &self.memory, &member.name), self.dice.random_bool(0.5));
        tokio::spawn(async move {
            let change = async {
                match remove {
                    Some(worker) => {
                        stage.note(format!("{name} removes worker {worker}"));
                        let removed = node.remove_worker(worker).await;
                        stage.note(format!("{name} has removed worker {worker}: {removed:?}"));
                    }
                    None => {
                        let added = node.add_worker_with(player, WorkerOptions::default().with_label(PLAYS)).await;
                        stage.note(format!("{name} has added a worker: {added:?}"));
                        if let (true, Ok(worker)) = (passes_by, added) {
                            let removed = node.remove_worker(worker).await;
                            stage.note(format!("{name} has removed worker {worker} again: {removed:?}"));
                        }
                    }
                }
            };
            unless(&crash, change).await;
            drop(call);
        });
    }

    fn free_job(&mut self) -> Option<String> {
        self.book.free().choose(&mut self.dice).cloned()
    }

    fn dispatch(&mut self, index: usize) {
        let Some(key) = self.free_job() else { return };
        let (stage, call, waits) = (self.stage.clone(), self.book.take(&key), self.dice.random_bool(0.7));
        let Member { name, node, crash, .. } = &self.members[index];
        let (name, node, crash) = (name.clone(), node.clone(), crash.clone());
        stage.note(format!("{name} dispatches {key}"));
        tokio::spawn(async move {
            let dispatch = async {
                let job = NewJob::new(&key, "").requires(PLAYS);
                let outcome = match waits {
                    true => node.dispatch_job(job).await.map(|_| ()),
                    false => node.enqueue_job(job).await,
                };
                stage.note(format!("{name} has dispatched {key}: {outcome:?}"));
                call.dispatched(&outcome);
            };
            unless(&crash, dispatch).await;
        });
    }

    /// So many at the same moment that what is written of them goes together.
    fn add_many(&mut self, index: usize) {
        for _ in 0..self.dice.random_range(2..=6) {
            self.dispatch(index);
            self.add_task(index);
        }
    }

    fn stop(&mut self, index: usize) {
        let Some(key) = self.free_job() else { return };
        let (stage, call) = (self.stage.clone(), self.book.take(&key));
        let Member { name, node, crash, .. } = &self.members[index];
        let (name, node, crash) = (name.clone(), node.clone(), crash.clone());
        stage.note(format!("{name} stops {key}"));
        tokio::spawn(async move {
            let stop = async {
                let outcome = node.stop(&key).await;
                stage.note(format!("{name} has stopped {key}: {outcome:?}"));
                call.stopped(&outcome);
            };
            unless(&crash, stop).await;
        });
    }

    fn notify(&mut self, index: usize) {
        let Some(key) = self.free_job() else { return };
        self.notes += 1;
        let (stage, call, number) = (self.stage.clone(), self.book.take(&key), self.notes);
        let Member { name, node, crash, .. } = &self.members[index];
        let (name, node, crash) = (name.clone(), node.clone(), crash.clone());
        tokio::spawn(async move {
            let notify = async {
                let outcome = node.notify(&key, number.to_string()).await;
                stage.note(format!("{name} has told {key} {number}: {outcome:?}"));
                call.notified(number, &outcome);
            };
            unless(&crash, notify).await;
        });
    }

    fn add_task(&mut self, index: usize) {
        self.tasks += 1;
        let (stage, book, waits) = (self.stage.clone(), self.book.clone(), self.dice.random_bool(0.3));
        let Member { name, node, crash, .. } = &self.members[index];
        let (name, node, crash) = (name.clone(), node.clone(), crash.clone());
        let (key, call) = (format!("task {}", self.tasks), self.book.any_call());
        let job = NewJob::new(&key, "").requires(WORKS).priority(self.dice.random_range(0..3));
        let job = if self.dice.random_bool(0.3) { job.run_in(Duration::from_millis(700)) } else { job };
        stage.note(format!("{name} adds {key}"));
        tokio::spawn(async move {
            let add = async {
                let outcome = if waits {
                    let result = node.dispatch_and_wait::<String>(job).await;
                    if result.as_ref().is_ok_and(|result| *result != key || !stage.is_done(&key)) {
                        stage.violation(format!("{key} came to {result:?} without having run"));
                    }
                    match result {
                        Err(Error::Failed { .. }) => Ok(()),
                        result => result.map(|_| ()),
                    }
                } else {
                    node.enqueue_job(job).await
                };
                stage.note(format!("{name} has added {key}: {outcome:?}"));
                match outcome {
                    Ok(()) => book.accept_task(&key, &call),
                    Err(Error::Exists { .. }) => stage.violation(format!("{key} was new, and exists")),
                    Err(_) => {}
                }
            };
            unless(&crash, add).await;
            drop(call);
        });
    }
}

/// Does something for as long as a process lives.
async fn unless(crash: &CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = crash.cancelled() => {}
        () = work => {}
    }
}
