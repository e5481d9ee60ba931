//! `--dry-run`: the plan of a run, and how long its steps take.

use std::time::Instant;

use anyhow::Result;
use llada::diffusion::Trainable;
use llada::train::{BatchSampler, Optimizer, train_step};
use serde_json::json;

use super::plan::{Plan, grouped};
use super::progress::duration;
use crate::args::Format;
use crate::cmd::memory;
use crate::output::print;

/// A first step that takes longer, in seconds, is the only one.
const PATIENCE: f64 = 20.0;

/// Takes a step or two, of which nothing is kept, and prints what the run will take. `resumes` says
/// that it goes on from a checkpoint.
pub(super) fn rehearse(
    plan: &Plan<'_>,
    model: &mut dyn Trainable,
    resumes: bool,
    format: Format,
) -> Result<()> {
    let mut batches = BatchSampler::new(&plan.data.train, plan.config)?;
    let mut optimizer = Optimizer::new(model.parameters())?;
    let mut seconds = f64::INFINITY;
    // The first one asks for memory that later ones use again.
    for step in 0..plan.config.train.steps.min(2) {
        let start = Instant::now();
        let batch = batches.next_batch(step)?;
        train_step(model, &mut optimizer, &batch, plan.config, step)?;
        seconds = seconds.min(start.elapsed().as_secs_f64());
        if seconds > PATIENCE {
            break;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a time for people")]
    let all = seconds * plan.config.train.steps as f64;
    if format == Format::Json {
        let mut result = plan.json();
        result["dry_run"] = json!(true);
        result["resumes"] = json!(resumes);
        result["seconds_per_step"] = json!(seconds);
        result["seconds"] = json!(all);
        result["peak_memory_bytes"] = json!(memory::peak_bytes());
        return print(&format!("{result}\n"));
    }
    let mut lines = plan.lines();
    if let Some(peak) = memory::peak_bytes() {
        lines.push(format!(
            "memory: {} held in a step or two",
            memory::gigabytes(peak)
        ));
    }
    let rate = grouped((plan.step_tokens() / seconds) as usize);
    lines.push(format!(
        "a step takes {seconds:.3} s ({rate} tokens/s), all of them {} without evaluations and \
         checkpoints",
        duration(all)
    ));
    lines.push(match resumes {
        true => "nothing was written; the run would go on from its checkpoint".to_owned(),
        false => "nothing was written".to_owned(),
    });
    print(&(lines.join("\n") + "\n"))
}
