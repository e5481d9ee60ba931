//! The part of CI that needs MPI: training by several processes on this machine.

use std::env;

use anyhow::Result;
use xshell::{Cmd, Shell, cmd};

use super::{TestsFailed, run_step};

/// Why the tests could not be built or run on this machine, if that can be told without trying.
pub(super) fn obstacle(sh: &Shell) -> Option<String> {
    const HINT: &str = "(Debian: apt-get install libopenmpi-dev openmpi-bin libclang-dev)";
    let works = |command: Cmd<'_>| {
        let command = command.quiet().ignore_stdout().ignore_stderr();
        command.run().is_ok()
    };
    if !works(cmd!(sh, "mpirun --version")) {
        return Some(format!("there is no mpirun {HINT}"));
    }
    // The compiler may be there without the header.
    let compiles = cmd!(sh, "mpicc -x c -fsyntax-only -").stdin("#include <mpi.h>\n");
    if !works(compiles) {
        return Some(format!("mpicc does not compile a line with mpi.h {HINT}"));
    }
    // The bindings are made from the header of the MPI that is installed.
    let libraries = cmd!(sh, "/sbin/ldconfig -p").quiet().read();
    let is_there = env::var_os("LIBCLANG_PATH").is_some_and(|path| !path.is_empty())
        || libraries.is_ok_and(|list| has_libclang(&list));
    (!is_there).then(|| format!("there is no libclang {HINT}"))
}

/// Whether a list of libraries has libclang: `libclang.so` or one with a version, such as
/// `libclang-14.so.1`, but not `libclang-cpp`, which is another library.
fn has_libclang(list: &str) -> bool {
    let is_it = |word: &str| {
        let rest = word.strip_prefix("libclang");
        rest.is_some_and(|rest| {
            let version = rest.strip_prefix('-').unwrap_or("");
            rest.starts_with(".so") || version.starts_with(|c: char| c.is_ascii_digit())
        })
    };
    list.split_whitespace().any(is_it)
}

pub(super) fn check(sh: &Shell, with_nextest: bool) -> Result<()> {
    // Of the whole workspace, as without MPI: what does not depend on it is there already.
    let package = ["--workspace", "--features", "llada-cli/mpi"];
    let lint = cmd!(sh, "cargo clippy {package...} --all-targets -- -D warnings");
    run_step("lint MPI", &lint)?;
    // One test at a time: every rank waits for the others at full speed.
    let filter = "package(llada-cli) & test(/^mpi::/)";
    let (build, test) = if with_nextest {
        (
            cmd!(sh, "cargo nextest run {package...} --test it --no-run"),
            cmd!(
                sh,
                "cargo nextest run {package...} --test it -j 1 -E {filter}"
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

#[cfg(test)]
mod tests {
    //! Tests of what is found on a machine.

    use super::*;

    #[test]
    fn libclang_is_told_from_libraries_with_like_names() {
        let check = |list: &str, expected: bool| assert_eq!(has_libclang(list), expected, "{list}");
        check(
            "\tlibclang-cpp.so.14 (libc6,x86-64) => /usr/lib/libclang-cpp.so.14\n",
            false,
        );
        check(
            "\tlibclang-14.so.1 (libc6,x86-64) => /usr/lib/libclang-14.so.1\n",
            true,
        );
        check(
            "\tlibclang.so.1 (libc6,x86-64) => /usr/lib/libclang.so.1\n",
            true,
        );
        check(
            "\tlibclangBasic.so (libc6,x86-64) => /usr/lib/libclangBasic.so\n",
            false,
        );
    }
}
