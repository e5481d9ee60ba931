//! `llada generate`.

use std::path::Path;

use anyhow::{Context as _, Result};
use llada::diffusion::MaskPredictor as _;
use llada::sample::{Process, Request, Task};
use llada::text::{ChatTemplate, Message};
use llada::{Checkpoint, Llada};

use crate::args::GenerateArgs;
use crate::config::{
    Misuse, is_autoregressive, is_character_model, load_checkpoint, needs_diffusion, sampler,
};

/// Length of an answer if none is asked for.
const GEN_LENGTH: usize = 64;
/// The same for the poem model, in prompts: the first line of a quatrain has three more.
const LINES_OF_A_POEM: usize = 3;

pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    let (llada, checkpoint) = load_checkpoint(&args.model)?;
    let info = llada.model.info();
    let constraints = constraints(args, &llada)?;
    let is_autoregressive = is_autoregressive(&llada);
    if is_autoregressive && !constraints.is_empty() {
        return Err(needs_diffusion("--constraints"));
    }
    let mut requests = Vec::new();
    for Prompt { ids, is_text } in prompts(args, &llada, &checkpoint)? {
        let usual = match args.model.model {
            Some(_) => GEN_LENGTH,
            None => LINES_OF_A_POEM * ids.len(),
        };
        let room = info.max_sequence_length.saturating_sub(ids.len());
        let gen_length = args.gen_length.unwrap_or(usual.min(room).max(1));
        check(&ids, gen_length, &llada)?;
        if let Some((offset, _)) = constraints.iter().find(|(offset, _)| *offset >= gen_length) {
            return Err(Misuse::of(format!(
                "--constraints: a token at offset {offset} is past the answer of {gen_length}"
            )));
        }
        let mut config = sampler(&args.sampler, &llada, gen_length, false)?;
        if !constraints.is_empty() && config.process == Process::Quota {
            config.process = Process::BlockQuota;
        }
        let is_end_seen = is_text && gen_length < room && !is_autoregressive;
        let suffix = Vec::from_iter(end_of_text(&llada, is_end_seen));
        requests.push(Request {
            task: Task::Generate {
                prompt: ids,
                suffix,
                constraints: constraints.clone(),
            },
            ..Request::generate(Vec::new(), config)
        });
    }
    super::observe::run_all(&llada, &requests, &args.sampler, args.model.run.format)
}

/// The fixed tokens of the answer. A word is encoded as after a space, as in the reference's demo;
/// a character vocabulary has no words.
fn constraints(args: &GenerateArgs, llada: &Llada) -> Result<Vec<(usize, u32)>> {
    let space = if is_character_model(llada) { "" } else { " " };
    let mut constraints = Vec::new();
    for (offset, word) in &args.constraints {
        let ids = llada.tokenizer.encode_strict(&format!("{space}{word}"));
        constraints.extend((*offset..).zip(ids.map_err(Misuse::from_error)?));
    }
    Ok(constraints)
}

/// What is to be completed or filled in.
pub(super) struct Prompt {
    pub(super) ids: Vec<u32>,
    /// Whether it came as text; ids are used as they are.
    pub(super) is_text: bool,
}

/// The EOS that ends the canvas of a character model, which learned from whole documents that
/// their last token is one.
pub(super) fn end_of_text(llada: &Llada, has_room: bool) -> Option<u32> {
    (has_room && is_character_model(llada)).then(|| llada.model.info().eos_token_id)
}

fn prompts(args: &GenerateArgs, llada: &Llada, checkpoint: &Checkpoint) -> Result<Vec<Prompt>> {
    if let Some(ids) = &args.prompt_ids {
        return Ok(vec![Prompt {
            ids: ids.clone(),
            is_text: false,
        }]);
    }
    let template = args
        .chat
        .then(|| chat_template(args, checkpoint))
        .transpose()?;
    let encode = |text: &str| match &template {
        Some(template) => {
            let text = template.render(&[Message::user(text)], true)?;
            llada.tokenizer.encode_strict(&text)
        }
        None => llada.tokenizer.encode_strict(text),
    };
    if let Some(path) = &args.input {
        return read_prompts(path, &encode);
    }
    let ids = encode(args.prompt.as_deref().unwrap_or_default());
    Ok(vec![Prompt {
        ids: ids.map_err(Misuse::from_error)?,
        is_text: true,
    }])
}

fn chat_template(args: &GenerateArgs, checkpoint: &Checkpoint) -> Result<ChatTemplate> {
    if args.model.model.is_none() {
        return Err(Misuse::of(
            "--chat: the embedded poem model has no chat template; give a --model that has one",
        ));
    }
    Ok(checkpoint.template()?)
}

fn check(prompt: &[u32], gen_length: usize, llada: &Llada) -> Result<()> {
    let info = llada.model.info();
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
    if let Some(id) = prompt.iter().find(|&&id| id as usize >= info.vocab_size) {
        let limit = info.vocab_size;
        return Err(Misuse::of(format!(
            "token id {id}: the vocabulary ends at {}",
            limit - 1
        )));
    }
    Ok(())
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: Option<String>,
    prompt_ids: Option<Vec<u32>>,
}

/// The sequences of a file of JSON lines.
pub(super) fn read_prompts(
    path: &Path,
    encode: &dyn Fn(&str) -> llada::text::Result<Vec<u32>>,
) -> Result<Vec<Prompt>> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
    let mut prompts = Vec::new();
    for (number, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let place = || format!("{name}, line {}", number + 1);
        let line: Line = serde_json::from_str(line).with_context(place)?;
        prompts.push(match line {
            Line {
                prompt: Some(text),
                prompt_ids: None,
            } => Prompt {
                ids: encode(&text).with_context(place)?,
                is_text: true,
            },
            Line {
                prompt: None,
                prompt_ids: Some(ids),
            } => Prompt {
                ids,
                is_text: false,
            },
            _ => anyhow::bail!("{}: needs either prompt or prompt_ids", place()),
        });
    }
    anyhow::ensure!(!prompts.is_empty(), "{name} holds no prompts");
    Ok(prompts)
}
