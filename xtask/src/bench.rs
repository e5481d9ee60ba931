//! `cargo xtask bench`: runs the benchmarks, prints a table and keeps a record.
//!
//! A record is a CSV in `bench/records` with the date, the machine and the commit in every row.

mod record;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::metadata::{Metadata, Reach};

use record::{Origin, Outcome};

const RECORDS: &str = "bench/records";

const HELP: &str = "\
Runs the benchmarks, prints a table and keeps a record in bench/records.

Usage: cargo xtask bench [FILTER...] [-- CRITERION ARGUMENTS]
       cargo xtask bench --list [FILTER...]

  FILTER      a part of the name of a benchmark, or a regular expression; those that match any of
              them run, and the limits of the machine
  --list      print the names of the benchmarks that match, and run none
  -- ...      what follows goes to criterion: cargo xtask bench matmul -- --quick

A name is OP/fwd|bwd/TYPE/SHAPE; each module of benches/ has those of the op that it is named after.
The first run compiles the benchmarks, which takes minutes.
";

pub(crate) fn run(sh: &Shell, args: &[String]) -> Result<()> {
    if args.iter().any(|arg| arg == "-h" || arg == "--help") {
        print!("{HELP}");
        return Ok(());
    }
    if let Some((first, filters)) = args.split_first().filter(|(first, _)| *first == "--list") {
        let filter = (!filters.is_empty()).then(|| filters.join("|"));
        cmd!(sh, "cargo bench -p llada-benches -- {first} {filter...}").run()?;
        return Ok(());
    }
    let ours = args.iter().take_while(|arg| *arg != "--");
    if let Some(flag) = ours.into_iter().find(|arg| arg.starts_with('-')) {
        anyhow::bail!("bench: unknown flag {flag}; see cargo xtask bench --help");
    }
    let split = args
        .iter()
        .position(|arg| arg == "--")
        .unwrap_or(args.len());
    let (filters, flags) = args.split_at(split);
    let flags = flags.get(1..).unwrap_or_default();
    // Criterion takes one filter, a regular expression. The limits are measured in every run.
    let filter = (!filters.is_empty()).then(|| format!("{}|^limit/", filters.join("|")));

    let criterion = Metadata::load(sh, Reach::Members)?
        .target_directory
        .join("criterion");
    let before = estimates(&criterion)?;
    cmd!(sh, "cargo bench -p llada-benches -- {filter...} {flags...}").run()?;
    let mut outcomes = Vec::new();
    for (path, modified) in estimates(&criterion)? {
        if before.get(&path) != Some(&modified) {
            outcomes.push(outcome(&path)?);
        }
    }
    anyhow::ensure!(
        !outcomes.is_empty(),
        "no benchmark ran; the filter was {filters:?}"
    );
    outcomes.sort_by(|a, b| a.name.cmp(&b.name));

    print!("{}", record::table(&outcomes));
    let origin = origin(sh)?;
    let path = free_path(&sh.current_dir().join(RECORDS), &origin);
    sh.write_file(&path, record::csv(&origin, &outcomes))?;
    println!("\nwritten to {}", path.display());
    Ok(())
}

/// Where criterion left its newest estimates, and when.
fn estimates(folder: &Path) -> Result<BTreeMap<PathBuf, SystemTime>> {
    let mut found = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(found);
    };
    for entry in entries {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        let file = path.join("estimates.json");
        if path.ends_with("new") && file.is_file() {
            let modified = file.metadata()?.modified()?;
            found.insert(file, modified);
        } else {
            found.append(&mut estimates(&path)?);
        }
    }
    Ok(found)
}

fn outcome(estimates: &Path) -> Result<Outcome> {
    let read = |path: &Path| -> Result<Value> {
        let text = std::fs::read_to_string(path)?;
        serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))
    };
    let benchmark = estimates.with_file_name("benchmark.json");
    Outcome::parse(&read(&benchmark)?, &read(estimates)?)
        .with_context(|| format!("reading {}", estimates.display()))
}

fn origin(sh: &Shell) -> Result<Origin> {
    let mut commit = cmd!(sh, "git rev-parse --short HEAD").quiet().read()?;
    if !cmd!(sh, "git status --porcelain --untracked-files=no")
        .quiet()
        .read()?
        .is_empty()
    {
        commit.push_str("-dirty");
    }
    Ok(Origin {
        date: cmd!(sh, "date -u +%F").quiet().read()?,
        commit,
        cpu: cpu(sh),
    })
}

fn cpu(sh: &Shell) -> String {
    let from_linux = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        });
    let from_macos = || {
        cmd!(sh, "sysctl -n machdep.cpu.brand_string")
            .quiet()
            .ignore_stderr()
            .read()
            .ok()
    };
    let name = from_linux
        .or_else(from_macos)
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let threads = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{name}, {threads} threads")
}

/// A name that no record has yet.
fn free_path(folder: &Path, origin: &Origin) -> PathBuf {
    let stem = format!("{}-{}", origin.date, origin.commit);
    (1..)
        .map(|n| {
            if n == 1 {
                format!("{stem}.csv")
            } else {
                format!("{stem}-{n}.csv")
            }
        })
        .map(|name| folder.join(name))
        .find(|path| !path.exists())
        .expect("a folder has fewer files than there are numbers")
}
