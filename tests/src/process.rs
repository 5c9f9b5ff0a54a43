//! A process that a test started, and that never outlives the test.

use std::{
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

/// A process of a test's own, killed on drop, and a guard that kills it if this process dies first.
#[derive(Debug)]
pub struct Process {
    child: Child,
    guard: Child,
    is_paused: AtomicBool,
}

impl Process {
    /// Looks after a process from now on.
    ///
    /// # Panics
    ///
    /// If no shell can be started.
    #[must_use]
    pub fn new(child: Child) -> Self {
        Self { guard: guard_of(&child), child, is_paused: AtomicBool::new(false) }
    }

    /// Kills the process without a chance to say goodbye, and waits for its end.
    pub fn kill(self) {
        drop(self);
    }

    /// Stops the process where it stands (`SIGSTOP`).
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn pause(&self) {
        self.signal("-STOP");
        self.is_paused.store(true, Ordering::Relaxed);
    }

    /// Lets a stopped process go on.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn resume(&self) {
        self.signal("-CONT");
        self.is_paused.store(false, Ordering::Relaxed);
    }

    /// Whether it was stopped and does not go on yet.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Relaxed)
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Panics
    ///
    /// If it failed.
    pub fn wait(mut self) {
        let ended = self.child.wait().expect("a child can be waited for");
        assert!(ended.success(), "the process failed: {ended}");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "cannot send {signal} to the process");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard first: it must not outlive the process and hit another one of the same id. Both fail only where the
        // process has ended already.
        for process in [&mut self.guard, &mut self.child] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Starts a shell that waits for the end of its input, which comes with the end of this process, and then kills the
/// child.
fn guard_of(child: &Child) -> Child {
    Command::new("sh")
        .args(["-c", "read _; kill -9 \"$1\" 2>/dev/null", "guard", &child.id().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("no shell can be started")
}
