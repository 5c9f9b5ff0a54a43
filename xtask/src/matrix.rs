//! Every crate with each of its features alone, with none, and with all.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{Failure, run};

/// The crates that are published, in the order of their dependencies.
pub(crate) const CRATES: [&str; 4] = ["pulse-core", "pulse-rmap", "pulse-streaming", "pulse-pool"];

pub(crate) fn run() -> Result<(), Failure> {
    for name in CRATES {
        let features = features(name)?;
        check(name, &["--no-default-features"])?;
        for feature in &features {
            check(name, &["--no-default-features", "--features", feature])?;
        }
        check(name, &["--all-features"])?;
        println!("{name}: alone, with each of {}, and with all", features.into_iter().collect::<Vec<_>>().join(", "));
    }
    Ok(())
}

fn check(name: &str, features: &[&str]) -> Result<(), Failure> {
    let mut command = run::cargo();
    // Clippy and not a plain check, because its warnings can be denied without building all dependencies again: what is
    // dead code without some feature should not pass.
    command.args(["clippy", "--quiet", "--package", name]).args(features).args(["--", "-D", "warnings"]);
    run::succeed(&mut command)
}

/// The names in the `[features]` table of a manifest, without `default`.
fn features(name: &str) -> Result<BTreeSet<String>, Failure> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates").join(name).join("Cargo.toml");
    let manifest = fs::read_to_string(manifest)?;
    Ok(parse_features(&manifest))
}

fn parse_features(manifest: &str) -> BTreeSet<String> {
    let table = manifest.lines().skip_while(|line| line.trim() != "[features]").skip(1);
    let table = table.take_while(|line| !line.starts_with('['));
    let names = table.filter_map(|line| line.split_once('=')).map(|(name, _)| name.trim().to_owned());
    names.filter(|name| name != "default" && !name.starts_with('#')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_read_from_the_manifest() {
        let manifest = "[package]\nname = \"x\"\n\n[features]\ndefault = [\"a\"]\n# b = no\na = []\n\"c\" = []\n\n[dependencies]\nd = \"1\"\n";
        let features = parse_features(manifest);
        assert!(features.contains("a"));
        assert!(!features.contains("default") && !features.contains("d") && !features.contains("b"));
    }
}
