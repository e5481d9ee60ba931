//! `llada generate`.

use std::path::Path;

use anyhow::{Context as _, Result};
use llada::Llada;
use llada::diffusion::MaskPredictor as _;
use llada::sample::Request;
use llada::text::{ChatTemplate, Message};

use crate::args::GenerateArgs;
use crate::config::{Misuse, load_with_dir, sampler};

/// Length of an answer if none is asked for.
const GEN_LENGTH: usize = 64;

pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    let (llada, dir) = load_with_dir(&args.model)?;
    let mut requests = Vec::new();
    for prompt in prompts(args, &llada, dir.as_deref())? {
        let context = llada.model.info().max_sequence_length;
        let room = context.saturating_sub(prompt.len()).max(1);
        let gen_length = args.gen_length.unwrap_or(GEN_LENGTH.min(room));
        check(&prompt, gen_length, &llada)?;
        let config = sampler(&args.sampler, &llada, gen_length, false)?;
        requests.push(Request::generate(prompt, config));
    }
    super::observe::run_all(&llada, &requests, &args.sampler, args.model.format, false)
}

fn prompts(args: &GenerateArgs, llada: &Llada, dir: Option<&Path>) -> Result<Vec<Vec<u32>>> {
    if let Some(ids) = &args.prompt_ids {
        return Ok(vec![ids.clone()]);
    }
    let template = args.chat.then(|| chat_template(dir)).transpose()?;
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
    Ok(vec![ids.map_err(Misuse::from_error)?])
}

fn chat_template(dir: Option<&Path>) -> Result<ChatTemplate> {
    let Some(dir) = dir else {
        return Err(Misuse::of(
            "--chat: the embedded poem model has no chat template; give a --model that has one",
        ));
    };
    Ok(ChatTemplate::from_dir(dir)?)
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
) -> Result<Vec<Vec<u32>>> {
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
            } => encode(&text).with_context(place)?,
            Line {
                prompt: None,
                prompt_ids: Some(ids),
            } => ids,
            _ => anyhow::bail!("{}: needs either prompt or prompt_ids", place()),
        });
    }
    anyhow::ensure!(!prompts.is_empty(), "{name} holds no prompts");
    Ok(prompts)
}
