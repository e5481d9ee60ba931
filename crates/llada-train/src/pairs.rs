//! Prompts and answers, the data of supervised fine-tuning: JSON lines of several formats.

mod conversation;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use llada_text::{ChatInputs, ChatTemplate, Message as TextMessage, Tokenizer};
use serde_json::{Map, Value};

use self::conversation::{CALLS, Conversation, Message, content, role, tool_calls};
use crate::data::{HOLDS_MASK, bad_line, for_each_line};
use crate::{
    AnswerUse, ChatUse, Data, Error, Result, SftConfig, Source, SpecialIds, TooLong, TrainConfig,
};

/// Messages with the same field of which it is tried whether a template writes it.
const TRIES: usize = 32;
/// A text that no template writes by itself.
const MARK: &str = "llada-answer";

impl Data {
    /// Reads and tokenizes the pairs of a configuration of fine-tuning.
    ///
    /// A line is a conversation (`messages`, `ShareGPT`'s `conversations`, Alpaca's `instruction`
    /// and `output`, or a `prompt` and a `completion` of messages), of which every answer makes a
    /// pair with all that precedes it as its prompt (appendix B.1 of the paper), or a `prompt` and
    /// its `completion` as texts. Prompts go through `template` as [`ChatUse`] says; without it, the
    /// messages are written one after the other. An EOS ends the answer.
    ///
    /// # Errors
    /// If a file cannot be read, is malformed or empty, or holds the mask token; if there is no
    /// template where one is needed; if the tokenizer knows less than half of the tokens of a file.
    pub fn load_pairs(
        config: &TrainConfig,
        tokenizer: &Tokenizer,
        template: Option<&ChatTemplate>,
        special: SpecialIds,
    ) -> Result<Self> {
        let sft = config.sft.clone().unwrap_or_default();
        if sft.chat == ChatUse::Always && template.is_none() {
            return Err(Error::NoChatTemplate);
        }
        Self::load_files(config, tokenizer, |name, weight| {
            let reader = Reader {
                config,
                sft: &sft,
                tokenizer,
                template,
                special,
                fields: RefCell::default(),
            };
            reader.load(name, weight)
        })
    }
}

/// Reads one file.
struct Reader<'a> {
    config: &'a TrainConfig,
    sft: &'a SftConfig,
    tokenizer: &'a Tokenizer,
    template: Option<&'a ChatTemplate>,
    special: SpecialIds,
    /// What is known of the fields of messages, by what the user is told of them.
    fields: RefCell<BTreeMap<String, Field>>,
}

/// What is known of a field of messages.
#[derive(Default)]
struct Field {
    /// Whether the template writes it.
    is_written: bool,
    /// Messages of which this was tried.
    n_tried: usize,
    /// Lines that have it.
    n_lines: usize,
}

/// A line of the file.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a Path,
    line: usize,
}

impl Place<'_> {
    fn error(self, what: String) -> Error {
        let path = self.path.to_owned();
        let line = self.line;
        Error::BadConversation { path, line, what }
    }

    fn refused(self, source: llada_text::Error) -> Error {
        let path = self.path.to_owned();
        let line = self.line;
        Error::Unrendered { path, line, source }
    }
}

