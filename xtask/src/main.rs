//! Development tasks of the workspace: `cargo xtask COMMAND`.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program talks to its user"
)]

mod bench;
mod build;
mod ci;
mod cuda;
mod data;
mod gpu;
mod kernels;
mod metadata;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use xshell::Shell;

const HELP: &str = "\
Development tasks of the workspace.

Usage: cargo xtask COMMAND [ARGUMENTS]

Commands:
  ci                  everything that CI checks, in order; the tests come last
  build               build the release binary and print its path (--cuda: with feature cuda;
                      --arch 80,90a: machine code for these alone)
  bench [FILTER...]   run the benchmarks whose names match a filter, record them in bench/records
                      (what follows a -- goes to criterion: cargo xtask bench matmul -- --quick;
                      --list: names alone)
  cuda                install CUDA's compiler and libclang into the target folder
  kernels [FILTER]    registers, occupancy and main loops of the CUDA kernels, and their least times
                      (--arch 80,90a; --format json; --stats FILE: counters of the software device;
                      --check compares with bench/kernels.csv, --bless writes it)
  gpu                 write target/gpu, which tests and times on a machine with a GPU and PyTorch
                      (--arch 90a: machine code for these alone)
  data NAME           fetch and prepare a data set (poems), or measure its baselines (baselines)
  tidy                check layers, licenses, file sizes, module docs and op parity
                      (--offline: licenses of the packages that this machine has)
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, args)) = args.split_first() else {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    };
    match dispatch(command, args) {
        Ok(code) => code,
        Err(error) if error.is::<ci::TestsFailed>() => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: &str, args: &[String]) -> Result<ExitCode> {
    let sh = Shell::new()?;
    sh.change_dir(workspace_root()?);
    match command {
        "ci" => ci::run(&sh, args),
        "build" => build::run(&sh, args),
        "bench" => bench::run(&sh, args),
        "cuda" => cuda::run(&sh, args),
        "kernels" => kernels::run(&sh, args),
        "gpu" => gpu::run(&sh, args),
        "data" => data::run(&sh, args),
        "tidy" => tidy::run(&sh, args),
        "help" | "-h" | "--help" => {
            print!("{HELP}");
            Ok(())
        }
        _ => {
            eprint!("error: there is no command {command:?}\n\n{HELP}");
            return Ok(ExitCode::from(2));
        }
    }
    .map(|()| ExitCode::SUCCESS)
}

/// The folder above this package, as cargo tells it at run time.
fn workspace_root() -> Result<PathBuf> {
    let manifest_dir = std::env::var("CARGO_MANIFEST_DIR")
        .unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    let parent = Path::new(&manifest_dir).parent();
    Ok(parent
        .context("the xtask package has no parent folder")?
        .to_owned())
}

/// For commands that take none.
fn no_arguments(command: &str, args: &[String]) -> Result<()> {
    anyhow::ensure!(
        args.is_empty(),
        "{command}: takes no arguments, got {args:?}"
    );
    Ok(())
}
