//! Sampling from an autoregressive model, the baseline of the paper: a token a step, each from
//! those before it.

use std::ops::{ControlFlow, Range};

use llada_diffusion::{
    Cached, Candidate, Error as DiffusionError, KvCache, MaskPredictor, Noise, PredictorInfo,
    RowPlan, TokenBatch,
};
use llada_tensor::ops::candidates::CandidateRule;

use crate::run::canvas;
use crate::{
    CacheMode, Draws, Error, Output, Process, RefreshPolicy, Remasking, Request, Result, Revealed,
    StepEvent, Task,
};

/// Continues all prompts, each as if it were alone, with a predictor whose attention is causal and
/// whose output at a position is about the token after it.
///
/// A step adds the best token (Gumbel noise at a positive temperature) to every request.
/// [`CacheMode::Prefix`] keeps keys and values: one call for the prompt, then one of a single
/// position for each token, with the result of [`CacheMode::None`], which computes everything anew.
/// Steps and blocks are not read. Draws are keyed by seed, sequence, position and step.
///
/// # Errors
/// [`Error::NotAutoregressive`] for what only a masked diffusion model can do, [`Error::OutOfRange`]
/// without a prompt; otherwise as [`crate::sample`].
pub fn sample_autoregressive(
    predictor: &dyn MaskPredictor,
    requests: &[Request],
    observer: &mut dyn FnMut(&StepEvent<'_>) -> ControlFlow<()>,
) -> Result<Vec<Output>> {
    let info = predictor.info();
    let start = |(index, request)| Run::new(index, request, &info);
    let runs = requests.iter().enumerate().map(start);
    let mut runs = runs.collect::<Result<Vec<_>>>()?;
    loop {
        let mut active: Vec<&mut Run<'_>> = runs.iter_mut().filter(|run| !run.is_done()).collect();
        if active.is_empty() {
            break;
        }
        while let Some(first) = active.first() {
            let shared = first.request;
            let (mut group, rest) = active
                .into_iter()
                .partition::<Vec<_>, _>(|run| has_same_rule(run.request, shared));
            active = rest;
            let candidates = evaluate(predictor, &mut group, &info)?;
            for (run, candidate) in group.into_iter().zip(candidates) {
                let revealed = run.push(candidate, info.eos_token_id)?;
                run.stopped = observer(&run.event(&[revealed])).is_break() && !run.is_done();
            }
        }
    }
    Ok(runs.into_iter().map(Run::into_output).collect())
}

/// Whether two requests can share a call of the predictor.
fn has_same_rule(a: &Request, b: &Request) -> bool {
    let of = |request: &Request| {
        let config = &request.config;
        (config.temperature, config.suppress_mask, config.cache)
    };
    of(a) == of(b) && a.config.logits_eos_inf == b.config.logits_eos_inf
}

/// The next token of each run.
fn evaluate(
    predictor: &dyn MaskPredictor,
    runs: &mut [&mut Run<'_>],
    info: &PredictorInfo,
) -> Result<Vec<Candidate>> {
    let config = &runs[0].request.config;
    let is_cached = config.cache == CacheMode::Prefix;
    let mut suppress = config.logits_eos_inf.clone();
    suppress.extend(config.suppress_mask.then_some(info.mask_token_id));
    let rule = CandidateRule {
        temperature: config.temperature,
        cfg_scale: 0.0,
        suppress: &suppress,
        suppress_confidence: &[],
    };
    let (seeds, keys): (Vec<u64>, Vec<[u32; 3]>) = runs.iter().map(|run| run.draw()).unzip();
    let noise = if config.temperature > 0.0 {
        Noise::Philox {
            seeds: &seeds,
            keys: &keys,
        }
    } else {
        Noise::None
    };
    let seen = |run: &&mut Run<'_>| match is_cached {
        true => run.canvas.clone(), // a cache is as long as what is to come
        false => run.canvas[..run.next].to_vec(),
    };
    let batch = TokenBatch::new(&runs.iter().map(seen).collect::<Vec<_>>())?;
    let last = |(run, start): (&&mut Run<'_>, &usize)| start + run.next - 1;
    let positions: Vec<usize> = runs.iter().zip(batch.offsets()).map(last).collect();
    let plans: Vec<RowPlan> = runs.iter().map(|run| run.plan(is_cached)).collect();
    for (run, plan) in runs.iter_mut().zip(&plans) {
        run.rows += plan.n_rows();
    }
    let candidates = if is_cached {
        let mut caches: Vec<&mut KvCache> = runs.iter_mut().map(|run| &mut run.cache).collect();
        let cached = Cached {
            plans: &plans,
            caches: &mut caches,
        };
        predictor.candidates_cached(&batch, cached, &positions, &rule, &noise)?
    } else {
        predictor.candidates(&batch, None, &positions, &rule, &noise)?
    };
    let (expected, got) = (positions.len(), candidates.len());
    if expected != got {
        let what = "candidates";
        return Err(DiffusionError::LengthMismatch {
            what,
            expected,
            got,
        }
        .into());
    }
    Ok(candidates)
}

/// A request that is being continued.
struct Run<'a> {
    request: &'a Request,
    index: usize,
    /// Prompt and answer; masks stand for what is to come.
    canvas: Vec<u32>,
    answer: Range<usize>,
    /// Place of the next token.
    next: usize,
    cache: KvCache,
    rows: usize,
    steps: usize,
    /// An EOS ended the answer.
    ended: bool,
    stopped: bool,
}

impl<'a> Run<'a> {
    fn new(index: usize, request: &'a Request, info: &PredictorInfo) -> Result<Self> {
        request.config.check(index)?;
        if let Some(what) = diffusion_only(request) {
            let request = index;
            return Err(Error::NotAutoregressive { request, what });
        }
        let (canvas, answer) = canvas(index, request, info)?;
        for (what, length) in [("the prompt", answer.start), ("gen_length", answer.len())] {
            if length == 0 {
                return Err(Error::OutOfRange {
                    request: index,
                    what,
                    expected: "at least 1 token",
                    got: 0.0,
                });
            }
        }
        Ok(Self {
            request,
            index,
            canvas,
            next: answer.start,
            answer,
            cache: KvCache::default(),
            rows: 0,
            steps: 0,
            ended: false,
            stopped: false,
        })
    }

    fn is_done(&self) -> bool {
        self.stopped || self.ended || self.next == self.answer.end
    }

    /// Seed and key of the noise on the next token.
    fn draw(&self) -> (u64, [u32; 3]) {
        let [position, step] =
            [self.next, self.steps].map(|x| u32::try_from(x).unwrap_or(u32::MAX));
        let seed = self.request.config.seed;
        (seed, [self.request.sequence, position, step])
    }

    /// All that is known, or what no call has computed yet.
    fn plan(&self, is_cached: bool) -> RowPlan {
        let first = if is_cached && self.steps > 0 {
            self.next - 1
        } else {
            0
        };
        RowPlan::window(first..self.next, self.next)
    }

    /// Adds a token.
    fn push(&mut self, candidate: Candidate, eos_token_id: u32) -> Result<Revealed> {
        let (position, token) = (self.next, candidate.token);
        if candidate.confidence.is_nan() {
            return Err(Error::NotANumber {
                request: self.index,
                position,
                step: self.steps,
            });
        }
        self.canvas[position] = token;
        self.next += 1;
        self.steps += 1;
        if self.request.config.early_stop && token == eos_token_id {
            self.canvas[self.next..].fill(eos_token_id);
            self.ended = true;
        }
        Ok(Revealed {
            position,
            token,
            confidence: candidate.confidence,
        })
    }

    fn event<'e>(&'e self, revealed: &'e [Revealed]) -> StepEvent<'e> {
        StepEvent {
            request: self.index,
            step: self.steps - 1,
            steps: self.answer.len(),
            block: 0,
            blocks: 1,
            masked: match self.ended {
                true => 0,
                false => self.answer.end - self.next,
            },
            revealed,
            canvas: &self.canvas,
        }
    }

    fn into_output(self) -> Output {
        Output {
            tokens: self.canvas,
            prompt_len: self.answer.start,
            suffix_len: 0,
            nfe: self.steps,
            rows: self.rows,
            steps: self.steps,
            saved_steps: if self.ended {
                self.answer.end - self.next
            } else {
                0
            },
            stopped: self.stopped,
        }
    }
}

/// What a request asks for that an autoregressive model cannot do.
fn diffusion_only(request: &Request) -> Option<&'static str> {
    let config = &request.config;
    let (is_infill, has_suffix, has_constraints) = match &request.task {
        Task::Infill { .. } => (true, false, false),
        Task::Generate {
            suffix,
            constraints,
            ..
        } => (false, !suffix.is_empty(), !constraints.is_empty()),
    };
    let is_cache_known = matches!(config.cache, CacheMode::None | CacheMode::Prefix);
    let checks = [
        ("infilling", is_infill),
        ("a suffix", has_suffix),
        ("constraints", has_constraints),
        ("cfg_scale", config.cfg_scale > 0.0),
        ("remasking", config.remasking != Remasking::LowConfidence),
        ("parallel decoding", config.process != Process::Quota),
        ("a dual or activity cache", !is_cache_known),
        (
            "a window or an interval of a cache",
            config.refresh != RefreshPolicy::default(),
        ),
        (
            "confidence_eos_eot_inf",
            !config.confidence_eos_eot_inf.is_empty(),
        ),
        ("a recording of draws", request.draws != Draws::Philox),
    ];
    let found = checks.into_iter().find(|(_, is_asked)| *is_asked);
    found.map(|(what, _)| what)
}
