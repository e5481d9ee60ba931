//! `llada eval scaling`.

use std::path::Path;

use anyhow::{Context as _, Result};
use llada::eval::{BoundConfig, ScalingPoint, held_out_bound, read_documents, scaling_svg};
use llada::train::read_metrics;
use serde_json::{Value, json};

use super::{Progress, read};
use crate::args::{Format, ModelArgs, OpenArgs, ScalingArgs};
use crate::config::load;
use crate::output::{print, save};

pub(super) fn run(args: &ScalingArgs) -> Result<()> {
    let text = read(&args.data)?;
    // What is missing in a folder is said before hours of work.
    let tokens = args.runs.iter().map(|run| seen(run));
    let tokens: Vec<u64> = tokens.collect::<Result<_>>()?;
    let progress = Progress::new()?;
    let mut points = Vec::new();
    for (run, &n_tokens) in args.runs.iter().zip(&tokens) {
        points.extend(point(run, n_tokens, &text, args, &progress)?);
        if progress.is_stopped() {
            break;
        }
    }
    anyhow::ensure!(
        !points.is_empty(),
        "interrupted before the first documents were scored"
    );
    points.sort_by(|a, b| a.kind.cmp(&b.kind).then(a.flops().total_cmp(&b.flops())));
    let result = json!({
        "runs": points.iter().map(as_json).collect::<Vec<_>>(),
        "mc_samples": args.mc_samples,
        "interrupted": progress.is_stopped(),
        "seconds": progress.seconds(),
    });
    if let Some(folder) = &args.output {
        save(folder, "scaling.json", &format!("{result:#}\n"))?;
        save(folder, "scaling.svg", &scaling_svg(&points)?)?;
    }
    match args.run.format {
        Format::Json => print(&format!("{result}\n")),
        Format::Text => print(&table(&points)),
    }
}

/// Tokens that a run was trained on.
fn seen(run: &Path) -> Result<u64> {
    let name = run.display();
    let lines = read_metrics(run)?;
    let last = lines.last().with_context(|| {
        format!("{name} has no metrics.jsonl: give the folder of a run of `llada train`")
    })?;
    anyhow::ensure!(
        run.join("model.safetensors").is_file(),
        "{name} has no model.safetensors: the run is not finished"
    );
    Ok(last.tokens)
}

fn point(
    run: &Path,
    n_tokens: u64,
    text: &str,
    args: &ScalingArgs,
    progress: &Progress,
) -> Result<Option<ScalingPoint>> {
    let llada = load(&ModelArgs {
        model: Some(run.to_owned()),
        adapter: Vec::new(),
        open: OpenArgs::default(),
        dtype: args.dtype,
        run: args.run.clone(),
    })?;
    let subject = llada.subject();
    let documents = read_documents(text, args.limit.map(Into::into), &subject)
        .with_context(|| args.data.display().to_string())?;
    let name = run.file_name().unwrap_or(run.as_os_str());
    let name = name.to_string_lossy().into_owned();
    let config = BoundConfig {
        mc_samples: args.mc_samples.get(),
        seed: args.seed,
    };
    let observer = &mut progress.observe(format!("documents by {name}"));
    let bound = held_out_bound(&subject, &documents, config, observer)?;
    Ok(bound.map(|bound| ScalingPoint {
        name,
        kind: subject.kind(),
        non_embedding_parameters: llada.model.config().non_embedding_parameters(),
        n_tokens,
        bound,
    }))
}

fn as_json(point: &ScalingPoint) -> Value {
    json!({
        "name": point.name,
        "objective": point.kind.name(),
        "non_embedding_parameters": point.non_embedding_parameters,
        "tokens": point.n_tokens,
        "flops": point.flops(),
        "bound": point.bound.nats_per_token,
        "standard_error": point.bound.standard_error,
        "n": point.bound.n_sequences,
    })
}

fn table(points: &[ScalingPoint]) -> String {
    let mut text = format!(
        "{:20}{:16}{:>12}{:>12}{:>10}  {}\n",
        "run", "objective", "parameters", "tokens", "6 N D", "held-out nats per token"
    );
    for point in points {
        text += &format!(
            "{:20}{:16}{:>12}{:>12}{:>10.1e}  {:.4} ± {:.4} ({} documents)\n",
            point.name,
            point.kind.name(),
            point.non_embedding_parameters,
            point.n_tokens,
            point.flops(),
            point.bound.nats_per_token,
            point.bound.standard_error,
            point.bound.n_sequences
        );
    }
    text
}
