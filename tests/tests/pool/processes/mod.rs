//! What pools promise when their processes, their server or their connections fail in the middle of the work: real
//! nodes in real processes, each of which says all the time what it runs.

mod program;
mod report;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use pulse_pool::{Error, Node};
use tests::{Proxy, Server, eventually};
use tokio::{sync::mpsc, task::JoinHandle};

use self::{
    program::{Member, TTL, client, node},
    report::{Report, Sighting},
};
use crate::keys;

/// Some nodes in processes, one without workers in the test, and what they say.
struct Fleet {
    server: Server,
    members: BTreeMap<usize, Member>,
    born: usize,
    says: mpsc::UnboundedSender<Sighting>,
    report: Report,
    here: Arc<Node>,
    keys: Vec<String>,
}

impl Fleet {
    async fn start(server: Server, members: usize, jobs: usize) -> Self {
        let (says, report) = Report::new();
        let here = Arc::new(node().join(&client(&server.url()).await).await.unwrap());
        let mut fleet = Self { server, members: BTreeMap::new(), born: 0, says, report, here, keys: keys(jobs) };
        for _ in 0..members {
            fleet.launch().await;
        }
        let jobs: Vec<_> = fleet.keys.iter().map(|key| (key, "payload")).collect();
        for dispatched in fleet.here.dispatch_batch(jobs).await {
            dispatched.unwrap();
        }
        fleet
    }

    async fn launch(&mut self) -> usize {
        let url = self.server.url();
        self.launch_at(&url).await
    }

    async fn launch_at(&mut self, url: &str) -> usize {
        self.born += 1;
        self.members.insert(self.born, Member::start(url, self.born, &self.says).await);
        self.born
    }

    async fn all_run(&mut self) -> BTreeMap<String, usize> {
        self.report.all_run(&self.keys).await
    }

    /// Checks that nothing was lost and nothing overlapped, and ends the fleet in good order.
    async fn end(mut self) {
        self.all_run().await;
        self.report.check();
        for (_, member) in std::mem::take(&mut self.members) {
            member.close().await;
        }
        self.report.check();
        assert_eq!(self.here.jobs().await.unwrap().len(), self.keys.len());
        self.here.close().await.unwrap();
    }

