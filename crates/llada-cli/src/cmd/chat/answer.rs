//! One answer: the request, whether it fits, and what is shown while it is written.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Result;
use llada::sample::{AnswerLength, Ended, Horizon, Request, Task as TokenTask};
use llada::{Overrides, Prompt, Task};

use super::Chat;
use crate::cmd::ends::{Ends, Writer};
use crate::cmd::jobs::{inner, note_unknown, of_text};
use crate::cmd::observe::of_sampler;
use crate::config::Misuse;
use crate::output::print;
use llada::text::Parts;

/// An answer.
pub(super) struct Written {
    /// Of one that was stopped, what was settled.
    pub(super) parts: Parts,
    pub(super) cost: Cost,
}

/// What an answer took.
pub(super) struct Cost {
    nfe: usize,
    tokens: usize,
    seconds: f64,
    seed: u64,
    pub(super) is_stopped: bool,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            nfe,
            tokens,
            seconds,
            seed,
            is_stopped,
        } = self;
        let stopped = if *is_stopped { ", stopped" } else { "" };
        write!(
            f,
            "a canvas of {tokens} tokens, {nfe} forward passes, {seconds:.2} s, seed {seed}{stopped}"
        )
    }
}

/// Tokens that the conversation and its answer take.
pub(super) struct Fit {
    pub(super) prompt: usize,
    pub(super) answer: usize,
}

impl Chat<'_> {
    /// The task and the request of the conversation as it is.
    fn request(&self) -> Result<(Task<'static>, Request)> {
        let messages = self.conversation.messages();
        let prompt = self.template.render(&messages, true)?;
        let task = Task::generate(prompt).strict(self.answer.sampler.strict);
        let overrides = Overrides {
            seed: self.overrides.seed.wrapping_add(self.retries),
            ..self.overrides.clone()
        };
        let request = self.llada.request(&task, &overrides).map_err(of_text)?;
        Ok((task, request))
    }

    /// What the conversation takes.
    pub(super) fn fit(&self) -> Result<Fit> {
        Ok(self.fit_of(&self.request()?.1))
    }

    fn fit_of(&self, request: &Request) -> Fit {
        let prompt = match &request.task {
            TokenTask::Generate { prompt, .. } => prompt.len(),
            TokenTask::Infill { canvas, .. } => canvas.len(),
        };
        // Without a wish the policy takes what is left of the context: in a conversation that would
        // be shorter with every message, without a word. Of a loop that writes block by block the
        // length is a limit.
        let is_canvas = request.config.horizon == Horizon::Canvas;
        let answer = match (self.overrides.gen_length, self.llada.answer_length) {
            (None, AnswerLength::Tokens(usual)) if is_canvas => usual,
            _ => request.config.gen_length,
        };
        Fit { prompt, answer }
    }

    fn check_fit(&self, request: &Request) -> Result<()> {
        let Fit { prompt, answer } = self.fit_of(request);
        let limit = self.llada.info().max_sequence_length;
        if prompt + answer <= limit {
            return Ok(());
        }
        Err(Misuse::of(format!(
            "the conversation takes {prompt} tokens and its answer {answer}, and the context of the \
             model has {limit}: /undo takes back the last message that was answered, /clear begins a \
             new conversation, /set gen_length N makes the answer shorter"
        )))
    }

    /// That a request with these settings would be taken, whatever its text.
    pub(super) fn submit_probe(&self, overrides: &Overrides) -> Result<()> {
        let task = Task::generate(Prompt::from(vec![self.llada.info().eos_token_id]));
        let request = self.llada.request(&task, overrides).map_err(inner)?;
        let limit = self.llada.info().max_sequence_length;
        if let Some(n) = overrides.gen_length.filter(|&n| n >= limit) {
            return Err(Misuse::of(format!(
                "--gen-length {n}: the context of the model has {limit} tokens, for the conversation \
                 and its answer"
            )));
        }
        let submitted = self.llada.session().submit(request);
        submitted.map(|_| ()).map_err(of_sampler)
    }

    /// Writes the answer to the conversation, to standard output.
    pub(super) fn write(&mut self) -> Result<Written> {
        let (task, request) = self.request()?;
        self.check_fit(&request)?;
        let messages = self.conversation.messages();
        self.tell_what_is_read(&messages)?;
        let unknown = self.llada.encode(&task).map_err(inner)?.unknown.into_iter();
        let unknown: BTreeSet<String> = unknown.map(|unknown| unknown.text).collect();
        note_unknown(&unknown, "");
        let (tokens, seed) = (request.config.gen_length, request.config.seed);
        let llada = self.llada;
        let ends = Ends::of(llada, &request, &self.answer.stop, true);
        let mut session = llada.session();
        session.submit(request.clone()).map_err(of_sampler)?;
        let start = Instant::now();
        let is_watched = self.observer.watch;
        let (mut settled, mut writer) = (Parts::default(), Writer::of_stdout());
        let (mut failure, mut is_interrupted) = (None, false);
        let output = loop {
            let ended = session.step(&mut |event| {
                let mut flow = self.observer.step(event);
                let told = ends.settled(llada, &event.canvas[event.settled.clone()]);
                let told = told.and_then(|parts| {
                    settled = parts;
                    match is_watched {
                        true => Ok(()),
                        false => print_rest(&settled, &mut writer),
                    }
                });
                if let Err(error) = told {
                    failure = Some(error);
                    flow = ControlFlow::Break(());
                }
                is_interrupted = self.interrupt.load(Ordering::Relaxed);
                match is_interrupted || ends.is_reached(llada, &request, event) {
                    true => ControlFlow::Break(()),
                    false => flow,
                }
            });
            if let Some(Ended { result, .. }) = ended.into_iter().next() {
                break result;
            }
        };
        let seconds = start.elapsed() - self.observer.take_paused();
        self.observer.erase();
        self.observer.places[0] += 1;
        if let Some(error) = failure {
            return Err(error);
        }
        let output = output.map_err(of_sampler)?;
        let cost = Cost {
            nfe: output.nfe,
            tokens,
            seconds: seconds.as_secs_f64(),
            seed,
            is_stopped: output.stopped && is_interrupted,
        };
        let parts = match cost.is_stopped {
            true => settled,
            false => {
                let text = ends.text(llada, output.answer())?;
                if !is_watched {
                    print_rest(&ends.streamed(&text), &mut writer)?;
                }
                ends.parts(&text)
            }
        };
        if is_watched {
            print_rest(&parts, &mut writer)?;
        }
        if !(cost.is_stopped && parts == Parts::default()) {
            print("\n")?;
        }
        Ok(Written { parts, cost })
    }
}

/// Prints what an answer has after what was printed.
fn print_rest(parts: &Parts, writer: &mut Writer) -> Result<()> {
    let rest = writer.rest(parts);
    match rest.is_empty() {
        true => Ok(()),
        false => print(&rest),
    }
}
