//! The messages of a conversation, and the files they are kept in.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::cmd::prompts;
use crate::config::Misuse;
use llada::text::{Message, Parts};

/// A conversation: what the system says, and the turns after it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Conversation {
    pub(super) system: Option<String>,
    /// Those after the system's, the oldest first.
    pub(super) turns: Vec<Message>,
}

impl Conversation {
    /// All messages, as the chat template gets them.
    pub(super) fn messages(&self) -> Vec<Message> {
        let system = self
            .system
            .iter()
            .map(|text| Message::new("system", text.as_str()));
        system.chain(self.turns.iter().cloned()).collect()
    }

    /// Adds an answer; one that was stopped has no end, and must not be learned (`"weight": 0`).
    /// Its reasoning is a field of its own, which a template may read.
    pub(super) fn add_answer(&mut self, answer: &Parts, is_stopped: bool) {
        let mut message = Message::new("assistant", &*answer.content);
        if !answer.reasoning.is_empty() {
            let reasoning = answer.reasoning.as_str().into();
            message.0.insert("reasoning_content".to_owned(), reasoning);
        }
        if is_stopped {
            message.0.insert("weight".to_owned(), 0.into());
        }
        self.turns.push(message);
    }

    /// Takes back the last message of the user, with what came after it.
    pub(super) fn undo(&mut self) -> Option<Message> {
        let at = self.last_asked()?;
        self.turns.drain(at..).next()
    }

    /// Takes back what came after the last message of the user; `None` if there is no such message.
    pub(super) fn reopen(&mut self) -> Option<Vec<Message>> {
        let at = self.last_asked()?;
        Some(self.turns.split_off(at + 1))
    }

    fn last_asked(&self) -> Option<usize> {
        self.turns.iter().rposition(|turn| turn.role() == "user")
    }

    /// Adds the conversation to a file of JSON lines, and returns the number of its line.
    ///
    /// # Errors
    /// If there is nothing to save, or the file can't be read or written.
    pub(super) fn save(&self, path: &Path) -> Result<usize> {
        if self.turns.is_empty() {
            return Err(Misuse::of("/save: nothing was said yet"));
        }
        let name = path.display();
        let mut text = match path.exists() {
            true => llada_files::read_text(path).with_context(|| format!("reading {name}"))?,
            false => String::new(),
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let line = json!({ "messages": self.messages() });
        text.push_str(&format!("{line}\n"));
        llada_files::write(path, &text).with_context(|| format!("writing {name}"))?;
        Ok(text.lines().count())
    }

    /// The conversation in the last line of a file, and the place of that line.
    ///
    /// # Errors
    /// If the file can't be read or its last line holds no messages.
    pub(super) fn load(path: &Path) -> Result<(Self, String)> {
        let last = prompts::read(path)?.pop();
        let last = last.context("a file of prompts that holds none")?;
        let place = last.place.unwrap_or_default();
        let Some(mut turns) = last.messages else {
            anyhow::bail!("{place}: expected {{\"messages\": [..]}}, as /save writes it");
        };
        let mut system = None;
        if let Some(first) = turns.first().filter(|first| first.role() == "system")
            && let Some(text) = first.content()
        {
            system = Some(text.to_owned());
            turns.remove(0);
        }
        Ok((Self { system, turns }, place))
    }
}

#[cfg(test)]
mod tests;
