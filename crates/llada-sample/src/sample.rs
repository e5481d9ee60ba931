//! The sampling loop.

use std::ops::ControlFlow;

use llada_diffusion::MaskPredictor;

use crate::evaluate::evaluate;
use crate::run::Run;
use crate::{Output, Request, Result};

/// A token that a step has put in the place of a mask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Revealed {
    /// Its place in the canvas.
    pub position: usize,
    /// The token.
    pub token: u32,
    /// Its probability under the noise-free logits.
    pub confidence: f32,
}

/// What happened to one request in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepEvent<'a> {
    /// Index of the request.
    pub request: usize,
    /// Step of this request, from 0.
    pub step: usize,
    /// All its steps.
    pub steps: usize,
    /// Block, from 0, among those with masks.
    pub block: usize,
    /// All its blocks.
    pub blocks: usize,
    /// Masks left in the canvas after this step.
    pub masked: usize,
    /// Tokens that this step has revealed, by position.
    pub revealed: &'a [Revealed],
    /// The canvas after this step.
    pub canvas: &'a [u32],
}

/// Samples all requests, each as if it were alone.
///
/// Every step shows the predictor all masks before the end of the current block, takes the best
/// token for each (Gumbel noise at a positive temperature), and keeps some of them: as many as
/// [`crate::Process`] says, those that [`crate::Remasking`] ranks highest. The others stay masked.
/// Requests of any lengths and settings go through the steps together, in one ragged batch for
/// each set of (temperature, guidance, suppressed ids); one that is done leaves the batch.
///
/// `observer` sees every step of every request; [`ControlFlow::Break`] stops that request, and the
/// others go on.
///
/// # Errors
/// If a request can't be run (all are checked before the first step), the predictor fails, or a
/// confidence is not a number.
///
/// Source: `generate` in the reference's generate.py; arXiv 2502.09992, algorithms 4 and 5.
pub fn sample(
    predictor: &dyn MaskPredictor,
    requests: &[Request],
    observer: &mut dyn FnMut(&StepEvent<'_>) -> ControlFlow<()>,
) -> Result<Vec<Output>> {
    let info = predictor.info();
    let start = |(index, request)| Run::new(index, request, &info);
    let mut runs = requests
        .iter()
        .enumerate()
        .map(start)
        .collect::<Result<Vec<_>>>()?;
    loop {
        let mut active: Vec<&mut Run<'_>> = runs.iter_mut().filter(|run| !run.is_done()).collect();
        if active.is_empty() {
            break;
        }
        for run in &mut active {
            run.choose_positions()?;
        }
        evaluate(predictor, &mut active)?; // candidates: [positions] of each run
        for run in active {
            run.reveal()?;
            let flow = observer(&run.event());
            run.advance();
            if flow.is_break() {
                run.stop();
            }
        }
    }
    Ok(runs.into_iter().map(Run::into_output).collect())
}
