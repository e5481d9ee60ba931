//! Calls of the predictor: runs that follow the same rule share a batch.

use llada_diffusion::{Cached, Error, KvCache, MaskPredictor, Noise, RowPlan, TokenBatch};
use llada_tensor::ops::candidates::CandidateRule;

use crate::run::Run;
use crate::{Draws, Result, SampleConfig};

/// What runs must have in common to share a call.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rule<'a> {
    temperature: f64,
    cfg_scale: f32,
    suppress_mask: bool,
    logits_eos_inf: &'a [u32],
    confidence_eos_eot_inf: &'a [u32],
    is_recorded: bool,
    is_cached: bool,
}

impl<'a> Rule<'a> {
    fn of(run: &Run<'a>) -> Self {
        let config: &'a SampleConfig = &run.request.config;
        Self {
            temperature: config.temperature,
            cfg_scale: config.cfg_scale,
            suppress_mask: config.suppress_mask,
            logits_eos_inf: &config.logits_eos_inf,
            confidence_eos_eot_inf: &config.confidence_eos_eot_inf,
            is_recorded: matches!(run.request.draws, Draws::Recorded(_)),
            is_cached: config.uses_plans(),
        }
    }
}

/// Sets the candidates of all runs' positions. Runs without positions are left out.
pub(crate) fn evaluate<'a>(predictor: &dyn MaskPredictor, runs: &mut [&mut Run<'a>]) -> Result<()> {
    let mut waiting: Vec<&mut Run<'a>> = Vec::with_capacity(runs.len());
    for run in runs.iter_mut() {
        run.candidates.clear();
        if !run.positions.is_empty() {
            waiting.push(run);
        }
    }
    while let Some(rule) = waiting.first().map(|run| Rule::of(run)) {
        let (mut group, rest) = waiting.into_iter().partition(|run| Rule::of(run) == rule);
        evaluate_group(predictor, &rule, &mut group)?;
        waiting = rest;
    }
    Ok(())
}

/// One call of the predictor.
fn evaluate_group(
    predictor: &dyn MaskPredictor,
    rule: &Rule<'_>,
    runs: &mut Vec<&mut Run<'_>>,
) -> Result<()> {
    let info = predictor.info();
    let canvases: Vec<&[u32]> = runs.iter().map(|run| run.canvas.as_slice()).collect();
    let batch = TokenBatch::new(&canvases)?;
    let unconditional = if rule.cfg_scale > 0.0 {
        let canvases: Vec<Vec<u32>> = runs.iter().map(|run| run.unconditional()).collect();
        Some(TokenBatch::new(&canvases)?)
    } else {
        None
    };
    let positions: Vec<usize> = (runs.iter().zip(batch.offsets()))
        .flat_map(|(run, start)| run.positions.iter().map(move |position| start + position))
        .collect();

    let mut suppress = rule.logits_eos_inf.to_vec();
    suppress.extend(rule.suppress_mask.then_some(info.mask_token_id));
    let candidate_rule = CandidateRule {
        temperature: rule.temperature,
        cfg_scale: rule.cfg_scale,
        suppress: &suppress,
        suppress_confidence: rule.confidence_eos_eot_inf,
    };
    let draws = GumbelDraws::new(rule, runs, info.vocab_size);
    let noise = draws.noise(rule);
    let candidates = if rule.is_cached {
        let plans: Vec<RowPlan> = runs.iter().map(|run| run.plan.clone()).collect();
        let mut caches: Vec<&mut KvCache> = runs.iter_mut().map(|run| &mut run.cache).collect();
        let cached = Cached {
            plans: &plans,
            caches: &mut caches,
        };
        predictor.candidates_cached(&batch, cached, &positions, &candidate_rule, &noise)?
    } else {
        let unconditional = unconditional.as_ref();
        predictor.candidates(&batch, unconditional, &positions, &candidate_rule, &noise)?
    };

    let (expected, got) = (positions.len(), candidates.len());
    if expected != got {
        return Err(Error::LengthMismatch {
            what: "candidates",
            expected,
            got,
        }
        .into());
    }
    let mut candidates = candidates.into_iter();
    for run in runs {
        run.candidates
            .extend(candidates.by_ref().take(run.positions.len()));
    }
    Ok(())
}

/// What the Gumbel noise of each position is drawn from.
#[derive(Debug, Default)]
struct GumbelDraws {
    seeds: Vec<u64>,
    keys: Vec<[u32; 3]>,
    recorded: Vec<f64>,
}

impl GumbelDraws {
    fn new(rule: &Rule<'_>, runs: &[&mut Run<'_>], vocab_size: usize) -> Self {
        let mut draws = Self::default();
        if rule.temperature <= 0.0 {
            return draws;
        }
        for run in runs {
            let key = run.key();
            for &position in &run.positions {
                match &run.request.draws {
                    Draws::Philox => {
                        let position = u32::try_from(position).unwrap_or(u32::MAX);
                        draws.seeds.push(key.seed);
                        draws.keys.push([key.sequence, position, key.step]);
                    }
                    Draws::Recorded(recorded) => {
                        let row = recorded.gumbel(key.step as usize, position, vocab_size);
                        draws.recorded.extend_from_slice(row);
                    }
                }
            }
        }
        draws
    }

    fn noise(&self, rule: &Rule<'_>) -> Noise<'_> {
        if rule.temperature <= 0.0 {
            Noise::None
        } else if rule.is_recorded {
            Noise::Recorded(&self.recorded)
        } else {
            Noise::Philox {
                seeds: &self.seeds,
                keys: &self.keys,
            }
        }
    }
}
