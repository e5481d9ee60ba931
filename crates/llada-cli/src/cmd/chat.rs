//! `llada chat`.

mod answer;
mod command;
mod conversation;
mod input;
mod settings;

use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use llada::text::{ChatTemplate, Message, Parts};
use llada::{Llada, Overrides};

use super::observe::Observer;
use super::prompts::{chat_template, reads_last_alone};
use crate::args::{AnswerArgs, ChatArgs, Format};
use crate::config::{
    Embedded, Misuse, check_flags, end_think, explain, load_checkpoint, overrides,
};
use crate::output::note;
use answer::{Cost, Written};
use command::{Entry, help};
use conversation::Conversation;
use input::{Input, Typed};
use settings::Settings;

/// What the embedded model was taught to answer.
const EMBEDDED: &str = "the embedded poem model with its instruction adapter; it was taught:\n  \
    五言藏头：春夏秋冬。   a poem whose lines begin with these characters, in lines of five\n  \
    七言藏头：风花雪月。   the same in lines of seven\n  \
    上句：更上一层楼。     the line before\n  \
    下句：海内存知己，     the line after";

pub(crate) fn run(args: &ChatArgs) -> Result<()> {
    let sampler = &args.answer.sampler;
    if args.model.run.format == Format::Json {
        return Err(Misuse::of(
            "chat prints texts: use llada generate --chat with --format json",
        ));
    }
    if sampler.n_samples > 1 {
        return Err(Misuse::of(
            "--n: a conversation goes on from one answer; /retry gives another one",
        ));
    }
    let settings = Settings::of_command_line(std::env::args_os())?;
    let answer = settings.parse()?;
    let mut overrides = checked(&answer)?;
    let (llada, checkpoint) = load_checkpoint(&args.model, Embedded::Instruct, false)?;
    overrides.end_think = end_think(&sampler.protocol, &llada.tokenizer)?;
    let template = chat_template(args.chat_template.as_deref(), &checkpoint)?;
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let interrupt = Arc::new(AtomicBool::new(false));
    let input = match is_terminal {
        true => {
            crate::stop::on_interrupt(&interrupt)?;
            Input::editor()?
        }
        false => Input::Lines(0),
    };
    let watch = sampler.watch || (is_terminal && !args.plain);
    let mut observer = Observer::new(&llada, sampler.trace.as_deref(), watch)?;
    observer.answers_alone = true;
    let mut chat = Chat {
        llada: &llada,
        template: &template,
        settings,
        answer,
        overrides,
        conversation: Conversation {
            system: args.system.clone(),
            ..Conversation::default()
        },
        retries: 0,
        observer,
        interrupt,
        cost: None,
        is_told: false,
    };
    chat.submit_probe(&chat.overrides)?;
    if is_terminal {
        let name = args.model.model.as_deref().map(Path::to_string_lossy);
        note(name.as_deref().unwrap_or(EMBEDDED));
        note("/help lists the commands, Ctrl-D ends");
    }
    let talked = chat.talk(input);
    chat.observer.finish()?;
    talked
}

/// What the flags change of a request, if they fit together.
fn checked(answer: &AnswerArgs) -> Result<Overrides> {
    check_flags(&answer.sampler, answer.gen_length)?;
    overrides(&answer.sampler, answer.gen_length)
}

/// A conversation with a model, and how it goes on.
struct Chat<'a> {
    llada: &'a Llada,
    template: &'a ChatTemplate,
    settings: Settings,
    /// What the settings say.
    answer: AnswerArgs,
    overrides: Overrides,
    conversation: Conversation,
    /// Answers to the last message so far, but for the first: each has a seed of its own.
    retries: u64,
    observer: Observer<'a>,
    /// Set by Ctrl-C.
    interrupt: Arc<AtomicBool>,
    /// Of the last answer.
    cost: Option<Cost>,
    /// Whether it was said that the model does not see the whole conversation.
    is_told: bool,
}

