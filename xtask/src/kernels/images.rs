//! The compiled kernels, taken apart: PTX, and machine code for each architecture.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rayon::prelude::*;
use serde_json::Value;
use xshell::{Shell, cmd};

use super::gpu::RESERVED_SHARED;
use super::sass::{self, Mix};
use crate::cuda::Toolkit;

/// What the compiler says of one entry on one architecture.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) op: String,
    pub(super) name: String,
    pub(super) arch: String,
    pub(super) registers: u32,
    /// Local memory of a thread, the stack included.
    pub(super) local_bytes: u32,
    pub(super) static_shared: u32,
    pub(super) whole: Mix,
    /// All zero where there is no loop.
    pub(super) main_loop: Mix,
    pub(super) ptx: PtxFacts,
}

/// What the PTX of an entry says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PtxFacts {
    /// Most threads of a block, by `__launch_bounds__`.
    pub(super) max_threads: Option<u32>,
    pub(super) uses_dynamic_shared: bool,
}

/// Runs a command of cargo's that compiles the kernels, and returns the folder of their images.
pub(super) fn build(
    sh: &Shell,
    command: &[String],
    architectures: Option<&str>,
) -> Result<PathBuf> {
    let mut build = cmd!(
        sh,
        "cargo {command...} --message-format json-render-diagnostics"
    );
    if let Some(architectures) = architectures {
        build = build.env("LLADA_CUDA_ARCHS", architectures);
    }
    let messages = build.quiet().read()?;
    let out_dir = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let text = |key: &str| message.get(key).and_then(Value::as_str);
        let is_ours = text("reason")? == "build-script-executed"
            && text("package_id")?.contains("llada-kernels");
        text("out_dir").filter(|_| is_ours).map(PathBuf::from)
    };
    messages
        .lines()
        .find_map(out_dir)
        .context("cargo names no folder of the kernels' build script")
}

/// Takes the image of each file of device code apart, in a scratch folder.
pub(super) fn inspect(
    toolkit: &Toolkit,
    sources: &Path,
    images: &Path,
    scratch: &Path,
) -> Result<Vec<Entry>> {
    // The folder of images may hold some whose source is gone.
    let mut fatbins = Vec::new();
    for entry in std::fs::read_dir(sources)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cu") {
            let op = path.file_stem().unwrap_or_default();
            fatbins.push(images.join(op).with_extension("fatbin"));
        }
    }
    fatbins.sort();
    let taken_apart: Vec<_> = fatbins
        .par_iter()
        .map(|fatbin| extract(toolkit, fatbin, scratch))
        .collect::<Result<_>>()?;
    let jobs: Vec<(&str, &Path, &BTreeMap<String, PtxFacts>)> = taken_apart
        .iter()
        .flat_map(|image| {
            let job = |cubin| (&*image.op, Path::new(cubin), &image.ptx);
            image.cubins.iter().map(job)
        })
        .collect();
    let entries: Vec<Vec<Entry>> = jobs
        .par_iter()
        .map(|&(op, cubin, ptx)| inspect_cubin(toolkit, op, cubin, ptx))
        .collect::<Result<_>>()?;
    let mut entries = entries.concat();
    let place = |arch: &str| {
        arch.trim_end_matches('a')
            .parse::<u32>()
            .unwrap_or(u32::MAX)
    };
    entries.sort_by(|a, b| (&a.op, &a.name, place(&a.arch)).cmp(&(&b.op, &b.name, place(&b.arch))));
    Ok(entries)
}

struct Extracted {
    op: String,
    cubins: Vec<PathBuf>,
    ptx: BTreeMap<String, PtxFacts>,
}

fn extract(toolkit: &Toolkit, fatbin: &Path, scratch: &Path) -> Result<Extracted> {
    let sh = Shell::new()?;
    let op = fatbin.file_stem().unwrap_or_default().to_string_lossy();
    let folder = scratch.join(&*op);
    sh.remove_path(&folder)?;
    sh.create_dir(&folder)?;
    sh.change_dir(&folder);
    let cuobjdump = &toolkit.cuobjdump;
    cmd!(sh, "{cuobjdump} -xelf all -xptx all {fatbin}")
        .quiet()
        .ignore_stdout()
        .run()?;
    let mut cubins = Vec::new();
    let mut ptx = BTreeMap::new();
    for path in sh.read_dir(&folder)? {
        if path
            .extension()
            .is_some_and(|extension| extension == "cubin")
        {
            cubins.push(path);
        } else if path.extension().is_some_and(|extension| extension == "ptx") {
            ptx.extend(parse_ptx(&sh.read_file(&path)?));
        }
    }
    Ok(Extracted {
        op: op.into_owned(),
        cubins,
        ptx,
    })
}

