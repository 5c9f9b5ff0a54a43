//! `cargo xtask package`: each crate as it would be published.
//!
//! Cargo packages all crates in one go and builds each from its package, with the packages of the others in place of
//! the registry, in the order of their dependencies. So what is checked is what users will get.
//!
//! Cargo takes what came from a registry for unchangeable, so what an earlier run unpacked or built under the same
//! version would be checked in place of what stands here now. Both are removed first.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{Failure, matrix::CRATES, run};

pub(crate) fn run() -> Result<(), Failure> {
    for name in CRATES {
        let list = run::output(run::cargo().args(["package", "--allow-dirty", "--list", "--package", name]))?;
        let mut needed = vec!["README.md", "LICENSE", "CHANGELOG.md", "src/lib.rs"];
        if name == "pulse-core" {
            needed.push("src/redis/lua/");
        }
        for file in needed {
            let found = list.lines().any(|line| line == file || (file.ends_with('/') && line.starts_with(file)));
            if !found {
                return Err(format!("the package of {name} lacks {file}").into());
            }
        }
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/packages");
    remove(&target)?;
    for unpacked in unpacked()? {
        remove(&unpacked)?;
    }
    let mut package = run::cargo();
    package.args(["package", "--allow-dirty", "--target-dir"]).arg(&target);
    for name in CRATES {
        package.args(["--package", name]);
    }
    run::succeed(&mut package)?;
    println!("packaged and built from their packages: {}", CRATES.join(", "));
    Ok(())
}

/// What cargo unpacked of our crates from registries that are folders: their names have no host before the dash.
fn unpacked() -> Result<Vec<PathBuf>, Failure> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).ok_or("there is no home directory")?;
    let mut found = Vec::new();
    for registry in entries(&home.join("registry").join("src"))? {
        if registry.file_name().is_some_and(|name| name.to_string_lossy().starts_with('-')) {
            let ours = |path: &PathBuf| {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                CRATES.iter().any(|krate| name.strip_prefix(krate).is_some_and(|rest| rest.starts_with('-')))
            };
            found.extend(entries(&registry)?.into_iter().filter(ours));
        }
    }
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("cannot read {}: {error}", folder.display()).into()),
    }
}

fn remove(folder: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", folder.display()).into())
        }
        _ => Ok(()),
    }
}
