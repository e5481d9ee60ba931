//! `llada generate`.

use std::path::Path;

use anyhow::Result;
use llada::sample::{Request, Task as TokenTask};
use llada::text::{ChatTemplate, Message};
use llada::train::Communicator;
use llada::{Checkpoint, Llada, Prompt, Task};

use super::jobs::Jobs;
use super::observe::Shown;
use super::prompts::{self, Given};
use super::ranks;
use crate::args::GenerateArgs;
use crate::config::{Misuse, load_checkpoint, overrides};

pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    ranks::of_all(args.model.run.threads, |communicator| {
        run_as(communicator, args)
    })
}

/// The part of one rank.
fn run_as(communicator: &dyn Communicator, args: &GenerateArgs) -> Result<()> {
    let overrides = overrides(&args.sampler, args.gen_length)?;
    check_template_flags(args)?;
    let given = match (&args.prompt_ids, &args.input) {
        (Some(ids), _) => vec![Given::of(Prompt::from(ids.clone()))],
        (None, Some(path)) => prompts::read(path)?,
        (None, None) => vec![prompts::of_argument(args.prompt.as_deref().unwrap_or(""))?],
    };
    let only_ids =
        given.iter().all(Given::is_ids) && args.constraints.is_empty() && args.stop.is_empty();
    let (llada, checkpoint) = load_checkpoint(&args.model, only_ids)?;
    let template = chat_template(args, &given, &checkpoint)?;
    let mut jobs = Jobs::new(&llada, &args.sampler, overrides);
    for given in given {
        let prompt = match (&template, given.prompt, given.messages) {
            (Some(template), _, Some(messages)) => render(args, template, messages)?,
            (Some(template), Some(Prompt::Text(text)), None) => {
                render(args, template, vec![Message::user(text)])?
            }
            (_, Some(prompt), _) => prompt,
            (..) => Vec::new().into(),
        };
        let task = Task::generate(prompt).constrained(&args.constraints);
        jobs.push(task, given.place.as_deref(), check)?;
    }
    let shown = Shown {
        stops: &args.stop,
        answer_only: template.is_some(),
        format: args.model.run.format,
    };
    jobs.run(communicator, &args.model, shown)
}

fn render(
    args: &GenerateArgs,
    template: &ChatTemplate,
    mut messages: Vec<Message>,
) -> Result<Prompt<'static>> {
    if let Some(system) = &args.system {
        messages.insert(0, Message::new("system", system.as_str()));
    }
    Ok(template.render(&messages, true)?.into())
}

/// The flags that ask for a template ask it of a model that can have one.
fn check_template_flags(args: &GenerateArgs) -> Result<()> {
    let flags = [
        ("--chat", args.chat),
        ("--chat-template", args.chat_template.is_some()),
        ("--system", args.system.is_some()),
    ];
    let is_file = args
        .chat_template
        .as_deref()
        .is_some_and(|name| Path::new(name).is_file());
    match flags.iter().find(|(_, is_set)| *is_set) {
        Some((flag, _)) if args.model.model.is_none() && !is_file => Err(Misuse::of(format!(
            "{flag}: the embedded poem model has no chat template; give a --model that has one"
        ))),
        _ => Ok(()),
    }
}

/// The template, if one is asked for or messages are given.
fn chat_template(
    args: &GenerateArgs,
    given: &[Given],
    checkpoint: &Checkpoint,
) -> Result<Option<ChatTemplate>> {
    let has_messages = given.iter().any(|given| given.messages.is_some());
    let is_asked = args.chat || args.chat_template.is_some() || args.system.is_some();
    if !is_asked && !has_messages {
        return Ok(None);
    }
    let template = match args.chat_template.as_deref() {
        None => checkpoint.template()?,
        Some(file) if Path::new(file).is_file() => checkpoint.template_file(Path::new(file))?,
        Some(name) => checkpoint.named_template(name)?,
    };
    Ok(Some(template))
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
