//! Whether a server program speaks TLS: not every build does, and then the tests that need it are skipped.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{Failure, servers::free_port};

/// How long a server may take to find out that it cannot begin.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the program to speak TLS without a certificate, with which no server begins, and reads why it does not.
pub(crate) fn is_spoken_by(program: &Path) -> Result<bool, Failure> {
    let mut server = Command::new(program)
        .args(["--port", "0", "--tls-port", &free_port()?.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    end(&mut server)?;
    let output = server.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok(!is_without(&String::from_utf8_lossy(&said)))
}

/// Waits until the server has ended, and ends it if it does not.
fn end(server: &mut Child) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    while server.try_wait()?.is_none() {
        if Instant::now() > deadline {
            server.kill()?;
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Whether a server says that it knows nothing of TLS. What is not understood counts as TLS: its tests then show.
fn is_without(said: &str) -> bool {
    // Up to Redis 7.0, the option itself is unknown to such a build.
    ["Failed finding TLS support", "Bad directive"].iter().any(|complaint| said.contains(complaint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_tls_is_told_from_one_without_a_certificate() {
        assert!(is_without("# Missing implement of connection type tls\n# Failed finding TLS support."));
        assert!(is_without(">>> 'tls-port \"6380\"'\nBad directive or wrong number of arguments"));
        assert!(!is_without("# No tls-cert-file configured!\n# Failed to configure TLS. Check logs for more info."));
        assert!(!is_without("something of a later version"));
    }
}
