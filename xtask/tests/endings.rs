//! However a run of the tests ends: the servers are gone, and the outcome is told.
//!
//! `cargo` is a script here that does what the test wants of it, so that no test builds anything.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// A folder with a `cargo` of our own.
struct Stage {
    folder: TempDir,
}

impl Stage {
    /// `play` is the body of the script; `$PULSE_TEST_REDIS_URL` is the server it is told to use.
    fn new(play: &str) -> Self {
        let stage = Self { folder: tempfile::tempdir().unwrap() };
        stage.script("cargo", play);
        stage
    }

    fn script(&self, name: &str, body: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `cargo xtask test --backend standalone` with that `cargo`.
    fn test_run(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(["test", "--backend", "standalone"]).env("CARGO", self.path("cargo"));
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_server_program_that_is_too_old_or_not_there_is_said() {
    let stage = Stage::new("touch ran");
    let old = stage.script("redis-server", "echo 'Redis server v=6.2.14 sha=00000000:0 malloc=libc bits=64'");
    let output = stage.test_run().env("PULSE_REDIS_SERVER", &old).output().unwrap();
    assert!(!output.status.success());
    assert!(stderr(&output).contains("too old (Redis server v=6.2.14"), "{}", stderr(&output));
    assert!(stderr(&output).contains("Redis 7.0+ or Valkey 7.2+"), "{}", stderr(&output));

    let output = stage.test_run().env("PULSE_REDIS_SERVER", stage.path("nothing")).output().unwrap();
    assert!(!output.status.success());
    assert!(stderr(&output).contains("nothing"), "{}", stderr(&output));
    assert!(!Path::new(&stage.path("ran")).exists(), "the tests ran without a server");
}

#[cfg(feature = "standalone")]
mod standalone {
    use std::{
        net::{SocketAddr, TcpStream},
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    /// Writes where the server is, so that the test can see whether it is there.
    const TELL: &str = "echo \"$PULSE_TEST_REDIS_URL\" > url.part && mv url.part url";

    fn stdout(output: &Output) -> String {
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn server(stage: &Stage) -> Option<SocketAddr> {
        let url = std::fs::read_to_string(stage.path("url")).ok()?;
        url.trim().strip_prefix("redis://")?.parse().ok()
    }

    fn answers(server: SocketAddr) -> bool {
        TcpStream::connect_timeout(&server, Duration::from_secs(1)).is_ok()
    }

    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_failing_test_fails_the_run_and_is_named_at_its_end() {
        let play = "echo 'test standalone::good ... ok'; echo 'test standalone::bad ... FAILED'; exit 101";
        let stage = Stage::new(&format!("{TELL}; {play}"));
        let output = stage.test_run().output().unwrap();
        assert!(!output.status.success());
        assert!(stdout(&output).contains("FAILED: standalone::bad"), "{}", stdout(&output));
        assert!(stdout(&output).trim_end().ends_with("1 passed, 1 failed, 0 skipped"), "{}", stdout(&output));
        assert!(!answers(server(&stage).unwrap()), "the server still runs");
    }

    #[test]
    fn a_run_that_tests_nothing_is_no_success() {
        let stage = Stage::new(TELL);
        let output = stage.test_run().output().unwrap();
        assert!(!output.status.success());
        assert!(stderr(&output).contains("no test ran on standalone"), "{}", stderr(&output));
    }

    #[test]
    fn an_interrupt_and_a_kill_stop_the_servers_too() {
        for signal in ["-INT", "-TERM", "-KILL"] {
            let stage = Stage::new(&format!("{TELL}; echo $$ > pid; exec sleep 600"));
            let mut run = stage.test_run().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            until("the server is told of", || server(&stage).is_some() && stage.path("pid").exists());
            let server = server(&stage).unwrap();
            assert!(answers(server));
            let sent = Command::new("kill").args([signal, &run.id().to_string()]).status().unwrap();
            assert!(sent.success());
            // Where a script started this in its background, interrupts are ignored, and this never comes.
            until("the run ends by the signal", || run.try_wait().unwrap().is_some());
            assert!(!run.wait().unwrap().success());
            until("the server is gone", || !answers(server));
            // A terminal would have sent the signal to this one too.
            let play = std::fs::read_to_string(stage.path("pid")).unwrap();
            let _ = Command::new("kill").args(["-KILL", play.trim()]).status();
        }
    }
}
