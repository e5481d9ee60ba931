//! `cargo xtask kernels`: static evidence of the CUDA kernels, without a GPU.
//!
//! Every entry is taken apart on every architecture: registers, shared memory, how many blocks
//! fit, and what the main loop is made of. With the counters of the software device it also shows
//! bank conflicts and sectors of memory. The roofline is the least time that the main kernels can
//! take at the shapes of LLaDA-8B. None of this is a measurement on a GPU.

mod gpu;
mod images;
mod launches;
mod record;
mod roofline;
mod sass;
mod simulator;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use xshell::Shell;

use crate::cuda;
use crate::metadata::{Metadata, Reach};

use gpu::Gpu;
use record::Row;

/// The table that is kept.
const TABLE: &str = "bench/kernels.csv";

#[derive(Debug, Default)]
struct Args {
    /// Part of the names of entries.
    filter: Option<String>,
    architectures: Option<String>,
    stats: Option<PathBuf>,
    is_json: bool,
    job: Job,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Job {
    #[default]
    Print,
    /// Compares with the kept table.
    Check,
    /// Writes the kept table.
    Bless,
}

impl Args {
    fn parse(args: &[String]) -> Result<Self> {
        let mut parsed = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || {
                let value = args.next().cloned();
                value.with_context(|| format!("kernels: {arg} needs a value"))
            };
            match arg.as_str() {
                "--check" => parsed.job = Job::Check,
                "--bless" => parsed.job = Job::Bless,
                "--arch" => parsed.architectures = Some(value()?),
                "--stats" => parsed.stats = Some(value()?.into()),
                "--format" => {
                    let format = value()?;
                    parsed.is_json = format == "json";
                    let is_known = parsed.is_json || format == "text";
                    anyhow::ensure!(is_known, "kernels: --format is text or json");
                }
                filter if !filter.starts_with('-') && parsed.filter.is_none() => {
                    parsed.filter = Some(filter.to_owned());
                }
                _ => anyhow::bail!("kernels: what is {arg:?}?"),
            }
        }
        let is_whole = parsed.filter.is_none() && parsed.architectures.is_none();
        anyhow::ensure!(
            parsed.job == Job::Print || is_whole,
            "kernels: the table is of all kernels and architectures, leave out FILTER and --arch"
        );
        Ok(parsed)
    }
}

pub(crate) fn run(sh: &Shell, args: &[String]) -> Result<()> {
    let args = Args::parse(args)?;
    let target = Metadata::load(sh, Reach::Members)?.target_directory;
    let build = ["build", "-p", "llada-kernels", "--features", "nvcc"].map(str::to_owned);
    let mut rows = rows(
        sh,
        &target,
        &build,
        args.architectures.as_deref(),
        args.stats.as_deref(),
    )?;
    if let Some(filter) = &args.filter {
        rows.retain(|row| row.entry.contains(filter));
        anyhow::ensure!(
            !rows.is_empty(),
            "kernels: no entry has {filter:?} in its name"
        );
    }

    let path = sh.current_dir().join(TABLE);
    match args.job {
        Job::Print if args.is_json => {
            let result = json!({ "kernels": rows, "roofline": roofline_json() });
            println!("{}", serde_json::to_string_pretty(&result)?);
        }
        Job::Print => print!("{}\n{}", record::table(&rows), roofline_table()),
        Job::Check => return check(&path, &rows),
        Job::Bless => {
            sh.write_file(&path, record::csv(&rows))?;
            eprintln!("written to {}", path.display());
        }
    }
    Ok(())
}

/// Compares the kernels that a command of cargo's builds with the kept table.
pub(crate) fn check_built(
    sh: &Shell,
    target: &Path,
    build: &[String],
    stats: Option<&Path>,
) -> Result<()> {
    let rows = rows(sh, target, build, None, stats)?;
    check(&sh.current_dir().join(TABLE), &rows)
}

fn rows(
    sh: &Shell,
    target: &Path,
    build: &[String],
    architectures: Option<&str>,
    stats: Option<&Path>,
) -> Result<Vec<Row>> {
    let toolkit = cuda::find(sh, target)?;
    let images = images::build(sh, build, architectures)?;
    let sources = sh.current_dir().join("kernels");
    let entries = images::inspect(&toolkit, &sources, &images, &target.join("kernels"))?;
    let counters = match stats {
        Some(path) => simulator::read(&sh.current_dir().join(path))?,
        None => BTreeMap::new(),
    };
    let row = |entry: &images::Entry| Row::new(entry, counters.get(&entry.name));
    Ok(entries.iter().map(row).collect())
}

fn check(path: &Path, rows: &[Row]) -> Result<()> {
    let kept = std::fs::read_to_string(path).with_context(|| {
        format!(
            "{}: write it with `cargo xtask kernels --bless`",
            path.display()
        )
    })?;
    let kept = record::parse_csv(&kept).with_context(|| format!("reading {}", path.display()))?;
    let problems = record::check(rows, &kept);
    for problem in &problems {
        eprintln!("{problem}");
    }
    anyhow::ensure!(
        problems.is_empty(),
        "kernels: {} problems (`cargo xtask kernels --bless` accepts figures that got worse with \
         good reason, and new kernels)",
        problems.len()
    );
    eprintln!(
        "kernels: {} entries and architectures are as good as in {TABLE}",
        rows.len()
    );
    Ok(())
}

fn roofline_gpus() -> impl Iterator<Item = &'static Gpu> {
    roofline::ARCHITECTURES
        .iter()
        .filter_map(|arch| Gpu::of(arch))
}

fn roofline_table() -> String {
    let mut head = ["least time at LLaDA-8B", "L", "GFLOP", "MB"]
        .map(str::to_owned)
        .to_vec();
    head.extend(roofline_gpus().map(|gpu| format!("{} us", gpu.name)));
    let mut lines = vec![head];
    for (name, work) in roofline::OPS {
        for &length in roofline::LENGTHS {
            let work = work(f64::from(length));
            let mut line = vec![
                (*name).to_owned(),
                length.to_string(),
                format!("{:.2}", work.gigaflop()),
                format!("{:.1}", work.megabytes()),
            ];
            line.extend(roofline_gpus().map(|gpu| {
                let bound = work.bound(gpu);
                let by = if bound.is_memory { "memory" } else { "compute" };
                format!("{:.1} {by:>7}", bound.microseconds)
            }));
            lines.push(line);
        }
    }
    record::columns(&lines)
}

fn roofline_json() -> Value {
    let mut bounds = Vec::new();
    for (name, work) in roofline::OPS {
        for &length in roofline::LENGTHS {
            let work = work(f64::from(length));
            for gpu in roofline_gpus() {
                let bound = work.bound(gpu);
                bounds.push(json!({
                    "op": name,
                    "length": length,
                    "gpu": gpu.name,
                    "gigaflop": work.gigaflop(),
                    "megabytes": work.megabytes(),
                    "bound_by": if bound.is_memory { "memory" } else { "compute" },
                    "microseconds": bound.microseconds,
                }));
            }
        }
    }
    bounds.into()
}
