//! Proof that the default build needs neither CUDA nor libclang nor MPI nor Python: while it runs,
//! programs of their names stand first in the path; they fail, and note that they were called.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::{PushEnv, Shell, cmd};

const PROGRAMS: &[&str] = &[
    "nvcc",
    "ptxas",
    "clang",
    "llvm-config",
    "mpicc",
    "python",
    "python3",
    "pip",
    "pip3",
];

/// What could lead a build script past the path.
const VARIABLES: &[&str] = &["LLADA_NVCC", "CUDA_HOME", "CUDA_PATH", "LIBCLANG_PATH"];

/// Packages that only a build with CUDA or MPI may use.
const PACKAGES: &[&str] = &[
    "bindgen",
    "clang-sys",
    "cudarc",
    "llada-cuda",
    "mpi",
    "mpi-sys",
];

/// The programs are in the path as long as this lives.
pub(super) struct Decoys<'a> {
    notes: PathBuf,
    _variables: Vec<PushEnv<'a>>,
}

impl<'a> Decoys<'a> {
    pub(super) fn set(sh: &'a Shell, target: &Path) -> Result<Self> {
        let folder = target.join("decoys");
        let notes = folder.join("called");
        sh.remove_path(&folder)?;
        sh.create_dir(&folder)?;
        for program in PROGRAMS {
            let text = format!(
                "#!/bin/sh\necho \"{program} $*\" >> '{}'\n\
                 echo 'error: the default build must not need {program}' >&2\nexit 127\n",
                notes.display()
            );
            let path = folder.join(program);
            sh.write_file(&path, text)?;
            make_executable(&path)?;
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([folder].into_iter().chain(env::split_paths(&path)))?;
        let mut variables = vec![sh.push_env("PATH", path)];
        // An empty value is no path to anything.
        let is_set = |name: &&&str| env::var_os(name).is_some();
        let set = VARIABLES.iter().filter(is_set);
        variables.extend(set.map(|name| sh.push_env(name, "")));
        Ok(Self {
            notes,
            _variables: variables,
        })
    }

    /// Takes the programs out of the path.
    ///
    /// # Errors
    /// If one of them was called.
    pub(super) fn remove(self) -> Result<()> {
        let called = std::fs::read_to_string(&self.notes).unwrap_or_default();
        anyhow::ensure!(called.is_empty(), "the default build called:\n{called}");
        Ok(())
    }
}

fn make_executable(path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let all_may_run = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, all_may_run)
            .with_context(|| format!("making {} executable", path.display()))?;
    }
    Ok(())
}

/// Whether the packages of the default build are free of those of CUDA and MPI.
pub(super) fn check_dependencies(sh: &Shell) -> Result<()> {
    let tree = cmd!(sh, "cargo tree -p llada-cli -e normal,build --prefix none")
        .quiet()
        .read()?;
    let found = optional(&tree);
    anyhow::ensure!(
        found.is_empty(),
        "the default build depends on {}",
        found.join(", ")
    );
    Ok(())
}

/// The packages of [`PACKAGES`] in a list of `NAME VERSION` lines.
fn optional(tree: &str) -> Vec<&'static str> {
    let names: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let is_there = |package: &&&str| names.contains(*package);
    PACKAGES.iter().filter(is_there).copied().collect()
}

#[cfg(test)]
mod tests;
