//! Waiting for servers, on the thread that starts and asks them.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long servers may take to agree.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
