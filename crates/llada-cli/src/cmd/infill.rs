//! `llada infill`.

use anyhow::Result;
use llada::sample::Request;
use llada::train::Communicator;
use llada::{Llada, Prompt, Task};

use super::jobs::Jobs;
use super::observe::Shown;
use super::prompts::{self, Given};
use super::ranks;
use crate::args::InfillArgs;
use crate::config::{Embedded, Misuse, end_think, load_checkpoint, overrides};

pub(crate) fn run(args: &InfillArgs) -> Result<()> {
    ranks::of_all(args.model.run.threads, |communicator| {
        run_as(communicator, args)
    })
}

/// The part of one rank.
fn run_as(communicator: &dyn Communicator, args: &InfillArgs) -> Result<()> {
    let mut overrides = overrides(&args.sampler, None)?;
    if args.mask.as_deref() == Some("") {
        return Err(Misuse::of("--mask: give at least one character"));
    }
    let given = match &args.input {
        Some(path) => prompts::read(path)?,
        None => {
            let texts = args.text.iter().map(|text| prompts::of_argument(text));
            texts.collect::<Result<Vec<_>>>()?
        }
    };
    let only_ids = given.iter().all(Given::is_ids);
    let (llada, _) = load_checkpoint(&args.model, Embedded::Poems, only_ids)?;
    overrides.end_think = end_think(&args.sampler.protocol, &llada.tokenizer)?;
    let mut jobs = Jobs::new(&llada, &args.sampler, overrides);
    for Given { place, prompt, .. } in given {
        let Some(prompt) = prompt else {
            let place = place.unwrap_or_default();
            anyhow::bail!("{place}: messages have no holes; give a prompt with □");
        };
        let check = |request: &Request, llada: &Llada| check(request, llada, &prompt);
        let task = Task::infill(prompt.clone()).marked(args.mask.as_deref());
        jobs.push(task, place.as_deref(), check)?;
    }
    let shown = Shown {
        stops: &[],
        answer_only: false,
        format: args.model.run.format,
    };
    jobs.run(communicator, &args.model, shown)
}

fn check(request: &Request, llada: &Llada, prompt: &Prompt<'_>) -> Result<()> {
    if request.config.gen_length == 0 {
        return Err(Misuse::of(
            "the text has no mask: mark holes with □ or _, or name the mark by --mask",
        ));
    }
    let (length, limit) = (request.length(), llada.info().max_sequence_length);
    if length > limit {
        return Err(Misuse::of(format!(
            "a text of {length} tokens exceeds the context of {limit}"
        )));
    }
    match prompt {
        Prompt::Ids(ids) => super::generate::check_ids(ids, llada),
        Prompt::Text(_) => Ok(()),
    }
}
