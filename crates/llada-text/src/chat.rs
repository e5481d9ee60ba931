//! Chat templates: a conversation as one text.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use minijinja::{Environment, context};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::tokenizer::write_file;

const CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn of the user.
    #[must_use]
    pub fn user(content: impl Into<String>) -> Self {
        Self {
            role: "user".to_owned(),
            content: content.into(),
        }
    }
}

/// The template of a checkpoint, in Jinja, with the special tokens that it may write.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: String,
    path: PathBuf,
    /// Names such as `bos_token` and their texts.
    special: Vec<(String, String)>,
}

impl ChatTemplate {
    /// The template in the checkpoint folder `dir`: `chat_template` of `tokenizer_config.json`
    /// (of several, the one named `default`), or `chat_template.jinja`.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`] if there is none, [`Error::Read`] or [`Error::Config`] if a file
    /// cannot be read.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG);
        let config: Value = match read(&path)? {
            Some(text) => serde_json::from_str(&text).map_err(|source| Error::Config {
                path: path.clone(),
                source,
            })?,
            None => Value::Null,
        };
        let special = special_tokens(&config);
        if let Some(source) = template_of(&config) {
            return Ok(Self {
                source,
                path,
                special,
            });
        }
        let path = dir.join(TEMPLATE);
        let source = read(&path)?.ok_or_else(|| Error::NoChatTemplate {
            path: dir.to_owned(),
        })?;
        Ok(Self {
            source,
            path,
            special,
        })
    }

    /// A template from its source, with the names and texts of special tokens such as `bos_token`;
    /// `path` names its file in messages.
    #[must_use]
    pub fn new(source: &str, special: Vec<(String, String)>, path: &Path) -> Self {
        Self {
            source: source.to_owned(),
            path: path.to_owned(),
            special,
        }
    }

    /// The Jinja source.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The names and texts of special tokens such as `bos_token`.
    #[must_use]
    pub fn special(&self) -> &[(String, String)] {
        &self.special
    }

    /// Writes the template and its special tokens into the folder `dir`, as `tokenizer_config.json`:
    /// to a temporary sibling, synced, renamed.
    ///
    /// # Errors
    /// [`Error::Write`] if the folder cannot be written; an older file is then untouched.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let special = self.special.iter();
        let mut config: Map<String, Value> = special
            .map(|(name, token)| (name.clone(), token.as_str().into()))
            .collect();
        config.insert("chat_template".to_owned(), self.source.as_str().into());
        // transformers does not know it by the model's type.
        let class = "PreTrainedTokenizerFast";
        config.insert("tokenizer_class".to_owned(), class.into());
        let json = format!("{:#}", Value::Object(config));
        write_file(dir, CONFIG, json.as_bytes())
    }

    /// The conversation as a text, special tokens written out; `add_generation_prompt` opens the
    /// assistant's next turn.
    ///
    /// # Errors
    /// [`Error::Template`] if the template is broken or refuses the messages.
    ///
    /// Source: `apply_chat_template` of Hugging Face's transformers.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let failed = |source| Error::Template {
            path: self.path.clone(),
            source: Box::new(source),
        };
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", refuse);
        for (name, token) in &self.special {
            environment.add_global(name, token);
        }
        environment
            .render_str(&self.source, context! { messages, add_generation_prompt })
            .map_err(failed)
    }
}

/// What templates call on messages that they do not support.
fn refuse(message: String) -> std::result::Result<String, minijinja::Error> {
    let kind = minijinja::ErrorKind::InvalidOperation;
    Err(minijinja::Error::new(kind, message))
}

/// The content of a file, if it exists.
fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn template_of(config: &Value) -> Option<String> {
    let template = config.get("chat_template")?;
    if let Some(source) = template.as_str() {
        return Some(source.to_owned());
    }
    let named = |name: &str| {
        let found = template.as_array()?.iter();
        let mut found =
            found.filter(|entry| entry.get("name").and_then(Value::as_str) == Some(name));
        Some(found.next()?.get("template")?.as_str()?.to_owned())
    };
    named("default")
}

/// Entries such as `bos_token`, written as a text or as an object with `content`.
fn special_tokens(config: &Value) -> Vec<(String, String)> {
    let entries = config.as_object().into_iter().flatten();
    let of = |(name, value): (&String, &Value)| {
        let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
        name.ends_with("_token")
            .then(|| (name.clone(), text.to_owned()))
    };
    entries.filter_map(of).collect()
}

#[cfg(test)]
mod tests;