impl Reader<'_> {
    fn load(&self, name: &str, weight: Option<f64>) -> Result<Source> {
        let path = self.config.resolve(name);
        if path.extension() != Some("jsonl".as_ref()) {
            return Err(Error::unknown_format(&path, ".jsonl"));
        }
        let mut source = Source::empty(name, weight);
        let mut is_empty = true;
        for_each_line(&path, |line, text| {
            is_empty = false;
            let place = Place { path: &path, line };
            let (conversation, rest) = conversation_of(place, text)?;
            rest.into_iter()
                .for_each(|(field, _)| source.unused(field, 1));
            self.push_all(&mut source, &conversation, place)
        })?;
        if is_empty {
            return Err(Error::NoDocuments { path });
        }
        for (field, seen) in self.fields.take() {
            if !seen.is_written {
                source.unused(field, seen.n_lines);
            }
        }
        if source.n_sequences() > 0 {
            return Ok(source);
        }
        let sequence_length = self.config.data.sequence_length;
        Err(match source.n_dropped {
            0 => Error::NothingToLearn { path },
            _ => Error::AllTooLong {
                path,
                sequence_length,
            },
        })
    }

    /// Adds a pair for each answer that is learned.
    fn push_all(&self, source: &mut Source, of: &Conversation, place: Place<'_>) -> Result<()> {
        let template = match self.sft.chat {
            ChatUse::Always => self.template,
            ChatUse::Auto => self.template.filter(|_| of.is_chat),
            ChatUse::Never => None,
        };
        let messages: Vec<Message> = of.turns.iter().map(|turn| turn.message.clone()).collect();
        let is_answer = |at: &usize| role(&messages[*at]) == "assistant";
        let mut answers: Vec<usize> = (0..messages.len()).filter(is_answer).collect();
        if self.sft.answers == AnswerUse::Last {
            answers.drain(..answers.len().saturating_sub(1));
        }
        answers.retain(|&at| of.turns[at].is_learned);
        let Some(&last) = answers.last() else {
            source.n_unlearned += 1;
            return Ok(());
        };
        // A template that writes the date writes that of the data: a resumed run sees the same tokens.
        let written = place.path.metadata().and_then(|data| data.modified());
        let inputs = ChatInputs {
            now: written.ok(),
            ..of.inputs.clone()
        };
        let chat = Chat {
            template,
            inputs: &inputs,
        };
        self.look_at_fields(&messages[..last], chat);
        for at in answers {
            let prompt = chat.written(&messages[..at]);
            let prompt = prompt.map_err(|error| place.refused(error))?;
            let answer = self.answer(&messages[..=at], &prompt, chat, place)?;
            self.push(source, &prompt, &answer, place)?;
        }
        Ok(())
    }

    fn push(
        &self,
        source: &mut Source,
        prompt: &str,
        answer: &str,
        place: Place<'_>,
    ) -> Result<()> {
        let limit = self.config.data.sequence_length;
        let prompt = self.tokenizer.encode_text(prompt)?;
        let mut answer = self.tokenizer.encode_text(answer)?;
        answer.push(self.special.eos_token_id);
        let all = || prompt.iter().chain(&answer);
        if all().any(|&id| id == self.special.mask_token_id) {
            return Err(bad_line(place.path, place.line, HOLDS_MASK, None));
        }
        if prompt.len() + answer.len() > limit {
            if self.sft.too_long == TooLong::Drop || prompt.len() >= limit {
                source.n_dropped += 1;
                return Ok(());
            }
            source.n_cut += 1;
            answer.truncate(limit - prompt.len());
        }
        let unknown = self.tokenizer.unk_token_id();
        let all = prompt.iter().chain(&answer);
        source.n_unknown += all.filter(|&&id| Some(id) == unknown).count();
        source.push_pair(&prompt, &answer);
        Ok(())
    }

    /// The text of the last message, an answer: its content, or, if it has more fields (tool calls,
    /// a reasoning) and the template writes them, what this writes after `prompt`, without the end
    /// of the turn.
    fn answer(
        &self,
        messages: &[Message],
        prompt: &str,
        chat: Chat<'_>,
        place: Place<'_>,
    ) -> Result<String> {
        let (message, before) = messages.split_last().expect("it has the answer");
        let mut text = content(message).to_owned();
        let names: Vec<&str> = extra_fields(message).collect();
        if let Some(template) = chat.template.filter(|_| !names.is_empty()) {
            let render = |message: Message| {
                let messages = [before, &[message]].concat();
                let inputs = ChatInputs {
                    add_generation_prompt: false,
                    ..chat.inputs.clone()
                };
                render(template, &messages, &inputs).map_err(|error| place.refused(error))
            };
            let mut probe = Message::new();
            probe.insert("role".to_owned(), "assistant".into());
            probe.insert("content".to_owned(), MARK.into());
            let (whole, probe) = (render(message.clone())?, render(probe)?);
            let end = probe.rsplit_once(MARK).map_or("", |(_, end)| end);
            let own = whole
                .strip_prefix(prompt)
                .and_then(|own| own.strip_suffix(end));
            match own {
                Some(own) if own.trim() != text.trim() => text = own.to_owned(),
                _ => self.count_fields(&names),
            }
        } else {
            self.count_fields(&names);
        }
        for call in tool_calls(message) {
            let function = call.get("function").unwrap_or(call);
            let name = function.get("name").and_then(Value::as_str).unwrap_or("");
            if name.is_empty() || !text.contains(name) {
                return Err(place.error(format!(
                    "an answer calls the tool {name:?}, and the model has no chat template that \
                     writes tool calls; leave the message out (\"weight\": 0), or give the model a \
                     template that does"
                )));
            }
        }
        if text.trim().is_empty() {
            return Err(place.error("an answer is empty".to_owned()));
        }
        Ok(text)
    }

    /// Counts fields of an answer that are not learned.
    fn count_fields(&self, names: &[&str]) {
        let mut fields = self.fields.borrow_mut();
        // Tool calls that are not written are an error.
        let names = names.iter().filter(|name| !CALLS.contains(name));
        for name in names {
            fields
                .entry(format!("{name} of answers"))
                .or_default()
                .n_lines += 1;
        }
    }

    /// Finds out what the template writes of the fields of a prompt's messages, and of the columns
    /// beside them.
    fn look_at_fields(&self, messages: &[Message], chat: Chat<'_>) {
        let inputs = chat.inputs;
        // What is rendered to find it out: the same without the field or the column.
        let mut of_line = BTreeMap::new();
        if inputs.tools.is_some() {
            let mut without = inputs.clone();
            without.tools = None;
            of_line.insert("tools".to_owned(), (messages.to_vec(), without));
        }
        if !inputs.variables.is_empty() {
            let mut without = inputs.clone();
            without.variables = Map::new();
            let name = "chat_template_kwargs".to_owned();
            of_line.insert(name, (messages.to_vec(), without));
        }
        for (at, message) in messages.iter().enumerate() {
            for name in extra_fields(message) {
                let key = format!("{name} of messages of the {}", role(message));
                let mut without = messages.to_vec();
                without[at].shift_remove(name);
                of_line.entry(key).or_insert((without, inputs.clone()));
            }
        }
        let mut fields = self.fields.borrow_mut();
        for (key, (messages_without, inputs_without)) in of_line {
            let field = fields.entry(key).or_default();
            field.n_lines += 1;
            let Some(template) = chat.template.filter(|_| !field.is_written) else {
                continue;
            };
            if field.n_tried < TRIES {
                field.n_tried += 1;
                let with = render(template, messages, inputs).ok();
                let without = render(template, &messages_without, &inputs_without).ok();
                field.is_written = with != without;
            }
        }
    }
}

