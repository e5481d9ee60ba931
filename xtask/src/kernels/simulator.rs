//! The counters of the software device, if a run of tests left any.
//!
//! With `PTXSIM_STATS=FILE` the software device appends a line of JSON for every launch. Lines of
//! one entry are added up.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Sums over the launches of one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Passes over shared memory, and how many there would be without bank conflicts.
    shared_wavefronts: u64,
    shared_wavefronts_ideal: u64,
    /// Sectors of 32 bytes that the requests to global memory touched.
    global_sectors: u64,
    global_requests: u64,
}

impl Counters {
    /// 1 if no access to shared memory meets a bank conflict.
    pub(super) fn conflict_ratio(&self) -> Option<f64> {
        ratio(self.shared_wavefronts, self.shared_wavefronts_ideal)
    }

    pub(super) fn sectors_per_request(&self) -> Option<f64> {
        ratio(self.global_sectors, self.global_requests)
    }
}

fn ratio(of: u64, to: u64) -> Option<f64> {
    (to > 0).then(|| of as f64 / to as f64)
}

pub(super) fn read(path: &Path) -> Result<BTreeMap<String, Counters>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text).with_context(|| format!("reading {}", path.display()))
}

fn parse(text: &str) -> Result<BTreeMap<String, Counters>> {
    let mut found: BTreeMap<String, Counters> = BTreeMap::new();
    // Tests write at the same time, so that a line may hold two launches.
    for launch in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        let launch = launch?;
        let kernel = launch.get("kernel").and_then(Value::as_str);
        let sums = found
            .entry(kernel.context("a launch without \"kernel\"")?.to_owned())
            .or_default();
        let count = |key: &str| launch.get(key).and_then(Value::as_u64).unwrap_or(0);
        sums.shared_wavefronts += count("shared_wavefronts");
        sums.shared_wavefronts_ideal += count("shared_wavefronts_ideal");
        sums.global_sectors += count("global_sectors");
        sums.global_requests += count("global_requests");
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
