//! A session: requests that join and leave while the sampler works.

use std::ops::{ControlFlow, Range};

use llada_diffusion::{MaskPredictor, PredictorInfo};

use crate::evaluate::evaluate;
use crate::prefixes::Prefixes;
use crate::run::Run;
use crate::{Error, Output, Request, Result};

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

/// What a step has done to a token that was written before, or between two of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Edit {
    /// Another token took its place.
    Replaced {
        /// Its place in the canvas after the step.
        position: usize,
        /// The token before.
        old: u32,
        /// The token after; the mask, if it was predicted.
        new: u32,
        /// Its probability under the noise-free logits.
        confidence: f32,
    },
    /// It was dropped: what followed it in the block moved one place to the front.
    Deleted {
        /// Its place in the canvas before the step.
        position: usize,
        /// The token, or the mask.
        old: u32,
    },
    /// A mask was put in: what follows it in the block moved one place to the back.
    Inserted {
        /// The place of the mask in the canvas after the step.
        position: usize,
    },
}

/// What happened to one request in one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepEvent<'a> {
    /// Number of the request, from 0 in the order of submission.
    pub request: usize,
    /// Step of this request, from 0.
    pub step: usize,
    /// All its steps. Where confidences say how many tokens a step reveals: one for each mask, and
    /// fewer or, if the mask itself wins, more may be taken.
    pub steps: usize,
    /// Block, from 0, among those with masks.
    pub block: usize,
    /// All its blocks.
    pub blocks: usize,
    /// Masks left in the canvas after this step.
    pub masked: usize,
    /// Where in the canvas the answer (of an infill the text) is settled: from its start to its
    /// first mask, and where tokens are edited no further than to the end of the last block that
    /// is finished. No later step changes it.
    pub settled: Range<usize>,
    /// Tokens that this step has revealed, by position after the step.
    pub revealed: &'a [Revealed],
    /// What it has changed besides, of a process that edits what it has written.
    pub edits: &'a [Edit],
    /// The block, as places in the canvas. What edits change lies in it, so that a copy of the
    /// canvas is up to date when what is revealed was written into it and this part was copied.
    pub window: Range<usize>,
    /// Whether this was the last step of the block.
    pub ends_block: bool,
    /// The canvas after this step.
    pub canvas: &'a [u32],
}

/// Is told every step of every request; [`ControlFlow::Break`] stops that request.
pub type Observer<'a> = dyn FnMut(&StepEvent<'_>) -> ControlFlow<()> + 'a;

/// The end of a request.
#[derive(Debug)]
pub struct Ended {
    /// Number of the request.
    pub request: usize,
    /// What was written, or why it failed.
    pub result: Result<Output>,
}

/// Requests that are sampled together, each as if it were alone.
///
/// Every step shows the predictor all masks before the end of the current block, takes the best
/// token for each (Gumbel noise at a positive temperature), and keeps some of them: as many as
/// [`crate::Process`] says, those that [`crate::Remasking`] ranks highest. The others stay masked.
/// [`crate::Process::Editing`] and its like also change what they have written of the block.
/// Requests of any lengths and settings go through the steps together, in one ragged batch for
/// each set of (temperature, guidance, cache or none, suppressed ids). They may be submitted and
/// cancelled between any two steps: the bits of a request depend on nothing but the request.
///
/// An autoregressive predictor adds a token a step after the prompt. [`crate::CacheMode::Prefix`]
/// then keeps keys and values: one call for the prompt, then one of a single position for each
/// token, with the result of [`crate::CacheMode::None`]. Steps and blocks are not read.
///
/// Source: `generate` in the reference's generate.py; arXiv 2502.09992, algorithms 4 and 5.
pub struct Session<'p> {
    predictor: &'p dyn MaskPredictor,
    info: PredictorInfo,
    /// In the order of submission.
    runs: Vec<Run>,
    /// Requests that were submitted so far.
    submitted: usize,
    prefixes: Prefixes,
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("runs", &self.runs)
            .finish_non_exhaustive()
    }
}

impl<'p> Session<'p> {
    /// A session without requests.
    #[must_use]
    pub fn new(predictor: &'p dyn MaskPredictor) -> Self {
        Self {
            predictor,
            info: predictor.info(),
            runs: Vec::new(),
            submitted: 0,
            prefixes: Prefixes::default(),
        }
    }