/// How the messages of a line become a text.
#[derive(Clone, Copy)]
struct Chat<'a> {
    template: Option<&'a ChatTemplate>,
    inputs: &'a ChatInputs,
}

impl Chat<'_> {
    /// As the template writes them, as `llada generate --chat` does it, or one after the other.
    fn written(self, messages: &[Message]) -> llada_text::Result<String> {
        match self.template {
            Some(template) => render(template, messages, self.inputs),
            None => Ok(messages.iter().map(content).collect()),
        }
    }
}

/// Names of the fields of a message that are neither role nor content, and not empty.
fn extra_fields(message: &Message) -> impl Iterator<Item = &str> {
    let is_extra = |name: &str| !matches!(name, "role" | "content");
    let fields = message.iter();
    let fields = fields.filter(move |(name, value)| is_extra(name) && !is_empty(value));
    fields.map(|(name, _)| name.as_str())
}

/// Whether a value says nothing, such as `[]`, written as a text or not.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => matches!(text.trim(), "" | "[]" | "{}"),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Null => true,
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn render(
    template: &ChatTemplate,
    messages: &[Message],
    inputs: &ChatInputs,
) -> llada_text::Result<String> {
    let messages: Vec<TextMessage> = messages.iter().cloned().map(TextMessage).collect();
    template.render_with(&messages, inputs)
}

/// The conversation of a line, which has an answer, and the fields that are not used.
fn conversation_of(place: Place<'_>, text: &str) -> Result<(Conversation, Map<String, Value>)> {
    const EXPECTED: &str = "is no pair for fine-tuning: expected \"messages\" (role, content), \
        \"conversations\" (from, value), \"prompt\" and \"completion\" (both texts or both lists of \
        messages), or \"instruction\" and \"output\"";
    let bad = |source| bad_line(place.path, place.line, EXPECTED, source);
    let fields: std::result::Result<Map<String, Value>, _> = serde_json::from_str(text);
    let mut fields = fields.map_err(|error| bad(Some(error)))?;
    let found = conversation::of_line(&mut fields).map_err(|what| place.error(what))?;
    let found = found.ok_or_else(|| bad(None))?;
    if !found
        .turns
        .iter()
        .any(|turn| role(&turn.message) == "assistant")
    {
        let what = "the conversation has no message of the assistant";
        return Err(place.error(what.to_owned()));
    }
    fields.retain(|_, value| !is_empty(value));
    Ok((found, fields))
}

#[cfg(test)]
mod tests;
