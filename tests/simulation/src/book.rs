//! What those know who dispatch and stop jobs, by what the pool has told them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pulse_pool::Error;
use tokio::time::Instant;

use crate::stage::Stage;

/// How long what was sent may still take effect after whoever sent it has given up: more than a link stands still.
const ECHO: Duration = Duration::from_secs(5);

/// What is known of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It was never dispatched, or was stopped.
    Absent,
    /// It is there.
    Accepted,
    /// The last call on it did not say what it came to.
    Unclear,
}

/// One page for each job and each task.
#[derive(Clone)]
pub(crate) struct Book {
    stage: Stage,
    pages: Arc<Mutex<Pages>>,
}

struct Pages {
    jobs: BTreeMap<String, Page>,
    /// Those that were accepted, and when.
    tasks: BTreeMap<String, Instant>,
    /// How often the server has lost writes.
    losses: usize,
    /// How many calls are under way.
    calls: usize,
}

struct Page {
    known: Known,
    /// Nobody touches it before.
    free_from: Option<Instant>,
    /// When the last call on it ended.
    called: Instant,
}

/// A call on a job, under way.
pub(crate) struct Call {
    book: Book,
    key: String,
    before: Known,
    /// How often the server had lost writes when it began.
    losses: usize,
    /// What is known once it has ended; unclear if it is dropped.
    after: Known,
}

impl Book {
    pub(crate) fn new(stage: &Stage, jobs: usize) -> Self {
        let page = |job| {
            (
                format!("part {job}"),
                Page { known: Known::Absent, free_from: Some(Instant::now()), called: Instant::now() },
            )
        };
        let pages = Pages { jobs: (0..jobs).map(page).collect(), tasks: BTreeMap::new(), losses: 0, calls: 0 };
        Self { stage: stage.clone(), pages: Arc::new(Mutex::new(pages)) }
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The jobs that nobody has in hand.
    pub(crate) fn free(&self) -> Vec<String> {
        let (pages, now) = (self.lock(), Instant::now());
        let free = |page: &Page| page.free_from.is_some_and(|from| from <= now);
        pages.jobs.iter().filter(|(_, page)| free(page)).map(|(key, _)| key.clone()).collect()
    }

    /// The jobs that nobody has in hand, and what is known of them.
    pub(crate) fn settled(&self) -> Vec<(String, Known)> {
        let pages = self.lock();
        let settled = pages.jobs.iter().filter(|(_, page)| page.free_from.is_some());
        settled.map(|(key, page)| (key.clone(), page.known)).collect()
    }

    /// The tasks that were accepted.
    pub(crate) fn tasks(&self) -> BTreeSet<String> {
        self.lock().tasks.keys().cloned().collect()
    }

    /// Notes that a task was accepted, unless the server has lost writes since its call began.
    pub(crate) fn accept_task(&self, key: &str, call: &AnyCall) {
        let mut pages = self.lock();
        if pages.losses == call.losses {
            pages.tasks.insert(key.to_owned(), Instant::now());
        }
    }

    /// The server has lost what was written since then: what came of calls since is unclear.
    pub(crate) fn loses(&self, since: Instant) {
        let mut pages = self.lock();
        pages.losses += 1;
        pages.tasks.retain(|_, accepted| *accepted < since);
        for (key, page) in &mut pages.jobs {
            if page.called >= since || page.free_from.is_none() {
                page.known = Known::Unclear;
                self.stage.takes_in_hand(key);
            }
        }
    }

    /// How many calls are under way.
    pub(crate) fn calls(&self) -> usize {
        self.lock().calls
    }

    /// Notes that a call is under way for as long as what is returned lives.
    pub(crate) fn any_call(&self) -> AnyCall {
        let mut pages = self.lock();
        pages.calls += 1;
        AnyCall { book: self.clone(), losses: pages.losses }
    }

    /// Takes a job in hand.
    pub(crate) fn take(&self, key: &str) -> Call {
        self.stage.takes_in_hand(key);
        let mut pages = self.lock();
        pages.calls += 1;
        let page = pages.jobs.get_mut(key).expect("only jobs of the book are called for");
        page.free_from = None;
        let before = page.known;
        let losses = pages.losses;
        Call { book: self.clone(), key: key.to_owned(), before, losses, after: Known::Unclear }
    }
}

/// A call that is not about a job of the book.
pub(crate) struct AnyCall {
    book: Book,
    /// How often the server had lost writes when it began.
    losses: usize,
}

impl Drop for AnyCall {
    fn drop(&mut self) {
        self.book.lock().calls -= 1;
    }
}

impl Call {
    /// Whether the server has lost writes meanwhile, so that nothing is certain.
    fn is_shaken(&self) -> bool {
        self.book.lock().losses != self.losses
    }

    fn lost(&self, what: &dyn std::fmt::Debug) {
        self.book.stage.violation(format!("{} was accepted, and is lost: {what:?}", self.key));
    }

    /// A dispatch came to this.
    pub(crate) fn dispatched<T: std::fmt::Debug>(mut self, outcome: &Result<T, Error>) {
        if self.is_shaken() {
            return;
        }
        if self.before == Known::Accepted && outcome.is_ok() {
            self.lost(outcome);
        }
        if self.before == Known::Absent && matches!(outcome, Err(Error::Exists { .. })) {
            self.book.stage.violation(format!("{} was absent, and exists", self.key));
        }
        self.after = match outcome {
            Ok(_) | Err(Error::NotStarted { .. }) => Known::Accepted,
            Err(Error::Exists { .. } | Error::QueueFull { .. }) => self.before,
            Err(_) => Known::Unclear,
        };
    }

    /// A stop came to this.
    pub(crate) fn stopped(mut self, outcome: &Result<(), Error>) {
        if self.is_shaken() {
            return;
        }
        if self.before == Known::Accepted && matches!(outcome, Err(Error::UnknownJob { .. })) {
            self.lost(outcome);
        }
        self.after = match outcome {
            Ok(()) | Err(Error::UnknownJob { .. }) => Known::Absent,
            Err(_) => Known::Unclear,
        };
    }

    /// A notification came to this.
    pub(crate) fn notified(mut self, number: u64, outcome: &Result<(), Error>) {
        if self.is_shaken() {
            return;
        }
        if self.before == Known::Accepted && matches!(outcome, Err(Error::UnknownJob { .. })) {
            self.lost(outcome);
        }
        if outcome.is_ok() && !self.book.stage.was_told(&self.key, number) {
            self.book.stage.violation(format!("{} was not told {number}, and its sender thinks so", self.key));
        }
        self.after = self.before;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut pages = self.book.lock();
        pages.calls -= 1;
        let page = pages.jobs.get_mut(&self.key).expect("only jobs of the book are called for");
        page.called = Instant::now();
        page.known = self.after;
        let echo = if self.after == Known::Unclear { ECHO } else { Duration::ZERO };
        page.free_from = Some(Instant::now() + echo);
        drop(pages);
        if self.after == Known::Accepted {
            self.book.stage.leaves_alone(&self.key);
        }
    }
}
