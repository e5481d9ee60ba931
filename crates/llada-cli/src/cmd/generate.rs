//! `llada generate`.

use std::path::Path;

use anyhow::{Context as _, Result};
use llada::sample::{Request, Task as TokenTask};
use llada::text::{ChatTemplate, Message};
use llada::{Checkpoint, GenerateError, Llada, Overrides, Prompt, Task};

use super::observe::of_sampler;
use crate::args::GenerateArgs;
use crate::config::{Misuse, check_flags, load_checkpoint, overrides};

pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    let overrides = overrides(&args.sampler, args.gen_length)?;
    let (llada, checkpoint) = load_checkpoint(&args.model)?;
    let mut requests = Vec::new();
    for (place, prompt) in prompts(args, &checkpoint)? {
        let task = Task::generate(prompt).constrained(&args.constraints);
        requests.push(request(&llada, &task, &overrides, place)?);
    }
    for request in &requests {
        check(request, &llada)?;
    }
    check_flags(&args.sampler, args.gen_length)?;
    super::observe::run_all(&llada, &requests, &args.sampler, args.model.run.format)
}

/// The request of a task; `place` is where its text comes from, if not from the command line.
pub(super) fn request(
    llada: &Llada,
    task: &Task<'_>,
    overrides: &Overrides,
    place: Option<String>,
) -> Result<Request> {
    let request = llada.request(task, overrides);
    match place {
        Some(place) => request.map_err(inner).context(place),
        None => request.map_err(of_text),
    }
}

/// What the user wrote and can't be encoded is a wrong use of the command.
pub(super) fn of_text(error: GenerateError) -> anyhow::Error {
    match error {
        GenerateError::Text(error) => Misuse::from_error(error),
        error => inner(error),
    }
}

/// The error of the crate that it comes from.
pub(super) fn inner(error: GenerateError) -> anyhow::Error {
    match error {
        GenerateError::Text(error) => error.into(),
        GenerateError::Sample(error) => of_sampler(error),
        GenerateError::Diffusion(error) => error.into(),
        error => error.into(),
    }
}

fn prompts(
    args: &GenerateArgs,
    checkpoint: &Checkpoint,
) -> Result<Vec<(Option<String>, Prompt<'static>)>> {
    if let Some(ids) = &args.prompt_ids {
        return Ok(vec![(None, ids.clone().into())]);
    }
    let template = match args.chat {
        true => Some(chat_template(args, checkpoint)?),
        false => None,
    };
    let mut prompts = match &args.input {
        Some(path) => read_prompts(path)?,
        None => vec![(None, args.prompt.clone().unwrap_or_default().into())],
    };
    for (_, prompt) in &mut prompts {
        if let (Some(template), Prompt::Text(text)) = (&template, &mut *prompt) {
            *prompt = template.render(&[Message::user(&**text)], true)?.into();
        }
    }
    Ok(prompts)
}

fn chat_template(args: &GenerateArgs, checkpoint: &Checkpoint) -> Result<ChatTemplate> {
    if args.model.model.is_none() {
        return Err(Misuse::of(
            "--chat: the embedded poem model has no chat template; give a --model that has one",
        ));
    }
    Ok(checkpoint.template()?)
}

fn check(request: &Request, llada: &Llada) -> Result<()> {
    let (info, gen_length) = (llada.info(), request.config.gen_length);
    let (prompt, constraints) = match &request.task {
        TokenTask::Generate {
            prompt,
            constraints,
            ..
        } => (prompt, &constraints[..]),
        TokenTask::Infill { canvas, .. } => (canvas, &[][..]),
    };
    if prompt.is_empty() {
        return Err(Misuse::of(
            "the prompt is empty: give at least one character",
        ));
    }
    let (total, limit) = (prompt.len() + gen_length, info.max_sequence_length);
    if total > limit {
        return Err(Misuse::of(format!(
            "a prompt of {} tokens and {gen_length} to generate exceed the context of {limit}",
            prompt.len()
        )));
    }
    if let Some((offset, _)) = constraints.iter().find(|(offset, _)| *offset >= gen_length) {
        return Err(Misuse::of(format!(
            "--constraints: a token at offset {offset} is past the answer of {gen_length}"
        )));
    }
    check_ids(prompt, llada)
}

/// Ids are used as they are, if there are such tokens.
pub(super) fn check_ids(ids: &[u32], llada: &Llada) -> Result<()> {
    let limit = llada.info().vocab_size;
    match ids.iter().find(|&&id| id as usize >= limit) {
        Some(id) => Err(Misuse::of(format!(
            "token id {id}: the vocabulary ends at {}",
            limit - 1
        ))),
        None => Ok(()),
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: Option<String>,
    prompt_ids: Option<Vec<u32>>,
}

/// The prompts of a file of JSON lines, each with its place.
pub(super) fn read_prompts(path: &Path) -> Result<Vec<(Option<String>, Prompt<'static>)>> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut prompts = Vec::new();
    let lines = text.lines().enumerate();
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("{name}, line {}", number + 1);
        let line: Line = serde_json::from_str(line).with_context(|| place.clone())?;
        let prompt = match (line.prompt, line.prompt_ids) {
            (Some(text), None) => text.into(),
            (None, Some(ids)) => ids.into(),
            _ => anyhow::bail!("{place}: needs either prompt or prompt_ids"),
        };
        prompts.push((Some(place), prompt));
    }
    anyhow::ensure!(!prompts.is_empty(), "{name} holds no prompts");
    Ok(prompts)
}
