//! `cargo xtask gpu`: a folder that tests and times llada on a machine with a GPU and
//! `PyTorch`, but without Rust.
//!
//! Its programs are built with `--cfg real_gpu`, which leaves the software device out, and in a
//! target folder of their own, so that the software device's `libcuda.so` is never found beside
//! them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;
use xshell::{Cmd, Shell, cmd};

use crate::cuda;
use crate::metadata::{Metadata, Reach};

/// The most that the folder may hold, so that it can be sent by mail.
const MAX_BYTES: u64 = 60 << 20;

/// What is tested: flags of `cargo test`.
const TESTS: &[&str] = &[
    "-p",
    "llada-cuda",
    "-p",
    "llada",
    "--features",
    "llada-cuda/nvcc,llada/cuda",
    "--lib",
    "--test",
    "it",
    "--test",
    "cuda",
    "--test",
    "goldens",
];

/// Tests that have nothing to do with a GPU.
const NOT_OF_GPU: &[&str] = &["llada-it", "llada-unit"];

/// Python of the peers that the scripts of `tools/gpu` use.
const PEERS: &[&str] = &["generate.py", "shapes.py", "transformer.py"];

pub(crate) fn run(sh: &Shell, args: &[String]) -> Result<()> {
    let architectures = match args {
        [] => None,
        [flag, list] if flag == "--arch" => Some(list.as_str()),
        _ => anyhow::bail!("gpu: takes --arch LIST or nothing, got {args:?}"),
    };
    let target = Metadata::load(sh, Reach::Members)?.target_directory;
    cuda::install(sh, &target)?;
    let folder = target.join("gpu");
    sh.remove_path(&folder)?;
    sh.create_dir(&folder)?;

    for part in ["bin", "tests"] {
        sh.create_dir(folder.join(part))?;
    }
    let build = Build {
        sh,
        target: target.join("real-gpu"),
        architectures,
    };
    let tests = build.tests()?;
    let programs = build.programs()?;
    let mut glibc = None;
    for (name, program) in &tests {
        glibc = glibc.max(copy_program(sh, program, &folder.join("tests").join(name))?);
    }
    for (name, program) in &programs {
        glibc = glibc.max(copy_program(sh, program, &folder.join("bin").join(name))?);
    }

    let root = sh.current_dir();
    copy_tree(
        &root.join("crates/llada/tests/goldens"),
        &folder.join("goldens"),
        is_golden,
    )?;
    let scripts = root.join("tools/gpu");
    copy_tree(&scripts, &folder.join("python"), |path| {
        has_extension(path, "py")
    })?;
    sh.create_dir(folder.join("python/peers"))?;
    for peer in PEERS {
        sh.copy_file(
            root.join("tools/peers").join(peer),
            folder.join("python/peers").join(peer),
        )?;
    }
    sh.copy_file(scripts.join("run.sh"), folder.join("run.sh"))?;
    sh.write_file(
        folder.join("build.txt"),
        build_text(sh, architectures, glibc)?,
    )?;

    let sizes = sizes(&folder)?;
    let bytes: u64 = sizes.iter().map(|(_, bytes)| bytes).sum();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for (path, bytes) in sizes.iter().filter(|(_, bytes)| *bytes > 1 << 20) {
        eprintln!("{:8.1} MiB  {}", mib(*bytes), path.display());
    }
    anyhow::ensure!(
        bytes <= MAX_BYTES,
        "{} holds {:.1} MiB, over {}: give it the architecture of the GPU alone (--arch 90a)",
        folder.display(),
        mib(bytes),
        MAX_BYTES >> 20
    );
    eprintln!(
        "gpu: {:.1} MiB; copy the folder to a machine with a GPU and PyTorch, and start run.sh there",
        mib(bytes)
    );
    println!("{}", folder.display());
    Ok(())
}

/// Builds for a real GPU.
struct Build<'a> {
    sh: &'a Shell,
    /// Below the folder in which `cargo xtask cuda` installs, where the build script finds it.
    target: PathBuf,
    architectures: Option<&'a str>,
}

impl<'a> Build<'a> {
    /// Runs a command of cargo's, and returns what it made.
    fn artifacts(&self, command: Cmd<'a>) -> Result<Vec<Artifact>> {
        let mut command = command
            .args(["--release", "--message-format", "json-render-diagnostics"])
            .env("CARGO_TARGET_DIR", &self.target)
            .env("RUSTFLAGS", "--cfg real_gpu --check-cfg cfg(real_gpu)")
            .env("LLADA_CUDA_COMPRESS", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "none")
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
        if let Some(architectures) = self.architectures {
            command = command.env("LLADA_CUDA_ARCHS", architectures);
        }
        let messages = command.quiet().read()?;
        Ok(messages.lines().filter_map(Artifact::parse).collect())
    }

