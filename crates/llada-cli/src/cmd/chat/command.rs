//! What is typed: a message, or a command.

use std::path::PathBuf;

use anyhow::Result;

use crate::config::Misuse;

/// The commands: name, what comes after it, what it does.
pub(super) const COMMANDS: [(&str, &str, &str); 11] = [
    ("/help", "", "this list"),
    ("/quit", "", "the end; Ctrl-D as well"),
    ("/clear", "", "begin a new conversation"),
    ("/undo", "", "take back the last message and its answer"),
    (
        "/retry",
        "",
        "answer the last message again, with the next seed",
    ),
    (
        "/system",
        "TEXT",
        "what the system says before the conversation; without TEXT, nothing",
    ),
    (
        "/set",
        "NAME VALUE ..",
        "change settings of the sampler by the names of the flags, such as /set temperature 0.7; \
         on and off for those without a value, default for the usual one",
    ),
    (
        "/show",
        "",
        "settings, the conversation's tokens and the last answer's cost",
    ),
    (
        "/save",
        "FILE.jsonl",
        "add the conversation to a file, as a line that generate --input and sft read",
    ),
    (
        "/load",
        "FILE.jsonl",
        "go on with the conversation in the last line of a file",
    ),
    ("/watch", "on|off", "show the denoising while it happens"),
];

/// What a person has typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// Something to answer.
    Message(String),
    Help,
    Quit,
    Clear,
    Undo,
    Retry,
    /// Empty: none.
    System(String),
    /// Names and values.
    Set(Vec<(String, String)>),
    Show,
    Save(PathBuf),
    Load(PathBuf),
    Watch(bool),
}

impl Entry {
    /// Reads what was typed: a command begins with `/`, a message that does so is written with `//`.
    ///
    /// # Errors
    /// If there is no such command, or it needs something else after it.
    pub(super) fn parse(typed: &str) -> Result<Self> {
        let Some(command) = typed.trim().strip_prefix('/') else {
            return Ok(Self::Message(typed.to_owned()));
        };
        if command.starts_with('/') {
            let message = typed.replacen('/', "", 1);
            return Ok(Self::Message(message));
        }
        let (name, rest) = command
            .split_once(char::is_whitespace)
            .unwrap_or((command, ""));
        let rest = rest.trim();
        let name = format!("/{name}");
        let Some((_, takes, _)) = COMMANDS.iter().find(|(known, ..)| *known == name) else {
            return Err(unknown(&name));
        };
        match (takes.is_empty(), rest.is_empty()) {
            (true, false) => return Err(Misuse::of(format!("{name} takes nothing after it"))),
            (false, true) if name != "/system" => return Err(needs(&name, takes)),
            _ => {}
        }
        Ok(match &*name {
            "/help" => Self::Help,
            "/quit" => Self::Quit,
            "/clear" => Self::Clear,
            "/undo" => Self::Undo,
            "/retry" => Self::Retry,
            "/system" => Self::System(rest.to_owned()),
            "/set" => Self::Set(pairs(rest).ok_or_else(|| needs(&name, takes))?),
            "/show" => Self::Show,
            "/save" => Self::Save(rest.into()),
            "/load" => Self::Load(rest.into()),
            _ => Self::Watch(switch(rest).ok_or_else(|| needs(&name, takes))?),
        })
    }
}

/// `on` or `off`.
pub(super) fn switch(text: &str) -> Option<bool> {
    match text {
        "on" | "true" => Some(true),
        "off" | "false" => Some(false),
        _ => None,
    }
}

/// Names and values in turn, with or without `--` and `=`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c == '=')
        .filter(|word| !word.is_empty())
        .collect();
    let pairs = words.chunks(2).map(|pair| match pair {
        [name, value] => Some(((*name).to_owned(), (*value).to_owned())),
        _ => None,
    });
    pairs.collect()
}

fn needs(name: &str, takes: &str) -> anyhow::Error {
    Misuse::of(format!("{name}: expected {name} {takes}"))
}

fn unknown(name: &str) -> anyhow::Error {
    const NEAR: f64 = 0.8;
    let near = COMMANDS
        .iter()
        .map(|(known, ..)| *known)
        .find(|known| strsim::jaro_winkler(known, name) > NEAR);
    let hint = near.map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
    Misuse::of(format!(
        "{name}: no such command{hint}; /help lists them, and // begins a message with /"
    ))
}

/// The list of the commands.
pub(super) fn help() -> String {
    let lines = COMMANDS.iter().map(|(name, takes, does)| {
        let left = format!("{name} {takes}");
        format!("{left:21} {does}\n")
    });
    let commands: String = lines.collect();
    format!(
        "{commands}A line that ends with \\ goes on in the next one, and so does a text between \
         \"\"\" and \"\"\".\nCtrl-C stops an answer, and clears the line; twice, it ends."
    )
}

#[cfg(test)]
mod tests;