    /// How often the jobs that were placed on others than one were started since.
    fn stirred(&mut self, placed: &BTreeMap<String, usize>, gone: usize, before: &BTreeMap<String, usize>) -> usize {
        let starts = self.report.starts();
        let of_others = placed.iter().filter(|(_, process)| **process != gone);
        of_others.map(|(key, _)| starts[key] - before[key]).sum()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_jobs_of_a_process_that_is_killed_run_elsewhere_and_no_other_is_touched() {
    let mut fleet = Fleet::start(Server::start(), 4, 400).await;
    let placed = fleet.all_run().await;
    let before = fleet.report.starts();
    fleet.members.remove(&2).unwrap().process.kill();
    fleet.all_run().await;
    assert_eq!(fleet.stirred(&placed, 2, &before), 0);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_stopped_for_six_leases_runs_nothing_of_what_runs_elsewhere() {
    let mut fleet = Fleet::start(Server::start(), 4, 400).await;
    let placed = fleet.all_run().await;
    fleet.members[&3].process.pause();
    // Their jobs are taken over meanwhile.
    tokio::time::sleep(TTL * 6).await;
    let meanwhile = fleet.all_run().await;
    assert!(meanwhile.values().all(|process| *process != 3), "{meanwhile:?}");
    fleet.members[&3].process.resume();
    // It comes back as somebody else, and takes its share again.
    eventually("it has a share again", async || {
        let share = fleet.all_run().await.into_values().filter(|process| *process == 3).count();
        if share > 50 { Ok(()) } else { Err(share) }
    })
    .await;
    assert!(placed.values().any(|process| *process == 3));
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_link_is_cut_stops_its_jobs_and_comes_back() {
    let mut fleet = Fleet::start(Server::start(), 3, 400).await;
    let proxy = Proxy::before(fleet.server.port()).await;
    let cut = fleet.launch_at(&proxy.url()).await;
    eventually("it has a share", async || {
        let share = fleet.all_run().await.into_values().filter(|process| *process == cut).count();
        if share > 50 { Ok(()) } else { Err(share) }
    })
    .await;
    proxy.cut();
    tokio::time::sleep(TTL * 5).await;
    let meanwhile = fleet.all_run().await;
    assert!(meanwhile.values().all(|process| *process != cut), "{meanwhile:?}");
    proxy.mend();
    eventually("it has a share again", async || {
        let share = fleet.all_run().await.into_values().filter(|process| *process == cut).count();
        if share > 50 { Ok(()) } else { Err(share) }
    })
    .await;
    fleet.end().await;
}

/// Goes on dispatching jobs until it is told to end.
struct Load {
    end: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<(Vec<String>, Vec<String>)>,
}

impl Load {
    fn on(here: &Arc<Node>) -> Self {
        let (end, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn(dispatch_on(here.clone(), end.clone(), accepted.clone()));
        Self { end, accepted, task }
    }

    /// Waits until so many more were accepted.
    async fn gets_on(&self, by: usize) {
        let before = self.accepted.load(Ordering::Relaxed);
        eventually("jobs are accepted", async || {
            let now = self.accepted.load(Ordering::Relaxed);
            if now >= before + by { Ok(()) } else { Err(now - before) }
        })
        .await;
    }

    /// Returns the keys of those that were accepted, and of those of which that is not known.
    async fn end(self) -> (Vec<String>, Vec<String>) {
        self.end.store(true, Ordering::Relaxed);
        self.task.await.expect("it dispatches")
    }
}

async fn dispatch_on(here: Arc<Node>, end: Arc<AtomicBool>, count: Arc<AtomicUsize>) -> (Vec<String>, Vec<String>) {
    let (mut accepted, mut unclear) = (Vec::new(), Vec::new());
    for number in 0.. {
        if end.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("later {number}");
        match here.dispatch(&key, "payload").await {
            Ok(_) | Err(Error::NotStarted { .. }) => {
                accepted.push(key);
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => unclear.push(key),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (accepted, unclear)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_under_load_loses_nothing_that_it_kept() {
    let mut fleet = Fleet::start(Server::start_durable(), 3, 400).await;
    fleet.all_run().await;
    let load = Load::on(&fleet.here);
    for away in [Duration::from_millis(200), TTL * 2] {
        load.gets_on(10).await;
        fleet.server.kill();
        tokio::time::sleep(away).await;
        fleet.server.restart();
        fleet.all_run().await;
    }
    load.gets_on(10).await;
    let (accepted, unclear) = load.end().await;
    fleet.keys.extend(accepted);
    // What is not known to be accepted is there or not, and is what the records say.
    for key in unclear {
        if fleet.here.job(&key).await.unwrap().is_some() {
            fleet.keys.push(key);
        }
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_processes_can_be_replaced_one_after_the_other() {
    let mut fleet = Fleet::start(Server::start(), 3, 2_000).await;
    fleet.all_run().await;
    let load = Load::on(&fleet.here);
    for old in 1..=3 {
        fleet.launch().await;
        fleet.members.remove(&old).unwrap().close().await;
    }
    let (accepted, unclear) = load.end().await;
    assert_eq!(unclear, Vec::<String>::new());
    fleet.keys.extend(accepted);
    let starts = fleet.report.starts();
    let most = starts.values().max();
    // Each came, went and was moved by one that joined, at most.
    assert!(most.is_some_and(|most| *most <= 7), "{most:?}");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_forgets_is_stopped_and_the_rest_goes_on() {
    let mut fleet = Fleet::start(Server::start_with(&["--dbfilename", "kept.rdb"]), 3, 100).await;
    fleet.all_run().await;
    fleet.server.cli(&["SAVE"]);
    let forgotten: Vec<String> = (0..50).map(|number| format!("forgotten {number}")).collect();
    for key in &forgotten {
        fleet.here.dispatch(key, "payload").await.unwrap();
    }
    fleet.server.restart();
    eventually("what is forgotten runs no more", async || {
        let seen = fleet.report.seen_within(Duration::from_secs(1));
        let left: Vec<&String> = forgotten.iter().filter(|key| seen.contains(*key)).collect();
        if left.is_empty() && fleet.here.jobs().await.unwrap().len() == 100 { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    fleet.end().await;
}
