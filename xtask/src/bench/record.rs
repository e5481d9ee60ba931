//! What criterion measured, as a table and as CSV.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Where and when a record was made.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) date: String,
    pub(super) commit: String,
    pub(super) cpu: String,
}

/// The result of one benchmark.
#[derive(Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) name: String,
    /// Nanoseconds of one run, and the bounds of the confidence interval.
    pub(super) ns: f64,
    pub(super) ns_low: f64,
    pub(super) ns_high: f64,
    /// Floating-point operations of one run: what the benchmarks count as elements.
    pub(super) flop: Option<u64>,
    /// Bytes read and written by one run.
    pub(super) bytes: Option<u64>,
}

impl Outcome {
    /// From criterion's `benchmark.json` and `estimates.json`.
    pub(super) fn parse(benchmark: &Value, estimates: &Value) -> Result<Self> {
        let name = benchmark
            .get("full_id")
            .and_then(Value::as_str)
            .context("no full_id")?;
        // Linear sampling gives a slope, which is the better estimate; flat sampling only a mean.
        let estimate = ["slope", "mean"]
            .iter()
            .find_map(|name| estimates.get(name).filter(|estimate| estimate.is_object()));
        let estimate = estimate.context("no estimate")?;
        let number = |pointer: &str| {
            estimate
                .pointer(pointer)
                .and_then(Value::as_f64)
                .with_context(|| format!("no {pointer}"))
        };
        let throughput = |pointer: &str| {
            benchmark
                .pointer(&format!("/throughput{pointer}"))
                .and_then(Value::as_u64)
        };
        Ok(Self {
            name: name.to_owned(),
            ns: number("/point_estimate")?,
            ns_low: number("/confidence_interval/lower_bound")?,
            ns_high: number("/confidence_interval/upper_bound")?,
            flop: throughput("/Elements").or_else(|| throughput("/ElementsAndBytes/elements")),
            bytes: throughput("/Bytes").or_else(|| throughput("/ElementsAndBytes/bytes")),
        })
    }

    /// Operations in a nanosecond are Gop in a second.
    fn gops(&self) -> Option<f64> {
        self.flop.map(|flop| flop as f64 / self.ns)
    }

    fn gigabytes_per_second(&self) -> Option<f64> {
        self.bytes.map(|bytes| bytes as f64 / self.ns)
    }
}

/// What the machine can do at most, by the benchmarks `limit/*` of the same run.
struct Limits<'a>(Vec<&'a Outcome>);

impl<'a> Limits<'a> {
    fn of(outcomes: &'a [Outcome]) -> Self {
        let is_limit = |outcome: &&Outcome| outcome.name.starts_with("limit/");
        Self(outcomes.iter().filter(is_limit).collect())
    }

    /// Share of the nearer limit: the GEMM peak of the data type that the name holds, or reading
    /// memory. What stays in caches can exceed the latter.
    fn share(&self, outcome: &Outcome) -> Option<f64> {
        let limit = |kind: &str| self.0.iter().find(|limit| limit.name.starts_with(kind));
        let dtype = outcome
            .name
            .split('/')
            .find(|part| ["f32", "bf16", "int8", "int4"].contains(part));
        let peak = dtype.and_then(|dtype| limit(&format!("limit/gemm/{dtype}/"))?.gops());
        let read = limit("limit/read/").and_then(|limit| limit.gigabytes_per_second());
        let ratio = |rate: Option<f64>, limit: Option<f64>| Some(rate? / limit?);
        let compute = ratio(outcome.gops(), peak);
        let memory = ratio(outcome.gigabytes_per_second(), read);
        [compute, memory].into_iter().flatten().reduce(f64::max)
    }
}

pub(super) fn table(outcomes: &[Outcome]) -> String {
    let width = outcomes
        .iter()
        .map(|outcome| outcome.name.chars().count())
        .max()
        .unwrap_or(0);
    let limits = Limits::of(outcomes);
    let mut text = format!(
        "{:width$}  {:>12}  {:>9}  {:>9}  {:>10}\n",
        "name", "time", "Gop/s", "GB/s", "% of limit"
    );
    for outcome in outcomes {
        let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |r| format!("{r:.1}"));
        let (gops, gigabytes) = (rate(outcome.gops()), rate(outcome.gigabytes_per_second()));
        let share = rate(limits.share(outcome).map(|share| 100.0 * share));
        let (name, time) = (&outcome.name, duration(outcome.ns));
        let _ = writeln!(
            text,
            "{name:width$}  {time:>12}  {gops:>9}  {gigabytes:>9}  {share:>10}"
        );
    }
    text
}

pub(super) fn csv(origin: &Origin, outcomes: &[Outcome]) -> String {
    let mut text = "date,commit,cpu,name,ns,ns_low,ns_high,flop,bytes,gops,gigabytes_per_second,\
         share_of_limit\n"
        .to_owned();
    let limits = Limits::of(outcomes);
    for outcome in outcomes {
        let count = |count: Option<u64>| count.map_or_else(String::new, |count| count.to_string());
        let rate = |rate: Option<f64>| rate.map_or_else(String::new, |rate| format!("{rate:.3}"));
        let fields = [
            origin.date.clone(),
            origin.commit.clone(),
            origin.cpu.clone(),
            outcome.name.clone(),
            format!("{:.1}", outcome.ns),
            format!("{:.1}", outcome.ns_low),
            format!("{:.1}", outcome.ns_high),
            count(outcome.flop),
            count(outcome.bytes),
            rate(outcome.gops()),
            rate(outcome.gigabytes_per_second()),
            rate(limits.share(outcome)),
        ];
        text.push_str(&fields.map(|field| quoted(&field)).join(","));
        text.push('\n');
    }
    text
}

/// A field as RFC 4180 wants it.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

fn duration(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.1} ns"),
        ns if ns < 1e6 => format!("{:.2} us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests;
