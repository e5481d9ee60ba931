//! `cargo xtask ci`: everything that must hold, in order.
//!
//! First all that the default build is, with decoys in the place of CUDA's compiler, libclang's
//! tools, MPI's compiler and Python: it needs none of them. Then public clients, a browser and a
//! balancer ask the server, and work of several processes is tested under MPI. Last the CUDA toolchain is installed, and what needs it is linted, taken apart
//! and tested on the software device.
//!
//! Tests come last, so that the last line printed is the test runner's own summary.

mod clients;
mod decoys;
mod device;
mod mpi;

use std::env;
use std::fmt;
use std::time::Instant;

use anyhow::Result;
use xshell::{Cmd, Shell, cmd};

use crate::cuda;
use crate::metadata::{Metadata, Reach};
use crate::tidy;

use decoys::Decoys;

/// The test runner has already said what failed: nothing is printed after it.
#[derive(Debug)]
pub(crate) struct TestsFailed;

impl fmt::Display for TestsFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tests failed")
    }
}

impl std::error::Error for TestsFailed {}

pub(crate) fn run(sh: &Shell, args: &[String]) -> Result<()> {
    crate::no_arguments("ci", args)?;
    let metadata = Metadata::load(sh, Reach::Members)?;
    let with_cuda = !device::packages(&metadata).is_empty()
        && can_have(
            "CUDA",
            "no kernel is compiled or tested",
            cuda::obstacle(sh, &metadata.target_directory),
        )?;
    let with_mpi = can_have(
        "MPI",
        "no run of several processes is tested",
        mpi::obstacle(sh),
    )?;
    let with_clients = can_have(
        "Clients",
        "no public client, browser or balancer asks the server",
        clients::obstacle(sh),
    )?;
    let with_nextest = cmd!(sh, "cargo nextest --version")
        .quiet()
        .ignore_stderr()
        .read()
        .is_ok();

    let decoys = Decoys::set(sh, &metadata.target_directory)?;
    check_default(sh, &metadata, with_nextest)?;
    eprintln!("== test");
    tests(sh, with_nextest, &[])
        .run()
        .map_err(|_| TestsFailed)?;
    decoys.remove()?;

    if with_clients {
        clients::check(sh, &metadata.target_directory)?;
    }
    if with_mpi {
        mpi::check(sh, with_nextest)?;
    }
    if with_cuda {
        device::check(sh, &metadata, with_nextest)?;
    }
    Ok(())
}

/// Everything but the tests of the default build.
fn check_default(sh: &Shell, metadata: &Metadata, with_nextest: bool) -> Result<()> {
    step("tidy", || tidy::run(sh, &[]))?;
    run_step("format", &cmd!(sh, "cargo fmt --all --check"))?;
    step(
        "the default build is without CUDA, MPI, libclang and Python",
        || {
            decoys::check_dependencies(sh)?;
            // Of the whole workspace, as are lint and tests: cargo unites the features of what it is
            // asked for, and would build the dependencies of a single package once more.
            Ok(cmd!(sh, "cargo build --workspace --bins").run()?)
        },
    )?;
    run_step(
        "lint",
        &cmd!(sh, "cargo clippy --workspace --all-targets -- -D warnings"),
    )?;
    run_step("build tests", &tests(sh, with_nextest, &["--no-run"]))?;

    let docs = cmd!(sh, "cargo doc --workspace --no-deps").env("RUSTDOCFLAGS", "-D warnings");
    run_step("docs", &docs)?;
    run_step(
        "doctests",
        &cmd!(sh, "cargo test --doc --workspace --quiet"),
    )?;
    let examples = cmd!(sh, "cargo build --workspace --examples");
    run_step("build examples", &examples)?;
    let folder = metadata.target_directory.join("debug");
    // As cargo does: the library of the software device is there.
    let libraries = sh.push_env("LD_LIBRARY_PATH", folder.join("deps"));
    for example in metadata.members.iter().flat_map(|member| &member.examples) {
        let program = folder.join("examples").join(example);
        run_step(&format!("example {example}"), &cmd!(sh, "{program}"))?;
    }
    drop(libraries);
    Ok(())
}

fn tests<'a>(sh: &'a Shell, with_nextest: bool, flags: &[&str]) -> Cmd<'a> {
    if with_nextest {
        cmd!(sh, "cargo nextest run --workspace {flags...}")
    } else {
        // Doctests would come last, and the last summary would be that of an empty run.
        cmd!(sh, "cargo test --workspace --lib --bins --tests {flags...}")
    }
}

/// Whether this machine has or can get what some checks need. One that can't is told so, and what
/// is left out; where `CI` is `true`, nothing is.
fn can_have(what: &str, left_out: &str, obstacle: Option<String>) -> Result<bool> {
    let Some(obstacle) = obstacle else {
        return Ok(true);
    };
    let is_required = env::var("CI").is_ok_and(|ci| ci == "true");
    anyhow::ensure!(!is_required, "CI needs {what}: {obstacle}");
    eprintln!("== {what} is LEFT OUT, {left_out}: {obstacle}");
    Ok(false)
}

fn run_step(name: &str, command: &Cmd<'_>) -> Result<()> {
    step(name, || Ok(command.run()?))
}

/// Says what runs, and how long it took.
fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("== {name}");
    let start = Instant::now();
    let result = work();
    eprintln!("== {name}: {:.1} s", start.elapsed().as_secs_f64());
    result
}