    fn tests(&self) -> Result<Vec<(String, PathBuf)>> {
        let sh = self.sh;
        let artifacts = self.artifacts(cmd!(sh, "cargo test --no-run {TESTS...}"))?;
        let mut tests = Vec::new();
        for artifact in artifacts.into_iter().filter(|artifact| artifact.is_test) {
            let name = artifact.test_name();
            if !NOT_OF_GPU.contains(&name.as_str()) {
                tests.push((name, artifact.executable));
            }
        }
        anyhow::ensure!(!tests.is_empty(), "gpu: cargo built no test");
        Ok(tests)
    }

    fn programs(&self) -> Result<Vec<(String, PathBuf)>> {
        let sh = self.sh;
        let llada = cmd!(sh, "cargo build -p llada-cli --features cuda --bin llada");
        let device = cmd!(
            sh,
            "cargo build -p llada-benches --features cuda --bin device"
        );
        let mut programs = Vec::new();
        for command in [llada, device] {
            let artifacts = self.artifacts(command)?;
            let program = artifacts.into_iter().next_back();
            let program = program.context("gpu: cargo built no program")?;
            programs.push((program.target, program.executable));
        }
        Ok(programs)
    }
}

/// A program that cargo built.
#[derive(Debug, PartialEq, Eq)]
struct Artifact {
    package: String,
    target: String,
    is_lib: bool,
    is_test: bool,
    executable: PathBuf,
}

impl Artifact {
    /// From a message of cargo's, if it tells of a program.
    fn parse(line: &str) -> Option<Self> {
        let message: Value = serde_json::from_str(line).ok()?;
        let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
        if text("/reason")? != "compiler-artifact" {
            return None;
        }
        let id = text("/package_id")?;
        let path = id.rsplit_once('#').map_or(id, |(path, _)| path);
        let kinds = message.pointer("/target/kind")?.as_array()?;
        Some(Self {
            package: path.rsplit('/').next()?.to_owned(),
            target: text("/target/name")?.to_owned(),
            is_lib: kinds.iter().any(|kind| kind == "lib"),
            is_test: message.pointer("/profile/test")?.as_bool()?,
            executable: text("/executable")?.into(),
        })
    }

    fn test_name(&self) -> String {
        let target = if self.is_lib { "unit" } else { &self.target };
        format!("{}-{target}", self.package)
    }
}

/// Copies a program and packs it, and returns the version of glibc that it needs.
fn copy_program(sh: &Shell, from: &Path, to: &Path) -> Result<Option<(u32, u32)>> {
    sh.copy_file(from, to)?;
    cmd!(sh, "gzip -9 -n {to}").quiet().run()?;
    let bytes = std::fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    Ok(needed_glibc(&bytes))
}

/// The greatest version among the names `GLIBC_2.34` of symbol versions.
fn needed_glibc(program: &[u8]) -> Option<(u32, u32)> {
    const NAME: &[u8] = b"GLIBC_";
    let version = |window: (usize, &[u8])| {
        let rest = &program[window.0 + NAME.len()..];
        let end = rest
            .iter()
            .position(|byte| !(byte.is_ascii_digit() || *byte == b'.'))?;
        let text = std::str::from_utf8(&rest[..end]).ok()?;
        let mut numbers = text.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    program
        .windows(NAME.len())
        .enumerate()
        .filter(|(_, window)| *window == NAME)
        .filter_map(version)
        .max()
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// The cases, but not the code that replays them.
fn is_golden(path: &Path) -> bool {
    !has_extension(path, "rs")
}

fn copy_tree(from: &Path, to: &Path, keep: fn(&Path) -> bool) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let entries = std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            if entry.file_name() != "__pycache__" {
                copy_tree(&path, &copy, keep)?;
            }
        } else if keep(&path) {
            std::fs::copy(&path, &copy).with_context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}

/// What the folder was made from, for the records.
fn build_text(
    sh: &Shell,
    architectures: Option<&str>,
    glibc: Option<(u32, u32)>,
) -> Result<String> {
    let commit = cmd!(sh, "git describe --always --dirty")
        .quiet()
        .ignore_stderr()
        .read()
        .unwrap_or_else(|_| "unknown".to_owned());
    let rustc = cmd!(sh, "rustc --version").quiet().read()?;
    let glibc = glibc.map_or_else(|| "unknown".to_owned(), |(a, b)| format!("{a}.{b}"));
    let architectures = architectures.unwrap_or("all");
    Ok(format!(
        "commit {commit}\nrustc {rustc}\narchitectures {architectures}\nneeds glibc {glibc}\n"
    ))
}

/// All files below a folder.
fn sizes(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                found.push((entry.path(), entry.metadata()?.len()));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;
