//! `metrics.jsonl`: a line per interval of steps.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::durable::{io, replace};
use crate::events::Events;

const FILE: &str = "metrics.jsonl";

/// A line of `metrics.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MetricsLine {
    /// Optimizer steps taken.
    pub step: u64,
    /// Mean training loss since the line before, in nats per token.
    pub loss: f64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Global norm of the last gradient, before clipping.
    pub grad_norm: f64,
    /// Tokens seen since the beginning.
    pub tokens: u64,
    /// Speed since the line before, without evaluations and checkpoints.
    pub tokens_per_second: f64,
    /// Time spent in steps since the beginning, in seconds.
    pub seconds: f64,
    /// Harmful steps that were left out since the beginning, if any.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: u64,
    /// Held-out bound, in nats per token, where one was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_bound: Option<f64>,
    /// Its standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_standard_error: Option<f64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The metrics of a run, in memory and in their files.
#[derive(Debug)]
pub(crate) struct Metrics {
    path: PathBuf,
    file: File,
    events: Events,
    lines: Vec<MetricsLine>,
}

impl Metrics {
    /// Opens the files of a run folder; lines after `step`, which a crash left behind, are dropped.
    /// `now` is in seconds since 1970.
    pub(crate) fn open(folder: &Path, step: u64, now: f64) -> Result<Self> {
        let path = &folder.join(FILE);
        let mut lines = read_lines(path)?;
        lines.retain(|line| line.step <= step);
        let events = Events::open(folder, step, &lines, now)?;
        replace(path, lines.iter().map(to_json).collect::<String>())?;
        let file = File::options()
            .append(true)
            .open(path)
            .map_err(io("opening", path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            events,
            lines,
        })
    }

    /// Adds a line, written at `time`, in seconds since 1970.
    pub(crate) fn push(&mut self, line: MetricsLine, time: f64) -> Result<()> {
        self.file
            .write_all(to_json(&line).as_bytes())
            .map_err(io("writing", &self.path))?;
        self.events.push(&line, time)?;
        self.lines.push(line);
        Ok(())
    }

    pub(crate) fn lines(&self) -> &[MetricsLine] {
        &self.lines
    }
}

/// The lines of the `metrics.jsonl` in the folder of a run; none if there is no such file.
///
/// # Errors
/// [`crate::Error::Io`] if it cannot be read.
pub fn read_metrics(run_dir: &Path) -> Result<Vec<MetricsLine>> {
    read_lines(&run_dir.join(FILE))
}

fn to_json(line: &MetricsLine) -> String {
    serde_json::to_string(line).expect("figures are finite") + "\n"
}

/// The lines of a file; those that a crash cut are left out.
fn read_lines(path: &Path) -> Result<Vec<MetricsLine>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(io("reading", path))?,
    };
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}
