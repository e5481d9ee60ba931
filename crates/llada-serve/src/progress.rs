//! A sequence as a client sees it: what is settled of its text, and what was written at last.

use llada::sample::Output;
use llada::text::Unknown;
use serde_json::{Value, json};

use crate::app::Context;
use crate::engine::Step;
use crate::error::{ApiError, Result, whole};
use crate::model::Model;

/// A sequence on its way.
#[derive(Debug)]
pub(crate) struct Progress {
    app: Context,
    model: usize,
    is_infill: bool,
    /// The answer ends before the first of them.
    stops: Vec<String>,
    canvas: Vec<u32>,
    /// Probability of the token at each position when it was revealed; 1 where it was given.
    confidences: Vec<f32>,
    /// The beginning of the answer that was given out.
    given: String,
    is_stopped: bool,
    /// Tokens of the answer that are settled and no EOS.
    n_settled: usize,
    /// What of an infill the vocabulary lacks, and stays in its text.
    unknown: Vec<Unknown>,
}

/// A sequence that is written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) text: String,
    /// What of the text was not given out before.
    pub(crate) rest: String,
    pub(crate) finish_reason: &'static str,
    /// Tokens before the EOS.
    pub(crate) completion_tokens: usize,
    /// The tokens of the answer, with the EOS that ended it, and `ln p` of each when it was
    /// revealed.
    pub(crate) token_logprobs: Vec<(u32, f64)>,
    pub(crate) output: Output,
}

impl Progress {
    pub(crate) fn new(app: &Context, model: usize, stops: Vec<String>, is_infill: bool) -> Self {
        Self {
            app: Context::clone(app),
            model,
            is_infill,
            stops,
            canvas: Vec::new(),
            confidences: Vec::new(),
            given: String::new(),
            is_stopped: false,
            n_settled: 0,
            unknown: Vec::new(),
        }
    }

    /// What stays in the text of an infill, whatever the model made of it.
    pub(crate) fn keep(&mut self, unknown: Vec<Unknown>) {
        self.unknown = unknown;
    }

    pub(crate) fn model(&self) -> &Model {
        &self.app.models[self.model]
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// The canvas before the first step.
    pub(crate) fn begin(&mut self, canvas: Vec<u32>) {
        self.confidences = vec![1.0; canvas.len()];
        self.canvas = canvas;
    }

    /// Takes a step in, and returns what it has settled of the text.
    pub(crate) fn step(&mut self, step: &Step) -> String {
        for revealed in &step.revealed {
            self.canvas[revealed.position] = revealed.token;
            self.confidences[revealed.position] = revealed.confidence;
        }
        if self.is_stopped || step.settled.is_empty() {
            return String::new();
        }
        let settled = &self.canvas[step.settled.clone()];
        let llada = &self.model().llada;
        let n_settled = llada.up_to_end(settled, self.is_infill).len();
        let (text, is_stopped) = self.cut(llada.settled_text(settled, self.is_infill));
        self.n_settled = n_settled;
        self.is_stopped = is_stopped;
        let held = if is_stopped { 0 } else { self.held(&text) };
        let sure = &text[..text.len() - held];
        self.give(sure)
    }

    /// What of a text is new to the client; nothing if it were to take something back.
    fn give(&mut self, text: &str) -> String {
        let Some(new) = text.strip_prefix(self.given.as_str()) else {
            return String::new();
        };
        let new = new.to_owned();
        self.given.push_str(&new);
        new
    }

    /// The text before the first stop, and whether there is one.
    fn cut(&self, mut text: String) -> (String, bool) {
        let stops = self.stops.iter().filter_map(|stop| text.find(stop));
        match stops.min() {
            Some(at) => {
                text.truncate(at);
                (text, true)
            }
            None => (text, false),
        }
    }

    /// Bytes at the end of a text with which a stop may begin.
    fn held(&self, text: &str) -> usize {
        let begins = |stop: &String| {
            let longest = stop.len().saturating_sub(1).min(text.len());
            let is_begin = |n: &usize| stop.is_char_boundary(*n) && text.ends_with(&stop[..*n]);
            (1..=longest).rev().find(is_begin).unwrap_or(0)
        };
        self.stops.iter().map(begins).max().unwrap_or(0)
    }

    /// What was written at last.
    pub(crate) fn finish(&mut self, output: Output) -> Result<Written> {
        let llada = &self.model().llada;
        let answer = output.answer();
        let tokens = llada.up_to_end(answer, self.is_infill);
        // What a stop has left behind has masks in it.
        let (text, is_stopped) = match self.is_stopped {
            true => (self.given.clone(), true),
            false => {
                let text = llada.text(tokens, &self.unknown);
                let text = text.map_err(|error| ApiError::internal(whole(&error)))?;
                self.cut(text)
            }
        };
        let is_ended = is_stopped || tokens.len() < answer.len();
        let completion_tokens = if self.is_stopped { self.n_settled } else { tokens.len() };
        let confidences = self.confidences.get(output.prompt_len..).unwrap_or(&[]);
        let n_shown = match is_stopped {
            true => completion_tokens,
            false => answer.len().min(completion_tokens + 1),
        };
        let tokens = answer.iter().zip(confidences).take(n_shown);
        let token_logprobs = tokens.map(|(&id, &p)| (id, f64::from(p).ln())).collect();
        let rest = self.give(&text);
        Ok(Written {
            text,
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
        json!({
            "index": index,
            "step": step.step,
            "steps": step.steps,
            "positions": positions.collect::<Vec<_>>(),
            "texts": self.texts(&tokens),
            "tokens": tokens,
            "confidences": confidences.collect::<Vec<_>>(),
        })
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