impl Chat<'_> {
    /// Reads and answers, up to the end. Errors are told in a terminal, and elsewhere end it, as
    /// later lines rest on the answers before them.
    fn talk(&mut self, mut input: Input) -> Result<()> {
        let mut was_interrupted = false;
        loop {
            let done = match input.read() {
                Ok(Typed::End) => return Ok(()),
                Ok(Typed::Interrupted) if was_interrupted => return Ok(()),
                Ok(Typed::Interrupted) => {
                    note("Ctrl-C again ends, and so do Ctrl-D and /quit");
                    was_interrupted = true;
                    continue;
                }
                Ok(Typed::Text(text)) if text.trim().is_empty() => continue,
                Ok(Typed::Text(text)) => Entry::parse(&text),
                // A terminal that can't be read stays so.
                Err(error) => return Err(error),
            };
            was_interrupted = false;
            match done {
                Ok(Entry::Quit) => return Ok(()),
                entry => match entry.and_then(|entry| self.follow(entry)) {
                    Ok(()) => {}
                    Err(error) if input.is_editor() => note(&format!("{:#}", explain(error))),
                    Err(error) => {
                        let place = input.place().unwrap_or_default();
                        return Err(error.context(place));
                    }
                },
            }
        }
    }

    fn follow(&mut self, entry: Entry) -> Result<()> {
        match entry {
            Entry::Message(text) => self.say(text)?,
            Entry::Help => note(&help()),
            Entry::Quit => {}
            Entry::Clear => {
                self.conversation.turns.clear();
                note("a new conversation");
            }
            Entry::Undo => {
                let Some(asked) = self.conversation.undo() else {
                    return Err(Misuse::of("/undo: nothing was said yet"));
                };
                note(&format!("taken back: {}", asked.content().unwrap_or("..")));
            }
            Entry::Retry => self.retry()?,
            Entry::System(text) => {
                self.conversation.system = Some(text).filter(|text| !text.is_empty());
                self.is_told = false;
            }
            Entry::Set(pairs) => self.set(&pairs)?,
            Entry::Show => note(&self.shown()?),
            Entry::Save(path) => {
                let line = self.conversation.save(&path)?;
                note(&format!("saved as line {line} of {}", path.display()));
            }
            Entry::Load(path) => {
                let (conversation, place) = Conversation::load(&path)?;
                let n = conversation.messages().len();
                self.conversation = conversation;
                self.is_told = false;
                note(&format!("{n} messages of {place}"));
            }
            Entry::Watch(on) => self.observer.watch = on,
        }
        Ok(())
    }

    /// A message, and its answer. A message that has none is no part of the conversation.
    fn say(&mut self, text: String) -> Result<()> {
        self.conversation.turns.push(Message::user(text));
        self.retries = 0;
        let answered = self.answer_last();
        if !matches!(answered, Ok(true)) {
            self.conversation.turns.pop();
        }
        if !answered? {
            note("the message is taken back");
        }
        Ok(())
    }

    fn retry(&mut self) -> Result<()> {
        let Some(before) = self.conversation.reopen() else {
            return Err(Misuse::of("/retry: nothing was said yet"));
        };
        let was_answered = !before.is_empty();
        self.retries += u64::from(was_answered);
        if self.overrides.temperature <= 0.0 {
            note("every seed gives the same answer: /set temperature 0.7 gives others");
        }
        let answered = self.answer_last();
        if !matches!(answered, Ok(true)) {
            self.conversation.turns.extend(before);
        }
        if !answered? && was_answered {
            note("the answer before it stays");
        }
        Ok(())
    }

    /// Answers the conversation as it is; whether there is an answer.
    fn answer_last(&mut self) -> Result<bool> {
        self.interrupt.store(false, Ordering::Relaxed);
        let Written { parts, cost } = self.write()?;
        let is_stopped = cost.is_stopped;
        self.cost = Some(cost);
        if is_stopped && parts == Parts::default() {
            note("stopped before anything was settled");
            return Ok(false);
        }
        if is_stopped {
            note("stopped");
        }
        self.conversation.add_answer(&parts, is_stopped);
        Ok(true)
    }

    fn set(&mut self, pairs: &[(String, String)]) -> Result<()> {
        let mut settings = self.settings.clone();
        for (name, value) in pairs {
            settings = settings.with(name, value)?;
        }
        let answer = settings.parse()?;
        let mut overrides = checked(&answer)?;
        overrides.end_think = end_think(&answer.sampler.protocol, &self.llada.tokenizer)?;
        self.submit_probe(&overrides)?;
        (self.settings, self.answer, self.overrides) = (settings, answer, overrides);
        self.retries = 0;
        Ok(())
    }

    /// Settings, what the conversation takes of the context, and what the last answer took.
    fn shown(&self) -> Result<String> {
        let limit = self.llada.info().max_sequence_length;
        let turns = self.conversation.turns.len();
        let mut lines = vec![format!("settings: {}", self.settings)];
        if let Some(system) = &self.conversation.system {
            lines.push(format!("system: {system}"));
        }
        if turns > 0 {
            let fit = self.fit()?;
            lines.push(format!(
                "conversation: {turns} messages, {} tokens; with {} of an answer {} of the context of {limit}",
                fit.prompt,
                fit.answer,
                fit.prompt + fit.answer
            ));
        } else {
            lines.push(format!(
                "conversation: empty; the context has {limit} tokens"
            ));
        }
        lines.extend(
            self.cost
                .as_ref()
                .map(|cost| format!("last answer: {cost}")),
        );
        Ok(lines.join("\n"))
    }

    /// Says once that the model is not shown the whole conversation.
    fn tell_what_is_read(&mut self, messages: &[Message]) -> Result<()> {
        if !self.is_told && reads_last_alone(self.template, messages)? {
            self.is_told = true;
            note(
                "note: the chat template of this model writes the last message alone, without \
                 the system's and earlier ones",
            );
        }
        Ok(())
    }
}
