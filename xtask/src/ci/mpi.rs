//! The part of CI that needs MPI: training by several processes on this machine.

use std::env;

use anyhow::Result;
use xshell::{Shell, cmd};

use super::{TestsFailed, run_step};

/// Why the tests could not be built or run on this machine, if that can be told without trying.
pub(super) fn obstacle(sh: &Shell) -> Option<String> {
    const HINT: &str = "(Debian: apt-get install libopenmpi-dev openmpi-bin libclang-dev)";
    for program in ["mpirun", "mpicc"] {
        let found = cmd!(sh, "{program} --version")
            .quiet()
            .ignore_stdout()
            .ignore_stderr()
            .run();
        if found.is_err() {
            return Some(format!("there is no {program} {HINT}"));
        }
    }
    // The bindings are made from the header of the MPI that is installed.
    let libraries = cmd!(sh, "/sbin/ldconfig -p").quiet().read();
    let is_there = env::var_os("LIBCLANG_PATH").is_some_and(|path| !path.is_empty())
        || libraries.is_ok_and(|list| list.contains("libclang"));
    (!is_there).then(|| format!("there is no libclang {HINT}"))
}

pub(super) fn check(sh: &Shell, with_nextest: bool) -> Result<()> {
    let package = ["-p", "llada-cli", "--features", "mpi"];
    let lint = cmd!(sh, "cargo clippy {package...} --all-targets -- -D warnings");
    run_step("lint MPI", &lint)?;
    // One test at a time: every rank waits for the others at full speed.
    let (build, test) = if with_nextest {
        (
            cmd!(sh, "cargo nextest run {package...} --test it --no-run"),
            cmd!(
                sh,
                "cargo nextest run {package...} --test it -j 1 -E test(/^mpi::/)"
            ),
        )
    } else {
        (
            cmd!(sh, "cargo test {package...} --test it --no-run"),
            cmd!(
                sh,
                "cargo test {package...} --test it mpi:: -- --test-threads 1"
            ),
        )
    };
    run_step("build MPI tests", &build)?;
    eprintln!("== test training under mpirun");
    test.run().map_err(|_| TestsFailed)?;
    Ok(())
}
