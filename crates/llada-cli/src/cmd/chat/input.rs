//! Where messages come from: an editor in a terminal, else lines of standard input.

use std::io::BufRead as _;

use anyhow::{Context as _, Result};
use rustyline::completion::{Completer, FilenameCompleter};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, Helper};

use super::command::COMMANDS;
use super::settings;

/// Before a message, and before each of its further lines.
const PROMPT: &str = "> ";
const MORE: &str = ". ";
/// What encloses a text of several lines.
const QUOTES: &str = "\"\"\"";

/// What a person has typed, as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    Text(String),
    /// Ctrl-C.
    Interrupted,
    End,
}

/// Where messages come from.
pub(super) enum Input {
    Editor(Box<Editor<Completions, DefaultHistory>>),
    /// The number of the last line.
    Lines(usize),
}

impl Input {
    /// An editor with a history.
    ///
    /// # Errors
    /// If the terminal can't be used.
    pub(super) fn editor() -> Result<Self> {
        let config = Config::builder().auto_add_history(true).build();
        let mut editor = Editor::with_config(config).context("opening the terminal")?;
        editor.set_helper(Some(Completions(FilenameCompleter::new())));
        Ok(Self::Editor(Box::new(editor)))
    }

    pub(super) fn is_editor(&self) -> bool {
        matches!(self, Self::Editor(_))
    }

    /// Where the last message was, if that is not seen.
    pub(super) fn place(&self) -> Option<String> {
        match self {
            Self::Editor(_) => None,
            Self::Lines(number) => Some(format!("standard input, line {number}")),
        }
    }

    /// The next message or command, of one line or of several.
    ///
    /// # Errors
    /// If the terminal or standard input can't be read, or a quoted text has no end.
    pub(super) fn read(&mut self) -> Result<Typed> {
        join(|prompt| self.line(prompt))
    }

    fn line(&mut self, prompt: &str) -> Result<Typed> {
        match self {
            Self::Editor(editor) => match editor.readline(prompt) {
                Ok(line) => Ok(Typed::Text(line)),
                Err(ReadlineError::Interrupted) => Ok(Typed::Interrupted),
                Err(ReadlineError::Eof) => Ok(Typed::End),
                Err(error) => Err(error).context("reading the terminal"),
            },
            Self::Lines(number) => {
                *number += 1;
                let mut line = String::new();
                let read = std::io::stdin().lock().read_line(&mut line);
                let n = read.with_context(|| format!("standard input, line {number}"))?;
                let text = line.strip_suffix('\n').unwrap_or(&line);
                let text = text.strip_suffix('\r').unwrap_or(text);
                Ok(match n {
                    0 => Typed::End,
                    _ => Typed::Text(text.to_owned()),
                })
            }
        }
    }
}

/// Puts lines together: one that ends with `\` goes on, and so does a text between `"""`.
fn join(mut line: impl FnMut(&str) -> Result<Typed>) -> Result<Typed> {
    let first = match line(PROMPT)? {
        Typed::Text(text) => text,
        other => return Ok(other),
    };
    if let Some(quoted) = first.trim_start().strip_prefix(QUOTES) {
        let mut text = quoted.to_owned();
        loop {
            if let Some(whole) = text.trim_end().strip_suffix(QUOTES) {
                return Ok(Typed::Text(whole.trim_matches('\n').to_owned()));
            }
            match line(MORE)? {
                Typed::Text(more) => text = format!("{text}\n{more}"),
                Typed::Interrupted => return Ok(Typed::Interrupted),
                Typed::End => anyhow::bail!("the text after {QUOTES} has no {QUOTES} at its end"),
            }
        }
    }
    let mut text = first;
    while let Some(begun) = text.strip_suffix('\\') {
        text = match line(MORE)? {
            Typed::Text(more) => format!("{begun}\n{more}"),
            Typed::Interrupted => return Ok(Typed::Interrupted),
            Typed::End => return Ok(Typed::Text(begun.to_owned())),
        };
    }
    Ok(Typed::Text(text))
}

/// Completes commands, names of settings and of files.
pub(super) struct Completions(FilenameCompleter);

impl Completer for Completions {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        at: usize,
        context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let begun = &line[..at];
        let starting = |names: Vec<String>, with: &str| {
            let names = names.into_iter().filter(|name| name.starts_with(with));
            names.map(|name| format!("{name} ")).collect::<Vec<_>>()
        };
        match begun.rsplit_once(' ') {
            None if begun.starts_with('/') => {
                let names = COMMANDS.iter().map(|(name, ..)| (*name).to_owned());
                Ok((0, starting(names.collect(), begun)))
            }
            Some((command, name)) if command.starts_with("/set") => {
                Ok((at - name.len(), starting(settings::names(), name)))
            }
            Some(("/save" | "/load", _)) => {
                let (start, files) = self.0.complete(line, at, context)?;
                Ok((
                    start,
                    files.into_iter().map(|file| file.replacement).collect(),
                ))
            }
            _ => Ok((at, Vec::new())),
        }
    }
}

impl Hinter for Completions {
    type Hint = String;
}

impl Highlighter for Completions {}

impl Validator for Completions {}

impl Helper for Completions {}

#[cfg(test)]
mod tests;
