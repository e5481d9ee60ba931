//! Prompts and texts that are given to a command.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use llada::text::{ChatTemplate, Message};
use llada::{Checkpoint, Prompt};

/// What is given for one answer.
#[derive(Debug)]
pub(super) struct Given {
    /// File and line that it comes from, if not from the command line.
    pub(super) place: Option<String>,
    pub(super) prompt: Option<Prompt<'static>>,
    /// A conversation, in place of a prompt.
    pub(super) messages: Option<Vec<Message>>,
}

impl Given {
    pub(super) fn of(prompt: Prompt<'static>) -> Self {
        Self {
            place: None,
            prompt: Some(prompt),
            messages: None,
        }
    }

    pub(super) fn is_ids(&self) -> bool {
        matches!(self.prompt, Some(Prompt::Ids(_)))
    }
}

/// A text of the command line, or what is on standard input for `-`, without the line end there.
pub(super) fn of_argument(text: &str) -> Result<Given> {
    if text != "-" {
        return Ok(Given::of(text.to_owned().into()));
    }
    let mut text = String::new();
    let read = std::io::stdin().lock().read_to_string(&mut text);
    read.context("reading standard input")?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Given::of(
        text.strip_suffix('\r').unwrap_or(text).to_owned().into(),
    ))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: Option<String>,
    prompt_ids: Option<Vec<u32>>,
    messages: Option<Vec<Message>>,
}

/// The prompts of a file of JSON lines, each with its place.
pub(super) fn read(path: &Path) -> Result<Vec<Given>> {
    let name = path.display();
    let text = llada_files::read_text(path).with_context(|| format!("reading {name}"))?;
    let mut given = Vec::new();
    let lines = text.lines().enumerate();
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("{name}, line {}", number + 1);
        let line: Line = serde_json::from_str(line)
            .with_context(|| format!("{place}: expected {{\"prompt\": \"..\"}}"))?;
        let prompt = match (line.prompt, line.prompt_ids, &line.messages) {
            (Some(text), None, None) => Some(text.into()),
            (None, Some(ids), None) => Some(ids.into()),
            (None, None, Some(_)) => None,
            _ => anyhow::bail!("{place}: needs one of prompt, prompt_ids and messages"),
        };
        given.push(Given {
            place: Some(place),
            prompt,
            messages: line.messages,
        });
    }
    anyhow::ensure!(!given.is_empty(), "{name} holds no prompts");
    Ok(given)
}

/// The chat template of a model: its own, or what `--chat-template` names.
pub(super) fn chat_template(asked: Option<&str>, checkpoint: &Checkpoint) -> Result<ChatTemplate> {
    Ok(match asked {
        None => checkpoint.template()?,
        Some(file) if Path::new(file).is_file() => checkpoint.template_file(Path::new(file))?,
        Some(name) => checkpoint.named_template(name)?,
    })
}

/// Whether a chat template writes the last of several messages alone, so that the model is shown no
/// other.
pub(super) fn reads_last_alone(template: &ChatTemplate, messages: &[Message]) -> Result<bool> {
    let Some((last, [_, ..])) = messages.split_last() else {
        return Ok(false);
    };
    let whole = template.render(messages, true)?;
    // A template may refuse a message that stands alone: it reads more than that.
    let alone = template.render(std::slice::from_ref(last), true);
    Ok(alone.is_ok_and(|alone| alone == whole))
}