fn inspect_cubin(
    toolkit: &Toolkit,
    op: &str,
    cubin: &Path,
    ptx: &BTreeMap<String, PtxFacts>,
) -> Result<Vec<Entry>> {
    let sh = Shell::new()?;
    let name = cubin.file_name().unwrap_or_default().to_string_lossy();
    let arch = name
        .split('.')
        .find_map(|part| part.strip_prefix("sm_"))
        .with_context(|| format!("{name} names no architecture"))?;
    let (cuobjdump, nvdisasm) = (&toolkit.cuobjdump, &toolkit.nvdisasm);
    let usage = cmd!(sh, "{cuobjdump} -res-usage {cubin}").quiet().read()?;
    let usage = parse_usage(&usage);
    let functions = sass::parse(&cmd!(sh, "{nvdisasm} -c {cubin}").quiet().read()?);
    let mut entries = Vec::new();
    for (name, facts) in ptx {
        let (Some(function), Some(usage)) = (functions.get(name), usage.get(name)) else {
            anyhow::bail!("{}: no machine code of {name}", cubin.display());
        };
        // From sm_90 on the system's share is counted as the kernel's.
        let is_counted = arch.trim_end_matches('a').parse::<u32>()? >= 90;
        let reserved = if is_counted { RESERVED_SHARED } else { 0 };
        entries.push(Entry {
            op: op.to_owned(),
            name: name.clone(),
            arch: arch.to_owned(),
            registers: usage.registers,
            local_bytes: usage.local_bytes,
            static_shared: usage.shared_bytes.saturating_sub(reserved),
            whole: function.mix(),
            main_loop: function.main_loop().unwrap_or_default(),
            ptx: *facts,
        });
    }
    Ok(entries)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Usage {
    registers: u32,
    local_bytes: u32,
    shared_bytes: u32,
}

/// From ` Function NAME:` and the line `  REG:24 STACK:0 SHARED:128 LOCAL:0 ..` below it.
fn parse_usage(text: &str) -> BTreeMap<String, Usage> {
    let mut found = BTreeMap::new();
    let mut name = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(function) = line.strip_prefix("Function ") {
            name = Some(function.trim_end_matches(':').to_owned());
        } else if line.starts_with("REG:") {
            let number = |key: &str| {
                line.split_whitespace()
                    .find_map(|field| field.strip_prefix(key)?.strip_prefix(':')?.parse().ok())
                    .unwrap_or(0)
            };
            let usage = Usage {
                registers: number("REG"),
                local_bytes: number("STACK") + number("LOCAL"),
                shared_bytes: number("SHARED"),
            };
            found.extend(name.take().map(|name| (name, usage)));
        }
    }
    found
}

/// The entries of a PTX file.
fn parse_ptx(text: &str) -> BTreeMap<String, PtxFacts> {
    let dynamic: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with(".extern .shared"))
        .filter_map(|line| line.split_whitespace().last()?.split('[').next())
        .collect();
    let mut found = BTreeMap::new();
    for entry in text.split(".entry ").skip(1) {
        let Some((name, rest)) = entry.split_once('(') else {
            continue;
        };
        let body = rest.split("\n}").next().unwrap_or_default();
        let max_threads = body.split(".maxntid ").nth(1).map(|rest| {
            let line = rest.lines().next().unwrap_or_default();
            let sizes = line
                .split(',')
                .filter_map(|size| size.trim().parse::<u32>().ok());
            sizes.product()
        });
        let mut words = body.split(|c: char| !(c.is_alphanumeric() || "_$%".contains(c)));
        let facts = PtxFacts {
            max_threads,
            uses_dynamic_shared: words.any(|word| dynamic.contains(&word)),
        };
        found.insert(name.trim().to_owned(), facts);
    }
    found
}

#[cfg(test)]
mod tests;
