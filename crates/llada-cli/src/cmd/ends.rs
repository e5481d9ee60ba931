//! Where an answer ends, and what of it is reasoning.

use std::io::IsTerminal as _;

use anyhow::Result;
use console::style;
use llada::Llada;
use llada::sample::{Horizon, Request, StepEvent, Task};
use llada::text::{AnswerForm, Marked, Parts, Reasoning};

/// What is looked for in an answer, by the model that writes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends<'a>(AnswerForm<'a>);

impl<'a> Ends<'a> {
    /// Those of the answer to a request; `is_chat`: one that may hold reasoning.
    pub(super) fn of(llada: &Llada, request: &Request, stops: &'a [String], is_chat: bool) -> Self {
        let reasoning = match &request.task {
            Task::Generate { prompt, .. } if is_chat => Reasoning::of(&llada.tokenizer, prompt),
            _ => None,
        };
        Self(AnswerForm { stops, reasoning })
    }

    /// Whether a stop has come up: at the end of a block, with special tokens written out, as iLLaDA's
    /// reference looks for it. What a block has left open may still change where later blocks see it.
    pub(super) fn is_reached(
        &self,
        llada: &Llada,
        request: &Request,
        event: &StepEvent<'_>,
    ) -> bool {
        if self.0.stops.is_empty() || !event.ends_block {
            return false;
        }
        let start = event.settled.start;
        let end = match request.config.horizon {
            Horizon::Canvas => event.settled.end,
            Horizon::Block | Horizon::AlignedBlock => event.window.end,
        };
        let written = Marked::of(&llada.tokenizer, &event.canvas[start..end.max(start)]);
        written.is_ok_and(|mut written| written.end_before(self.0.stops))
    }

    /// The text of an answer's tokens up to its end.
    pub(super) fn text(&self, llada: &Llada, answer: &[u32]) -> Result<Marked> {
        let ids = llada.up_to_end(answer, false);
        let mut text = self.0.marked(&llada.tokenizer, ids)?;
        text.end_before(self.0.stops);
        Ok(text)
    }

    /// The parts of a whole answer.
    pub(super) fn parts(&self, text: &Marked) -> Parts {
        self.0.parts(text)
    }

    /// The parts of what is settled, of which nothing is taken back.
    pub(super) fn settled(&self, llada: &Llada, settled: &[u32]) -> Result<Parts> {
        let mut text = self.text(llada, settled)?.of_whole_characters();
        self.0.hold(&mut text);
        Ok(self.streamed(&text))
    }

    /// The parts of an answer of which [`Self::settled`] was shown.
    pub(super) fn streamed(&self, text: &Marked) -> Parts {
        self.0.streamed(text)
    }
}

/// Writes the parts of an answer so that a person or a program sees which is which: in a terminal
/// reasoning is dim, elsewhere its marks are written out.
#[derive(Debug, Default)]
pub(super) struct Writer {
    is_terminal: bool,
    written: Parts,
}

impl Writer {
    /// For standard output.
    pub(super) fn of_stdout() -> Self {
        Self {
            is_terminal: std::io::stdout().is_terminal(),
            written: Parts::default(),
        }
    }

    /// What there is to write of an answer after what was written; nothing, if it were to take
    /// something back.
    pub(super) fn rest(&mut self, parts: &Parts) -> String {
        let mut rest = String::new();
        let new = parts.reasoning.strip_prefix(&*self.written.reasoning);
        if let Some(new) = new.filter(|new| !new.is_empty()) {
            if self.written.reasoning.is_empty() && !self.is_terminal {
                rest.push_str(Reasoning::BEGIN);
            }
            rest.push_str(&self.dim(new));
            self.written.reasoning.push_str(new);
        }
        let new = parts.content.strip_prefix(&*self.written.content);
        if let Some(new) = new.filter(|new| !new.is_empty()) {
            if self.written.content.is_empty() && !self.written.reasoning.is_empty() {
                rest.push_str(if self.is_terminal { "" } else { Reasoning::END });
                rest.push_str("\n\n");
            }
            rest.push_str(new);
            self.written.content.push_str(new);
        }
        rest
    }

    fn dim(&self, text: &str) -> String {
        match self.is_terminal {
            true => style(text).dim().to_string(),
            false => text.to_owned(),
        }
    }
}
