//! `llada generate`.

use anyhow::Result;
use llada::sample::{Request, Task as TokenTask};
use llada::text::{ChatTemplate, Message};
use llada::train::Communicator;
use llada::{Llada, Prompt, Task};

use super::jobs::Jobs;
use super::observe::Shown;
use super::prompts::{self, Given, chat_template, reads_last_alone};
use super::ranks;
use crate::args::GenerateArgs;
use crate::config::{Embedded, Misuse, end_think, load_checkpoint, overrides};
use crate::output::note;

pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    ranks::of_all(args.model.run.threads, |communicator| {
        run_as(communicator, args)
    })
}

/// The part of one rank.
fn run_as(communicator: &dyn Communicator, args: &GenerateArgs) -> Result<()> {
    let mut overrides = overrides(&args.sampler, args.gen_length)?;
    let given = match (&args.prompt_ids, &args.input) {
        (Some(ids), _) => vec![Given::of(Prompt::from(ids.clone()))],
        (None, Some(path)) => prompts::read(path)?,
        (None, None) => vec![prompts::of_argument(args.prompt.as_deref().unwrap_or(""))?],
    };
    let only_ids =
        given.iter().all(Given::is_ids) && args.constraints.is_empty() && args.stop.is_empty();
    let has_messages = given.iter().any(|given| given.messages.is_some());
    let is_chat =
        args.chat || args.chat_template.is_some() || args.system.is_some() || has_messages;
    let embedded = match is_chat {
        true => Embedded::Instruct,
        false => Embedded::Poems,
    };
    let (llada, checkpoint) = load_checkpoint(&args.model, embedded, only_ids)?;
    overrides.end_think = end_think(&args.sampler.protocol, &llada.tokenizer)?;
    let template = match is_chat {
        true => Some(chat_template(args.chat_template.as_deref(), &checkpoint)?),
        false => None,
    };
    let mut unread = 0;
    let mut jobs = Jobs::new(&llada, &args.sampler, overrides);
    for given in given {
        let prompt = match (&template, given.prompt, given.messages) {
            (Some(template), _, Some(messages)) => render(args, template, messages, &mut unread)?,
            (Some(template), Some(Prompt::Text(text)), None) => {
                render(args, template, vec![Message::user(text)], &mut unread)?
            }
            (_, Some(prompt), _) => prompt,
            (..) => Vec::new().into(),
        };
        let task = Task::generate(prompt).constrained(&args.constraints);
        jobs.push(task, given.place.as_deref(), check)?;
    }
    if unread > 0 {
        note(&format!(
            "warning: the chat template of this model writes the last message alone: what the \
             system says and earlier messages are not read ({unread} of the prompts)"
        ));
    }
    let shown = Shown {
        stops: &args.stop,
        answer_only: template.is_some(),
        format: args.model.run.format,
    };
    jobs.run(communicator, &args.model, shown)
}

/// A conversation as its template writes it; counted, if that is its last message alone.
fn render(
    args: &GenerateArgs,
    template: &ChatTemplate,
    mut messages: Vec<Message>,
    unread: &mut usize,
) -> Result<Prompt<'static>> {
    if let Some(system) = &args.system {
        messages.insert(0, Message::new("system", system.as_str()));
    }
    *unread += usize::from(reads_last_alone(template, &messages)?);
    Ok(template.render(&messages, true)?.into())
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
