//! What is asked of the sampler and what comes back.

use crate::{Draws, SampleConfig};

/// One sequence to sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What to fill in.
    pub task: Task,
    /// How.
    pub config: SampleConfig,
    /// Which of several samples of one text and seed this is; 0 if there is one. Draws depend on
    /// it, and not on the request's place among others.
    pub sequence: u32,
    /// Where random numbers come from.
    pub draws: Draws,
}

/// What to fill in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// An answer of `gen_length` tokens after the prompt. As in the reference, masks in the prompt
    /// compete with those of the answer, and some can stay.
    Generate {
        /// The given tokens.
        prompt: Vec<u32>,
        /// Given tokens that follow the answer; usually none.
        suffix: Vec<u32>,
        /// Tokens that are fixed within the answer: offsets from its start, and ids; usually none.
        /// Of two for one place the later counts. They are given: guidance hides them.
        constraints: Vec<(usize, u32)>,
    },
    /// The masks of a text, wherever they are.
    Infill {
        /// The text.
        canvas: Vec<u32>,
        /// Given tokens that follow the text and are no part of it; usually none.
        suffix: Vec<u32>,
    },
}

impl Request {
    /// Asks for an answer to a prompt.
    #[must_use]
    pub fn generate(prompt: Vec<u32>, config: SampleConfig) -> Self {
        Self {
            task: Task::Generate {
                prompt,
                suffix: Vec::new(),
                constraints: Vec::new(),
            },
            config,
            sequence: 0,
            draws: Draws::Philox,
        }
    }

    /// Asks for the masks of a text.
    #[must_use]
    pub fn infill(canvas: Vec<u32>, config: SampleConfig) -> Self {
        Self {
            task: Task::Infill {
                canvas,
                suffix: Vec::new(),
            },
            config,
            sequence: 0,
            draws: Draws::Philox,
        }
    }
}

/// A sampled sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The whole canvas: prompt, answer and suffix, or the text that was filled in.
    pub tokens: Vec<u32>,
    /// Length of the prompt; 0 for an infill.
    pub prompt_len: usize,
    /// Length of the suffix.
    pub suffix_len: usize,
    /// How often the predictor saw this sequence. Steps that reveal nothing need no call; guided
    /// calls count once, as in the reference.
    pub nfe: usize,
    /// Positions that all calls have computed; a guided call computes each twice. What a cache or a
    /// suffix window leaves out is not counted.
    pub rows: usize,
    /// Steps that were run.
    pub steps: usize,
    /// Steps that were left when an EOS ended the answer early; 0 where the number of steps is not
    /// fixed ([`crate::Process::Threshold`] and its like).
    pub saved_steps: usize,
    /// Whether an observer stopped the request before its last step.
    pub stopped: bool,
}

impl Output {
    /// The tokens between prompt and suffix; of an infill the text.
    #[must_use]
    pub fn answer(&self) -> &[u32] {
        &self.tokens[self.prompt_len..self.tokens.len() - self.suffix_len]
    }
}
