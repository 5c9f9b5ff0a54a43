//! `cargo xtask bench`: a server of its own and the benchmark program of the package `tests`.

use std::path::Path;

use crate::{
    Failure, run,
    servers::{Server, program},
};

pub(crate) fn run(name: &str, quick: bool) -> Result<(), Failure> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/benches");
    if name == "harness" || !folder.join(name).join("mod.rs").exists() {
        return Err(format!("there is no benchmark {name}").into());
    }
    let server = Server::start(&program()?, &[])?;
    let mut bench = run::cargo();
    bench.args(["bench", "--package", "tests", "--features", "standalone", "--bench", "figures", "--", name]);
    if quick {
        bench.arg("--quick");
    }
    bench.env("PULSE_BENCH_URL", server.url());
    run::succeed(&mut bench)
}