    /// Keeps the keys and values of requests that have ended, `bytes` of them at most and those that
    /// were used least recently leaving first: of a prompt that begins with tokens of one of them
    /// only the rest is computed, with the same result ([`Output::rows`] says how much it was).
    ///
    /// Of causal models alone, whose keys and values depend on nothing that comes after them; of those
    /// that are causal by blocks for requests with [`crate::Horizon::AlignedBlock`], in whole blocks.
    #[must_use]
    pub fn keeping_prefixes(mut self, bytes: usize) -> Self {
        self.prefixes.limit = bytes;
        self
    }

    /// Adds a request, which takes part from the next step on, and returns its number.
    /// [`Request::memory`] says what it will take.
    ///
    /// # Errors
    /// If it can't be run: a setting, a token or its length is out of range,
    /// [`Error::NotAutoregressive`] for what only a masked diffusion model can do. The others are
    /// not touched, and the number is not used.
    pub fn submit(&mut self, request: Request) -> Result<usize> {
        let mut run = Run::new(self.submitted, request, &self.info)?;
        if run.has_final_cache()
            && let Some(cache) =
                (self.prefixes).of(run.reusable(), run.final_block(), run.canvas.len())?
        {
            run.begin_with(cache);
        }
        self.runs.push(run);
        self.submitted += 1;
        Ok(self.submitted - 1)
    }

    /// Takes a request out, with the canvas as it is; `None` if it has ended before.
    pub fn cancel(&mut self, request: usize) -> Option<Output> {
        let at = self.runs.iter().position(|run| run.index == request)?;
        let mut run = self.runs.remove(at);
        run.stop();
        Some(run.into_output())
    }

    /// Requests that have not ended.
    #[must_use]
    pub fn n_requests(&self) -> usize {
        self.runs.len()
    }

    /// One step of every request, and those that it ended, in the order of submission. A request
    /// whose confidence is not a number, or at which the predictor fails, ends alone.
    pub fn step(&mut self, observer: &mut Observer<'_>) -> Vec<Ended> {
        let ends = |run: Run, result: Result<()>| Ended {
            request: run.index,
            result: result.map(|()| run.into_output()),
        };
        // Where all tokens of an answer are fixed there is nothing to do.
        let (done, mut active): (Vec<Run>, Vec<Run>) = std::mem::take(&mut self.runs)
            .into_iter()
            .partition(Run::is_done);
        let mut ended: Vec<Ended> = done.into_iter().map(|run| ends(run, Ok(()))).collect();
        let mut failed: Vec<(usize, Error)> = Vec::new();
        for run in &mut active {
            if let Err(error) = run.choose_positions() {
                failed.push((run.index, error));
            }
        }
        failed.extend(evaluate(self.predictor, &mut active));
        for mut run in active {
            let failure = failed.iter().position(|(index, _)| *index == run.index);
            let revealed = match failure {
                Some(at) => Err(failed.swap_remove(at).1),
                None => run.reveal(), // candidates: [positions]
            };
            if revealed.is_err() {
                ended.push(ends(run, revealed));
                continue;
            }
            let flow = observer(&run.event());
            run.advance();
            if flow.is_break() {
                run.stop();
            }
            match run.is_done() {
                true => {
                    if run.has_final_cache() {
                        let cache = std::mem::take(&mut run.cache);
                        self.prefixes.keep(run.final_tokens(&cache), cache);
                    }
                    ended.push(ends(run, Ok(())));
                }
                false => self.runs.push(run),
            }
        }
        ended.sort_by_key(|ended| ended.request);
        ended
    }
}

/// Samples all requests, each as if it were alone: a [`Session`] from its first step to its last.
///
/// # Errors
/// If a request can't be run (all are checked before the first step), the predictor fails, or a
/// confidence is not a number.
pub fn sample(
    predictor: &dyn MaskPredictor,
    requests: &[Request],
    observer: &mut Observer<'_>,
) -> Result<Vec<Output>> {
    let mut session = Session::new(predictor);
    for request in requests {
        session.submit(request.clone())?;
    }
    let mut outputs: Vec<Option<Output>> = vec![None; requests.len()];
    while session.n_requests() > 0 {
        for Ended { request, result } in session.step(observer) {
            outputs[request] = Some(result?);
        }
    }
    Ok(outputs.into_iter().flatten().collect())
}
