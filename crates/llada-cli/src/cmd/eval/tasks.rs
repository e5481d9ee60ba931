//! `llada eval likelihood` and `llada eval generation`.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context as _, Result};
use llada::diffusion::LikelihoodConfig;
use llada::eval::{
    Figure, GenerationConfig, choose, exact_matches, read_choices, read_generations,
};

use super::super::jobs::note_unknown;
use super::{Progress, figure_json, percent, read};
use crate::args::{Format, GenerationArgs, LikelihoodArgs};
use crate::config::load;
use crate::output::print;

pub(super) fn likelihood(args: &LikelihoodArgs) -> Result<()> {
    let text = read(&args.data)?;
    let llada = load(&args.model)?;
    let subject = llada.subject();
    let limit = args.limit.map(NonZeroUsize::get);
    let tasks = read_choices(&text, limit, &subject).with_context(|| name(&args.data))?;
    note_unknown(&subject.unknown(), "");
    let config = LikelihoodConfig {
        mc_samples: args.mc_samples.get(),
        seed: args.seed,
        ..LikelihoodConfig::default()
    };
    let progress = Progress::new()?;
    let observer = &mut progress.observe("tasks".into());
    let chosen = choose(&subject, &tasks, &config, observer)?;
    let of = |of: fn(&llada::eval::Chosen) -> bool| {
        Figure::accuracy(&chosen.iter().map(of).collect::<Vec<bool>>())
    };
    let (sum, per_token) = (of(|x| x.by_likelihood), of(|x| x.by_likelihood_per_token));
    match args.model.run.format {
        Format::Json => {
            let mut result = figure_json(sum);
            result["per_token"] = figure_json(per_token);
            progress.print(result)
        }
        Format::Text => print(&format!(
            "{} right by likelihood, {} by likelihood per token ({} tasks)\n",
            percent(sum),
            percent(per_token),
            chosen.len()
        )),
    }
}

pub(super) fn generation(args: &GenerationArgs) -> Result<()> {
    let text = read(&args.data)?;
    let llada = load(&args.model)?;
    let subject = llada.subject();
    let limit = args.limit.map(NonZeroUsize::get);
    let tasks = read_generations(&text, limit, &subject).with_context(|| name(&args.data))?;
    note_unknown(&subject.unknown(), "");
    let config = GenerationConfig {
        gen_length: args.gen_length.map(NonZeroUsize::get),
        steps: args.steps.map(NonZeroUsize::get),
    };
    let progress = Progress::new()?;
    let observer = &mut progress.observe("tasks".into());
    let right =
        exact_matches(&subject, &tasks, config, observer).with_context(|| name(&args.data))?;
    let figure = Figure::accuracy(&right);
    match args.model.run.format {
        Format::Json => progress.print(figure_json(figure)),
        Format::Text => print(&format!(
            "{} right ({} tasks)\n",
            percent(figure),
            right.len()
        )),
    }
}

fn name(path: &Path) -> String {
    path.display().to_string()
}
