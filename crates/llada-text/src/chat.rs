//! Chat templates: a conversation as one text.

mod arguments;
mod environment;
mod filters;
mod methods;
mod python;
mod source;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::side_files::{CONFIG, SideFiles, read};
use crate::tokenizer::write_file;

const TEMPLATE: &str = "chat_template.jinja";
const MORE_TEMPLATES: &str = "additional_chat_templates";

/// Names under which a message may hold its reasoning, the one that templates read first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// One turn of a conversation: `role`, `content`, and whatever else the template reads, such as
/// `tool_calls`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Message(pub Map<String, Value>);

impl Message {
    /// A turn of `system`, `user` or `assistant`.
    #[must_use]
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        let mut fields = Map::new();
        fields.insert("role".to_owned(), role.into());
        fields.insert("content".to_owned(), content.into().into());
        Self(fields)
    }

    /// A turn of the user.
    #[must_use]
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// Who speaks; empty if the message does not say it.
    #[must_use]
    pub fn role(&self) -> &str {
        self.0.get("role").and_then(Value::as_str).unwrap_or("")
    }

    /// What is said, if it is a text.
    #[must_use]
    pub fn content(&self) -> Option<&str> {
        self.0.get("content").and_then(Value::as_str)
    }

    /// The message as transformers hands it to a template: without fields that are null, and
    /// reasoning under the names that templates read.
    fn normalized(&self) -> Value {
        let fields = self.0.iter().filter(|(_, value)| !value.is_null());
        let mut fields: Map<String, Value> = fields
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let reasoning = REASONING.iter().find_map(|name| fields.get(*name)).cloned();
        if let Some(reasoning) = reasoning {
            if !fields.contains_key("thinking") {
                fields.shift_insert(0, "thinking".to_owned(), reasoning.clone());
            }
            fields.insert("reasoning_content".to_owned(), reasoning);
        }
        Value::Object(fields)
    }
}

/// What a template is given beside the messages.
#[derive(Debug, Clone, Default)]
pub struct ChatInputs {
    /// Opens the assistant's next turn.
    pub add_generation_prompt: bool,
    /// JSON schemas of functions that the model may call.
    pub tools: Option<Vec<Value>>,
    /// Documents that the answer is to rest on, with `title` and `text`.
    pub documents: Option<Vec<Value>>,
    /// Further variables, such as `enable_thinking`.
    pub variables: Map<String, Value>,
    /// The time that `strftime_now` tells, in UTC; if there is none, the time of the clock in the
    /// zone of the machine.
    pub now: Option<SystemTime>,
}

/// The template of a checkpoint, in Jinja, with the special tokens that it may write.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: String,
    /// The source in the words of minijinja.
    prepared: String,
    path: PathBuf,
    /// Names such as `bos_token` and their texts.
    special: Vec<(String, String)>,
}

