//! A sequence as a client sees it: what is settled of its text, and what was written at last.

use llada::sample::{Edit, Output};
use llada::text::{AnswerForm, Marked, Parts, Reasoning, Unknown};
use serde_json::{Value, json};

use crate::app::Context;
use crate::edits::edits_json;
use crate::engine::{Event, Step};
use crate::error::{ApiError, Result, whole};
use crate::model::Model;
use crate::moves::move_with;
use crate::parts::Events;

/// A sequence on its way.
#[derive(Debug)]
pub(crate) struct Progress {
    app: Context,
    model: usize,
    is_infill: bool,
    /// The answer ends before the first of them.
    stops: Vec<String>,
    /// How reasoning is told from the rest; `None`: all is one text.
    reasoning: Option<Reasoning>,
    canvas: Vec<u32>,
    /// Probability of the token at each position when it was revealed; 1 where it was given.
    confidences: Vec<f32>,
    /// The beginning of the answer that was given out.
    given: Parts,
    /// The answer before a stop that was settled.
    stopped: Option<Marked>,
    /// Tokens of the answer that are settled and no EOS.
    n_settled: usize,
    /// What of an infill the vocabulary lacks, and stays in its text.
    unknown: Vec<Unknown>,
}

/// A sequence that is written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) parts: Parts,
    /// What was not given out before.
    pub(crate) rest: Parts,
    pub(crate) finish_reason: &'static str,
    /// Tokens before the EOS.
    pub(crate) completion_tokens: usize,
    /// The tokens of the answer, with the EOS that ended it, and `ln p` of each when it was
    /// revealed.
    pub(crate) token_logprobs: Vec<(u32, f64)>,
    pub(crate) output: Output,
}

impl Written {
    /// What the model reasoned before it answered.
    pub(crate) fn reasoning(&self) -> Option<&str> {
        let reasoning = self.parts.reasoning.as_str();
        (!reasoning.is_empty()).then_some(reasoning)
    }
}

impl Progress {
    pub(crate) fn new(app: &Context, model: usize, stops: Vec<String>, is_infill: bool) -> Self {
        Self {
            app: Context::clone(app),
            model,
            is_infill,
            stops,
            reasoning: None,
            canvas: Vec::new(),
            confidences: Vec::new(),
            given: Parts::default(),
            stopped: None,
            n_settled: 0,
            unknown: Vec::new(),
        }
    }

    /// Tells reasoning from the rest.
    pub(crate) fn telling(self, reasoning: Option<Reasoning>) -> Self {
        Self { reasoning, ..self }
    }

    /// What stays in the text of an infill, whatever the model made of it.
    pub(crate) fn keep(&mut self, unknown: Vec<Unknown>) {
        self.unknown = unknown;
    }

    pub(crate) fn model(&self) -> &Model {
        &self.app.models[self.model]
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// The canvas before the first step.
    pub(crate) fn begin(&mut self, canvas: Vec<u32>) {
        self.confidences = vec![1.0; canvas.len()];
        self.canvas = canvas;
    }

    /// Takes a step in, and returns what it has settled of the text.
    pub(crate) fn step(&mut self, step: &Step) -> Parts {
        self.take(step);
        if self.is_stopped() || step.settled.is_empty() {
            return Parts::default();
        }
        let settled = &self.canvas[step.settled.clone()];
        let tokens = self.model().llada.up_to_end(settled, self.is_infill);
        let n_settled = tokens.len();
        let mut text = self
            .marked(tokens)
            .unwrap_or_default()
            .of_whole_characters();
        self.n_settled = n_settled;
        if text.end_before(&self.stops) {
            self.stopped = Some(text.clone());
        } else {
            self.form().hold(&mut text);
        }
        self.give(&self.form().streamed(&text))
    }

    /// Brings the canvas and the confidences to where the step has left them.
    fn take(&mut self, step: &Step) {
        if !step.edits.is_empty() {
            let window = step.window.clone();
            let confidences = &mut self.confidences[window.clone()];
            move_with(confidences, window.start, &step.edits, 1.0);
            self.canvas[window].copy_from_slice(&step.block);
        }
        for edit in &step.edits {
            if let Edit::Replaced {
                position,
                confidence,
                ..
            } = *edit
            {
                self.confidences[position] = confidence;
            }
        }
        for revealed in &step.revealed {
            self.canvas[revealed.position] = revealed.token;
            self.confidences[revealed.position] = revealed.confidence;
        }
    }

    /// What is looked for in the text.
    fn form(&self) -> AnswerForm<'_> {
        AnswerForm {
            stops: &self.stops,
            reasoning: self.reasoning,
        }
    }

    fn marked(&self, tokens: &[u32]) -> Result<Marked> {
        let text = self.form().marked(&self.model().llada.tokenizer, tokens);
        text.map_err(|error| ApiError::internal(whole(&error)))
    }

