//! `cargo xtask ci`: everything that must hold, in order.
//!
//! The tests come last, so that the last line printed is the test runner's own summary.

use std::fmt;
use std::time::Instant;

use anyhow::Result;
use xshell::{Cmd, Shell, cmd};

use crate::metadata::{Metadata, Reach};
use crate::tidy;

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
    step("tidy", || tidy::run(sh, &[]))?;
    run_step("format", &cmd!(sh, "cargo fmt --all --check"))?;
    run_step(
        "lint",
        &cmd!(sh, "cargo clippy --workspace --all-targets -- -D warnings"),
    )?;

    let with_nextest = cmd!(sh, "cargo nextest --version")
        .quiet()
        .ignore_stderr()
        .read()
        .is_ok();
    let tests = |flags: &[&str]| {
        if with_nextest {
            cmd!(sh, "cargo nextest run --workspace {flags...}")
        } else {
            // Doctests would come last, and the last summary would be that of an empty run.
            cmd!(sh, "cargo test --workspace --lib --bins --tests {flags...}")
        }
    };
    run_step("build tests", &tests(&["--no-run"]))?;

    let docs = cmd!(sh, "cargo doc --workspace --no-deps").env("RUSTDOCFLAGS", "-D warnings");
    run_step("docs", &docs)?;
    let metadata = Metadata::load(sh, Reach::Members)?;
    if metadata.members.iter().any(|member| member.name == "llada") {
        run_step("doctests", &cmd!(sh, "cargo test --doc -p llada"))?;
    }
    for member in &metadata.members {
        for example in &member.examples {
            let package = &member.name;
            let example_run = cmd!(sh, "cargo run --quiet -p {package} --example {example}");
            run_step(&format!("example {example}"), &example_run)?;
        }
    }

    eprintln!("== test");
    tests(&[]).run().map_err(|_| TestsFailed.into())
}

fn run_step(name: &str, command: &Cmd<'_>) -> Result<()> {
    step(name, || Ok(command.run()?))
}

/// Says what runs, and how long it took.
fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("== {name}");
    let start = Instant::now();
    let result = work();
    eprintln!("== {name}: {:.1} s", start.elapsed().as_secs_f64());
    result
}
