//! Prompts and answers, the data of supervised fine-tuning: three formats of JSON lines.

use std::path::Path;

use llada_text::{ChatTemplate, Message, Tokenizer};
use serde::Deserialize;

use crate::data::{HOLDS_MASK, bad_line, for_each_line};
use crate::{ChatUse, Data, Error, Result, Source, SpecialIds, TooLong, TrainConfig};

/// A line of a file; what else it holds is not read.
#[derive(Debug, Deserialize)]
struct Line {
    messages: Option<Vec<Message>>,
    conversations: Option<Vec<Turn>>,
    prompt: Option<String>,
    completion: Option<String>,
}

/// A turn of a `ShareGPT` conversation.
#[derive(Debug, Deserialize)]
struct Turn {
    from: String,
    value: String,
}

/// A prompt and its answer, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pair {
    prompt: Vec<Message>,
    answer: String,
    is_conversation: bool,
}

impl Data {
    /// Reads and tokenizes the pairs of a configuration of fine-tuning.
    ///
    /// A line is a conversation (`messages` or `ShareGPT`'s `conversations`), of which every answer
    /// makes a pair with all that precedes it as its prompt (appendix B.1 of the paper), or a
    /// `prompt` and its `completion`. Prompts go through `template` as [`ChatUse`] says; without
    /// it, the messages are written one after the other. An EOS ends the answer.
    ///
    /// # Errors
    /// If a file cannot be read, is malformed or empty, or holds the mask token; if there is no
    /// template where one is needed.
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
        let reader = Reader {
            config,
            tokenizer,
            template,
            special,
            chat: sft.chat,
            too_long: sft.too_long,
        };
        Self::load_files(config, tokenizer, |name, weight| reader.load(name, weight))
    }
}

struct Reader<'a> {
    config: &'a TrainConfig,
    tokenizer: &'a Tokenizer,
    template: Option<&'a ChatTemplate>,
    special: SpecialIds,
    chat: ChatUse,
    too_long: TooLong,
}

impl Reader<'_> {
    fn load(&self, name: &str, weight: Option<f64>) -> Result<Source> {
        let path = self.config.resolve(name);
        if path.extension() != Some("jsonl".as_ref()) {
            let expected = ".jsonl";
            return Err(Error::UnknownFormat { path, expected });
        }
        let mut source = Source::empty(name, weight);
        let mut is_empty = true;
        for_each_line(&path, |line, text| {
            is_empty = false;
            for pair in pairs(&path, line, text)? {
                self.push(&mut source, &pair, &path, line)?;
            }
            Ok(())
        })?;
        if is_empty {
            return Err(Error::NoDocuments { path });
        }
        if source.n_sequences() == 0 {
            let sequence_length = self.config.data.sequence_length;
            return Err(Error::AllTooLong {
                path,
                sequence_length,
            });
        }
        Ok(source)
    }

    fn push(&self, source: &mut Source, pair: &Pair, path: &Path, line: usize) -> Result<()> {
        let limit = self.config.data.sequence_length;
        let prompt = self.tokenizer.encode(&self.prompt(pair)?)?;
        let mut answer = self.tokenizer.encode(&pair.answer)?;
        answer.push(self.special.eos_token_id);
        let all = || prompt.iter().chain(&answer);
        if all().any(|&id| id == self.special.mask_token_id) {
            return Err(bad_line(path, line, HOLDS_MASK, None));
        }
        if prompt.len() + answer.len() > limit {
            if self.too_long == TooLong::Drop || prompt.len() >= limit {
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

    /// The text that precedes the answer, as `llada generate` makes it.
    fn prompt(&self, pair: &Pair) -> Result<String> {
        let template = match self.chat {
            ChatUse::Always => self.template,
            ChatUse::Auto => self.template.filter(|_| pair.is_conversation),
            ChatUse::Never => None,
        };
        Ok(match template {
            Some(template) => template.render(&pair.prompt, true)?,
            None => pair.prompt.iter().map(|m| m.content.as_str()).collect(),
        })
    }
}

/// The pairs of a line, at least one.
fn pairs(path: &Path, line: usize, text: &str) -> Result<Vec<Pair>> {
    const EXPECTED: &str = "is no pair for fine-tuning: expected \"messages\" (role, content), \
        \"conversations\" (from, value), or \"prompt\" and \"completion\"";
    let bad = |source| bad_line(path, line, EXPECTED, source);
    let bad_conversation = |what: String| {
        let path = path.to_owned();
        Error::BadConversation { path, line, what }
    };
    let parsed: Line = serde_json::from_str(text).map_err(|error| bad(Some(error)))?;
    let pair = parsed.prompt.zip(parsed.completion);
    let found = match (parsed.messages, parsed.conversations, pair) {
        (Some(messages), ..) => of_conversation(&messages),
        (None, Some(turns), _) => {
            let messages = turns.into_iter().map(Turn::into_message);
            let messages = messages.collect::<std::result::Result<Vec<_>, String>>();
            of_conversation(&messages.map_err(bad_conversation)?)
        }
        (None, None, Some((prompt, answer))) => vec![Pair {
            prompt: vec![Message::user(prompt)],
            answer,
            is_conversation: false,
        }],
        _ => return Err(bad(None)),
    };
    let what = if found.is_empty() {
        "the conversation has no message of the assistant"
    } else if found.iter().any(|pair| pair.answer.trim().is_empty()) {
        "an answer is empty"
    } else {
        return Ok(found);
    };
    Err(bad_conversation(what.to_owned()))
}

/// A pair for each message of the assistant.
fn of_conversation(messages: &[Message]) -> Vec<Pair> {
    let is_answer = |(_, message): &(usize, &Message)| message.role == "assistant";
    let answers = messages.iter().enumerate().filter(is_answer);
    let pair = |(at, answer): (usize, &Message)| Pair {
        prompt: messages[..at].to_vec(),
        answer: answer.content.clone(),
        is_conversation: true,
    };
    answers.map(pair).collect()
}

impl Turn {
    /// The turn under the names of chat templates; what is wrong, if it is unknown who speaks.
    fn into_message(self) -> std::result::Result<Message, String> {
        let role = match self.from.as_str() {
            "human" | "user" => "user",
            "gpt" | "assistant" => "assistant",
            "system" => "system",
            from => {
                return Err(format!(
                    "a turn is from {from:?}; expected human, gpt or system"
                ));
            }
        };
        Ok(Message {
            role: role.to_owned(),
            content: self.value,
        })
    }
}

#[cfg(test)]
mod tests;
