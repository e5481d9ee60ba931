//! `llada eval likelihood` and `llada eval generation`.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context as _, Result};
use llada::diffusion::LikelihoodConfig;
use llada::eval::{
    Chosen, Figure, GenerationConfig, Generations, Subject, Written, choose, read_choices,
    read_generations,
};
use llada::sample::{Overrides, Process};
use llada::train::Communicator;
use serde_json::{Value, json};

use super::super::jobs::note_unknown;
use super::super::result_file::key;
use super::super::work::{Done, Work};
use super::{Progress, figure_json, percent, read};
use crate::args::{Format, GenerationArgs, LikelihoodArgs};
use crate::config::{Misuse, end_think, load, of_families};
use crate::output::print;

/// Answers that a rank writes together.
const BATCH: usize = 32;
/// The same where they are kept while they come: what a process that is killed loses.
const KEPT_BATCH: usize = 8;

pub(super) fn likelihood(communicator: &dyn Communicator, args: &LikelihoodArgs) -> Result<()> {
    let text = read(&args.data)?;
    let llada = load(&args.model)?;
    let subject = llada.subject();
    let limit = args.limit.map(NonZeroUsize::get);
    let tasks = read_choices(&text, limit, !args.no_eos, &subject);
    let tasks = tasks.with_context(|| name(&args.data))?;
    tell_unknown(communicator, &subject);
    let config = LikelihoodConfig {
        mc_samples: args.mc_samples.get(),
        seed: args.seed,
        estimator: args.estimator.into(),
        cfg_scale: args.cfg_scale,
        ..LikelihoodConfig::default()
    };
    let model = args.model.identity();
    let key = |task| key(&format!("likelihood {model} {config:?} {task:?}"));
    let progress = Progress::of_rank(communicator.rank())?;
    let work = Work {
        communicator,
        progress: &progress,
        what: "tasks",
        output: args.output.as_deref(),
        keys: tasks.iter().map(key).collect(),
        round: 1,
    };
    let choose = |&at: &usize| Ok(chosen_json(&choose(&subject, &tasks[at], &config)?));
    let Some(Done { results, .. }) = work.run(|places| places.iter().map(choose).collect())? else {
        return Ok(());
    };
    let of = |by: &str| {
        let is_right = |result: &Value| result[by] == result["answer"];
        Figure::accuracy(&results.iter().map(is_right).collect::<Vec<bool>>())
    };
    let (sum, per_token) = (of("by_likelihood"), of("by_likelihood_per_token"));
    let per_character = of("by_likelihood_per_character");
    match args.model.run.format {
        Format::Json => {
            let mut result = figure_json(sum);
            result["per_token"] = figure_json(per_token);
            result["per_character"] = figure_json(per_character);
            progress.print(result)
        }
        Format::Text => print(&format!(
            "{} right by likelihood, {} by likelihood per token, {} per character ({} tasks)\n",
            percent(sum),
            percent(per_token),
            percent(per_character),
            results.len()
        )),
    }
}

fn chosen_json(chosen: &Chosen) -> Value {
    let estimates = &chosen.estimates;
    // A single draw has no spread: null.
    let standard_errors: Vec<Option<f64>> = (estimates.iter())
        .map(|x| x.standard_error.is_finite().then_some(x.standard_error))
        .collect();
    json!({
        "answer": chosen.answer,
        "by_likelihood": chosen.by_likelihood,
        "by_likelihood_per_token": chosen.by_likelihood_per_token,
        "by_likelihood_per_character": chosen.by_likelihood_per_character,
        "log_likelihoods": estimates.iter().map(|x| x.log_likelihood).collect::<Vec<_>>(),
        "standard_errors": standard_errors,
        "tokens": estimates.iter().map(|x| x.n_tokens).collect::<Vec<_>>(),
    })
}

pub(super) fn generation(communicator: &dyn Communicator, args: &GenerationArgs) -> Result<()> {
    let text = read(&args.data)?;
    let mut overrides = Overrides {
        gen_length: args.gen_length.map(NonZeroUsize::get),
        steps: args.steps.map(NonZeroUsize::get),
        block_length: args.block_length.map(NonZeroUsize::get),
        cfg_scale: args.cfg_scale,
        remasking: args.remasking.parse().map_err(Misuse::from_error)?,
        logits_eos_inf: args.logits_eos_inf,
        confidence_eos_eot_inf: args.confidence_eos_eot_inf,
        temperature: args.temperature,
        top_p: args.top_p,
        process: args.threshold.map(Process::Threshold),
        early_stop: args.early_stop,
        seed: args.seed,
        ..of_families(&args.protocol)?
    };
    let llada = load(&args.model)?;
    overrides.end_think = end_think(&args.protocol, &llada.tokenizer)?;
    let subject = llada.subject();
    let limit = args.limit.map(NonZeroUsize::get);
    let tasks = read_generations(&text, limit, &subject).with_context(|| name(&args.data))?;
    tell_unknown(communicator, &subject);
    let stops = args.stop.clone();
    let config = GenerationConfig { overrides, stops };
    let generations = Generations::new(&subject, tasks, &config);
    let generations = generations.with_context(|| name(&args.data))?;
    let model = args.model.identity();
    let key = |(task, request)| {
        let stops = &args.stop;
        key(&format!(
            "generation {model} {stops:?} {task:?} {request:?}"
        ))
    };
    let progress = Progress::of_rank(communicator.rank())?;
    let work = Work {
        communicator,
        progress: &progress,
        what: "tasks",
        output: args.output.as_deref(),
        keys: generations.iter().map(key).collect(),
        round: if args.output.is_some() {
            KEPT_BATCH
        } else {
            BATCH
        },
    };
    let written = |written: &Written| json!({"text": written.text, "is_right": written.is_right});
    let done = work.run(|places| {
        let answers = generations.write(&subject, places);
        let answers = answers.with_context(|| name(&args.data))?;
        Ok(answers.iter().map(written).collect())
    })?;
    let Some(Done { results, .. }) = done else {
        return Ok(());
    };
    let is_right = |result: &Value| result["is_right"] == true;
    let figure = Figure::accuracy(&results.iter().map(is_right).collect::<Vec<bool>>());
    match args.model.run.format {
        Format::Json => progress.print(figure_json(figure)),
        Format::Text => print(&format!(
            "{} right ({} tasks)\n",
            percent(figure),
            results.len()
        )),
    }
}

/// What the data have and the vocabulary lacks is told once.
fn tell_unknown(communicator: &dyn Communicator, subject: &Subject<'_>) {
    if communicator.rank() == 0 {
        note_unknown(&subject.unknown(), "");
    }
}

fn name(path: &Path) -> String {
    path.display().to_string()
}
