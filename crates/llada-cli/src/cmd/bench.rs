//! `llada bench`: how fast a model or a shape runs on this machine, beside what the machine can do.

mod forward;
mod generate;
mod measure;
mod subject;
mod train;

use anyhow::Result;
use serde_json::{Value, json};

use crate::args::{BenchArgs, BenchCommand, Format};
use crate::output::print;

use super::memory;
use measure::Timing;
use subject::Subject;

pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    match &args.command {
        BenchCommand::Forward(args) => forward::run(args),
        BenchCommand::Generate(args) => generate::run(args),
        BenchCommand::Train(args) => train::run(args),
    }
}

/// What a benchmark found.
struct Outcome<'a> {
    subject: &'a Subject,
    /// What was run: fields of the result.
    settings: Value,
    timing: Timing,
    /// Tokens that count in a pass.
    tokens: usize,
    /// FLOPs of a pass.
    flops: u64,
    weights_bytes: usize,
}

impl Outcome<'_> {
    fn print(&self, format: Format) -> Result<()> {
        #[expect(clippy::cast_precision_loss, reason = "rates")]
        let per_second = |n: u64| n as f64 / self.timing.seconds;
        let (gops, peak_gops) = (per_second(self.flops) / 1e9, self.timing.peak_gops);
        let mut result = self.subject.describe();
        let of_device = self.subject.device.backend().peak_bytes();
        let peak_memory_bytes = of_device.or_else(memory::peak_bytes);
        let results = json!({
            "tokens_per_second": per_second(self.tokens as u64),
            "gops": gops,
            "peak_gops": peak_gops,
            "percent_of_peak": 100.0 * gops / peak_gops,
            "seconds": self.timing.seconds,
            "seconds_min": self.timing.seconds_min,
            "rounds": self.timing.rounds,
            "weights_bytes": self.weights_bytes,
            "peak_memory_bytes": peak_memory_bytes,
        });
        for fields in [self.settings.clone(), results] {
            if let (Value::Object(result), Value::Object(fields)) = (&mut result, fields) {
                result.extend(fields);
            }
        }
        match format {
            Format::Json => print(&format!("{result}\n")),
            Format::Text => print(&text(&result)),
        }
    }
}

/// A line for each field.
fn text(result: &Value) -> String {
    let line = |(field, value): (&String, &Value)| match value {
        Value::String(text) => format!("{field:20} {text}\n"),
        Value::Number(number) if number.is_f64() => {
            format!("{field:20} {:.4}\n", number.as_f64().unwrap_or_default())
        }
        _ => format!("{field:20} {value}\n"),
    };
    result.as_object().into_iter().flatten().map(line).collect()
}
