//! `cargo xtask package`: each crate as it would be published.
//!
//! Cargo packages all crates in one go and builds each from its package, with the packages of the others in place of
//! the registry, in the order of their dependencies. So what is checked is what users will get.

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
    let mut package = run::cargo();
    package.args(["package", "--allow-dirty"]);
    for name in CRATES {
        package.args(["--package", name]);
    }
    run::succeed(&mut package)?;
    println!("packaged and built from their packages: {}", CRATES.join(", "));
    Ok(())
}
