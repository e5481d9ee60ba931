//! What a model can do, in figures with standard errors: the paper's experiments, reversal and
//! scaling, and likelihood and generation tasks, for a LLaDA and for its autoregressive twin.
//!
//! A model is a [`Subject`]: a [`llada_diffusion::MaskPredictor`] with its tokenizer. Every
//! evaluation tells an observer how far it is, which can end it; what was done by then counts.
#![forbid(unsafe_code)]

mod agreement;
mod error;
mod lines;
mod plot;
mod reversal;
mod scaling;
mod statistics;
mod subject;
mod tasks;
mod tune;

use std::ops::ControlFlow;

pub use agreement::{Agreement, Answers, answer};
pub use error::{Error, Result};
pub use plot::{reversal_svg, scaling_svg, tradeoff_svg};
pub use reversal::{Couplet, Recall, choose_first_lines, read_couplets, recall};
pub use scaling::{Bound, BoundConfig, ScalingPoint, held_out_bound, read_documents};
pub use statistics::{Figure, Gap};
pub use subject::Subject;
pub use tasks::{
    ChoiceTask, Chosen, GenerationConfig, GenerationTask, Generations, Written, choose,
    read_choices, read_generations,
};
pub use tune::{
    Bars, Measured, Recommended, Setting, Tried, Tuner, caches, combinations, drawn_lines,
    recommend, rules, settings,
};

/// Is told how many of how many items are done; [`ControlFlow::Break`] ends the evaluation.
pub type Observer<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// Items that are evaluated together.
const BATCH: usize = 32;