    /// What of a text is new to the client; nothing if it were to take something back.
    fn give(&mut self, parts: &Parts) -> Parts {
        let give = |given: &mut String, text: &str| match text.strip_prefix(given.as_str()) {
            Some(new) => {
                let new = new.to_owned();
                given.push_str(&new);
                new
            }
            None => String::new(),
        };
        Parts {
            reasoning: give(&mut self.given.reasoning, &parts.reasoning),
            content: give(&mut self.given.content, &parts.content),
        }
    }

    /// What was written at last.
    pub(crate) fn finish(&mut self, output: Output) -> Result<Written> {
        let llada = &self.model().llada;
        let answer = output.answer();
        let tokens = llada.up_to_end(answer, self.is_infill);
        // What a stop has left behind has masks in it.
        let (text, is_stopped) = match &self.stopped {
            Some(text) => (text.clone(), true),
            None => {
                let mut text = match self.is_infill {
                    true => {
                        let text = llada.text(tokens, &self.unknown);
                        Marked::plain(text.map_err(|error| ApiError::internal(whole(&error)))?)
                    }
                    false => self.marked(tokens)?,
                };
                let is_stopped = text.end_before(&self.stops);
                (text, is_stopped)
            }
        };
        let is_ended = is_stopped || tokens.len() < answer.len();
        let completion_tokens = match self.stopped {
            Some(_) => self.n_settled,
            None => tokens.len(),
        };
        let confidences = self.confidences.get(output.prompt_len..).unwrap_or(&[]);
        let n_shown = match is_stopped {
            true => completion_tokens,
            false => answer.len().min(completion_tokens + 1),
        };
        let tokens = answer.iter().zip(confidences).take(n_shown);
        let token_logprobs = tokens.map(|(&id, &p)| (id, f64::from(p).ln())).collect();
        let rest = self.give(&self.form().streamed(&text));
        Ok(Written {
            parts: self.form().parts(&text),
            rest,
            finish_reason: if is_ended { "stop" } else { "length" },
            completion_tokens,
            token_logprobs,
            output,
        })
    }

    /// The canvas before the first step, as an event of a stream.
    pub(crate) fn canvas_event(&self, index: usize, steps: usize) -> Value {
        let mask = self.model().info().mask_token_id;
        let is_mask = |&(_, &id): &(usize, &u32)| id == mask;
        let masked = self.canvas.iter().enumerate().filter(is_mask);
        let masked: Vec<usize> = masked.map(|(at, _)| at).collect();
        json!({
            "index": index,
            "prompt_tokens": if self.is_infill { 0 } else { masked.first().copied().unwrap_or(self.canvas.len()) },
            "tokens": self.canvas,
            "texts": self.texts(&self.canvas),
            "masked": masked,
            "steps": steps,
        })
    }

    /// A step as an event of a stream.
    pub(crate) fn denoise_event(&self, index: usize, step: &Step) -> Value {
        let of = |revealed: &llada::sample::Revealed| revealed.token;
        let tokens: Vec<u32> = step.revealed.iter().map(of).collect();
        let positions = step.revealed.iter().map(|revealed| revealed.position);
        let confidences = step.revealed.iter().map(|revealed| revealed.confidence);
        let mut event = json!({
            "index": index,
            "step": step.step,
            "steps": step.steps,
            "positions": positions.collect::<Vec<_>>(),
            "texts": self.texts(&tokens),
            "tokens": tokens,
            "confidences": confidences.collect::<Vec<_>>(),
        });
        if !step.edits.is_empty() {
            let text = |id| self.texts(&[id]).concat();
            event["edits"] = json!(edits_json(&step.edits, text));
            event["window"] = json!([step.window.start, step.window.end]);
        }
        event
    }

    /// The text of each token, □ for a mask.
    fn texts(&self, ids: &[u32]) -> Vec<String> {
        let (llada, mask) = (&self.model().llada, self.model().info().mask_token_id);
        let text = |&id: &u32| match id == mask {
            true => "□".to_owned(),
            false => llada.tokenizer.decode(&[id], false).unwrap_or_default(),
        };
        ids.iter().map(text).collect()
    }
}

/// What was written of all sequences, in their order; each ends where a stop is settled.
pub(crate) async fn all_written(
    events: &mut Events,
    progress: &mut [Progress],
) -> Result<Vec<Written>> {
    let mut written: Vec<Option<Written>> = progress.iter().map(|_| None).collect();
    while written.iter().any(Option::is_none) {
        match events.next().await? {
            (at, Event::Begun { canvas, .. }) => progress[at].begin(canvas),
            (at, Event::Step(step)) => {
                progress[at].step(&step);
                if progress[at].is_stopped() {
                    events.stop(at);
                }
            }
            (at, Event::Written(output)) => written[at] = Some(progress[at].finish(*output)?),
            _ => {}
        }
    }
    Ok(written.into_iter().flatten().collect())
}