impl ChatTemplate {
    /// The template in the checkpoint folder `dir`: `chat_template.jinja`, else `chat_template` of
    /// `tokenizer_config.json`; of several the one named `default`.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`] if there is none, [`Error::NoSuchTemplate`] if there are only
    /// others, [`Error::Read`] or [`Error::Config`] if a file cannot be read.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        Self::named(dir, "default")
    }

    /// The template `name` of the checkpoint folder `dir`: a file of `additional_chat_templates`,
    /// or an entry of `tokenizer_config.json`.
    ///
    /// # Errors
    /// As [`ChatTemplate::from_dir`].
    pub fn named(dir: &Path, name: &str) -> Result<Self> {
        let files = SideFiles::read(dir)?;
        let mut templates = template_files(dir)?;
        // As in transformers: the files replace the field.
        if templates.is_empty() {
            templates = template_fields(dir, files.chat_template.as_ref());
        }
        if templates.is_empty() {
            let path = dir.to_owned();
            return Err(Error::NoChatTemplate { path });
        }
        let names: Vec<String> = templates
            .iter()
            .map(|template| template.name.clone())
            .collect();
        let found = templates.into_iter().find(|template| template.name == name);
        let template = found.ok_or_else(|| Error::NoSuchTemplate {
            path: dir.to_owned(),
            name: name.to_owned(),
            names: names.join(", "),
        })?;
        Ok(Self::new(&template.source, files.named, &template.path))
    }

    /// The names and texts of the special tokens of the checkpoint folder `dir`.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Config`] if a file cannot be read.
    pub fn special_tokens(dir: &Path) -> Result<Vec<(String, String)>> {
        Ok(SideFiles::read(dir)?.named)
    }

    /// The template in the file `path`, with the names and texts of special tokens.
    ///
    /// # Errors
    /// [`Error::Read`] if it cannot be read.
    pub fn from_file(path: &Path, special: Vec<(String, String)>) -> Result<Self> {
        let source = fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self::new(&source, special, path))
    }

    /// A template from its source, with the names and texts of special tokens such as `bos_token`;
    /// `path` names its file in messages.
    #[must_use]
    pub fn new(source: &str, special: Vec<(String, String)>, path: &Path) -> Self {
        Self {
            source: source.to_owned(),
            prepared: source::prepare(source),
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
    /// As [`ChatTemplate::render_with`].
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let inputs = ChatInputs {
            add_generation_prompt,
            ..ChatInputs::default()
        };
        self.render_with(messages, &inputs)
    }

    /// The conversation as a text, special tokens written out.
    ///
    /// # Errors
    /// [`Error::Template`] if the template is broken, takes too long, or refuses the messages.
    ///
    /// Source: `apply_chat_template` of Hugging Face's transformers.
    pub fn render_with(&self, messages: &[Message], inputs: &ChatInputs) -> Result<String> {
        self.render_raw(messages, inputs)
            .map_err(|source| Error::Template {
                path: self.path.clone(),
                source: Box::new(source),
            })
    }

    fn render_raw(
        &self,
        messages: &[Message],
        inputs: &ChatInputs,
    ) -> std::result::Result<String, minijinja::Error> {
        let given = inputs.now.and_then(|now| Timestamp::try_from(now).ok());
        let now = given.map_or_else(Zoned::now, |now| now.to_zoned(TimeZone::UTC));
        let environment = environment::environment(&now)?;
        let list = |list: &Option<Vec<Value>>| list.clone().map_or(Value::Null, Value::Array);
        let mut variables: Map<String, Value> = self
            .special
            .iter()
            .map(|(name, text)| (name.clone(), text.as_str().into()))
            .collect();
        variables.extend(inputs.variables.clone());
        let messages = messages.iter().map(Message::normalized).collect();
        variables.insert("messages".to_owned(), Value::Array(messages));
        variables.insert("tools".to_owned(), list(&inputs.tools));
        variables.insert("documents".to_owned(), list(&inputs.documents));
        let prompt = inputs.add_generation_prompt;
        variables.insert("add_generation_prompt".to_owned(), prompt.into());
        environment.render_str(
            &self.prepared,
            environment::value(&Value::Object(variables)),
        )
    }
}

/// One of the templates of a folder.
#[derive(Debug)]
struct Named {
    name: String,
    source: String,
    path: PathBuf,
}

/// `chat_template.jinja`, named `default`, and the files of `additional_chat_templates`.
fn template_files(dir: &Path) -> Result<Vec<Named>> {
    let mut templates = Vec::new();
    let path = dir.join(TEMPLATE);
    if let Some(source) = read(&path)? {
        let name = "default".to_owned();
        templates.push(Named { name, source, path });
    }
    let more = fs::read_dir(dir.join(MORE_TEMPLATES)).into_iter().flatten();
    for path in more.filter_map(|entry| Some(entry.ok()?.path())) {
        let is_template = path.extension().is_some_and(|end| end == "jinja");
        let name = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .filter(|_| is_template);
        if let (Some(name), Some(source)) = (name, read(&path)?) {
            let name = name.to_owned();
            templates.push(Named { name, source, path });
        }
    }
    templates.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(templates)
}

/// The templates in `chat_template` of `tokenizer_config.json`: one, a list with names, or an
/// object of them.
fn template_fields(dir: &Path, field: Option<&Value>) -> Vec<Named> {
    let template = |name: &str, source: &str| Named {
        name: name.to_owned(),
        source: source.to_owned(),
        path: dir.join(CONFIG),
    };
    match field {
        Some(Value::String(source)) => vec![template("default", source)],
        Some(Value::Array(entries)) => {
            let entry = |entry: &Value| {
                let name = entry.get("name")?.as_str()?;
                Some(template(name, entry.get("template")?.as_str()?))
            };
            entries.iter().filter_map(entry).collect()
        }
        Some(Value::Object(entries)) => {
            let entry = |(name, source): (&String, &Value)| Some(template(name, source.as_str()?));
            entries.iter().filter_map(entry).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
