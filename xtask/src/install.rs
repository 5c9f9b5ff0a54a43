//! Finding a server program, and getting one where there is none.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::{Failure, run};

/// The programs that will do.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// A package manager: how to tell that it is there, and what it installs a server with.
struct Manager {
    program: &'static str,
    commands: &'static [&'static [&'static str]],
    needs_root: bool,
}

impl Manager {
    /// Its commands as a person types them.
    fn by_hand(&self, between: &str) -> String {
        let commands: Vec<String> = self.commands.iter().map(|command| command.join(" ")).collect();
        commands.join(between)
    }
}

const MANAGERS: [Manager; 6] = [
    Manager {
        program: "apt-get",
        commands: &[&["apt-get", "update", "-q"], &["apt-get", "install", "-q", "-y", "redis-server"]],
        needs_root: true,
    },
    Manager { program: "dnf", commands: &[&["dnf", "install", "-y", "valkey"]], needs_root: true },
    Manager { program: "apk", commands: &[&["apk", "add", "redis"]], needs_root: true },
    Manager { program: "pacman", commands: &[&["pacman", "-Sy", "--noconfirm", "valkey"]], needs_root: true },
    Manager { program: "zypper", commands: &[&["zypper", "-n", "install", "valkey"]], needs_root: true },
    Manager { program: "brew", commands: &[&["brew", "install", "redis"]], needs_root: false },
];

/// Returns the server program to use: the one that PULSE_REDIS_SERVER names, else one from the PATH, else one that is
/// installed now, if that works without asking anybody.
pub(crate) fn server_program() -> Result<PathBuf, Failure> {
    if let Some(named) = std::env::var_os("PULSE_REDIS_SERVER") {
        return check_version(named.into());
    }
    if let Some(found) = find_server() {
        return check_version(found);
    }
    let manager = MANAGERS.iter().find(|manager| find(manager.program).is_some());
    let (manager, prefix) = may_install(manager, privileges)?;
    println!("xtask: no server found, installing one: {}", manager.by_hand(" && "));
    for command in manager.commands {
        let words: Vec<&str> = prefix.iter().chain(command.iter()).copied().collect();
        let mut install = Command::new(words[0]);
        // Packages may start a system service that nobody asked for; where they can be told not to, they are.
        install.args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        run::succeed(&mut install)
            .map_err(|error| format!("{error}\nInstall a server by hand: {}", manager.by_hand(" && ")))?;
    }
    let found = find_server().ok_or("the package was installed, but there is still no server program in the PATH")?;
    check_version(found)
}

/// Says what to install a server with, and what to put before its commands; or what to do by hand.
fn may_install(
    manager: Option<&'static Manager>,
    privileges: impl Fn(&Manager) -> Option<&'static [&'static str]>,
) -> Result<(&'static Manager, &'static [&'static str]), String> {
    let manager = manager.ok_or(
        "there is neither redis-server nor valkey-server in the PATH, and no package manager that I know: install \
         Redis 7.0+ or Valkey 7.2+, or set PULSE_REDIS_SERVER to the path of its server program",
    )?;
    let prefix = privileges(manager).ok_or_else(|| {
        format!(
            "there is neither redis-server nor valkey-server in the PATH, and installing one needs a password. Run\n\n    \
             sudo {}\n\nand try again, or set PULSE_REDIS_SERVER to the path of a server program",
            manager.by_hand("\n    sudo ")
        )
    })?;
    Ok((manager, prefix))
}

/// What to put before a command so that it may install packages; `None` if that takes a password.
fn privileges(manager: &Manager) -> Option<&'static [&'static str]> {
    if !manager.needs_root || run::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0") {
        return Some(&[]);
    }
    let sudo = Command::new("sudo").args(["-n", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    sudo.is_ok_and(|status| status.success()).then_some(&["sudo", "-n"])
}

fn find_server() -> Option<PathBuf> {
    PROGRAMS.into_iter().find_map(find)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Package managers put servers where the PATH of an ordinary user may not look.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Refuses a program that is too old.
pub(crate) fn check_version(program: PathBuf) -> Result<PathBuf, Failure> {
    let told = run::output(Command::new(&program).arg("--version"))?;
    match is_recent_enough(&told) {
        Some(true) => Ok(program),
        Some(false) => Err(format!(
            "{} is too old ({}): Pulse needs Redis 7.0+ or Valkey 7.2+; install one, or set PULSE_REDIS_SERVER",
            program.display(),
            told.trim()
        )
        .into()),
        None => Err(format!("{} does not say its version: {told:?}", program.display()).into()),
    }
}

/// Reads `Redis server v=7.0.15 …` or `Valkey server v=8.0.1 …`.
fn is_recent_enough(told: &str) -> Option<bool> {
    let (_, version) = told.split_once("v=")?;
    let mut numbers = version.split(['.', ' ']).map(|number| number.parse::<u32>().ok());
    let version = (numbers.next()??, numbers.next()??);
    let minimum = if told.to_lowercase().contains("valkey") { (7, 2) } else { (7, 0) };
    Some(version >= minimum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_product() {
        assert_eq!(is_recent_enough("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0"), Some(true));
        assert_eq!(is_recent_enough("Redis server v=6.2.14 sha=00000000:0"), Some(false));
        assert_eq!(is_recent_enough("Valkey server v=8.0.1 sha=00000000:0"), Some(true));
        assert_eq!(is_recent_enough("Valkey server v=7.0.0 sha=00000000:0"), Some(false));
        assert_eq!(is_recent_enough("something else"), None);
    }

    #[test]
    fn without_a_server_it_is_installed_or_said_how() {
        let apt = &MANAGERS[0];
        let (manager, prefix) = may_install(Some(apt), |_| Some(&["sudo", "-n"])).unwrap();
        assert_eq!((manager.program, prefix), ("apt-get", ["sudo", "-n"].as_slice()));
        let told = may_install(Some(apt), |_| None).err().unwrap();
        assert!(told.contains("sudo apt-get update -q\n    sudo apt-get install -q -y redis-server\n"), "{told}");
        let told = may_install(None, |_| None).err().unwrap();
        assert!(told.contains("Redis 7.0+") && told.contains("PULSE_REDIS_SERVER"), "{told}");
    }
}
