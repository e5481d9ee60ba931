//! Calls of the predictor: runs that follow the same rule share a batch.

use llada_diffusion::{Cached, Error, KvCache, MaskPredictor, Noise, RowPlan, TokenBatch};
use llada_tensor::backend::{DenoisingStep, RemaskRule};
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
        if !run.positions.is_empty() && !run.take_ahead() {
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
    if evaluate_ahead(predictor, &batch, &positions, rule, &candidate_rule, runs)? {
        return Ok(());
    }
    let draws = GumbelDraws::new(rule, runs, info.vocab_size, 0);
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

    expect_candidates(positions.len(), candidates.len())?;
    let mut candidates = candidates.into_iter();
    for run in runs {
        run.candidates
            .extend(candidates.by_ref().take(run.positions.len()));
    }
    Ok(())
}

/// The same for several steps at once, if the predictor gains from it and they are known; whether
/// that was so.
fn evaluate_ahead(
    predictor: &dyn MaskPredictor,
    batch: &TokenBatch,
    positions: &[usize],
    rule: &Rule<'_>,
    candidate_rule: &CandidateRule<'_>,
    runs: &mut [&mut Run<'_>],
) -> Result<bool> {
    let most = predictor.steps_at_once();
    if most < 2 {
        return Ok(false);
    }
    let rules: Vec<Vec<RemaskRule>> = runs.iter().map(|run| run.rules_ahead(most)).collect();
    let n_steps = rules.iter().map(Vec::len).min().unwrap_or(0);
    if n_steps < 2 {
        return Ok(false);
    }
    let vocab_size = predictor.info().vocab_size;
    let draws: Vec<GumbelDraws> = (0..n_steps)
        .map(|step| GumbelDraws::new(rule, runs, vocab_size, step))
        .collect();
    let remask: Vec<Vec<RemaskRule>> = (0..n_steps)
        .map(|step| rules.iter().map(|of_run| of_run[step]).collect())
        .collect();
    let steps: Vec<DenoisingStep<'_>> = (draws.iter().zip(&remask))
        .map(|(draws, remask)| DenoisingStep {
            noise: draws.noise(rule),
            remask,
        })
        .collect();
    let candidates = predictor.candidates_ahead(batch, positions, candidate_rule, &steps)?;
    let got = candidates.iter().map(Vec::len).sum();
    expect_candidates(n_steps * positions.len(), got)?;
    let mut start = 0;
    for run in runs {
        let rows = start..start + run.positions.len();
        start = rows.end;
        run.set_ahead(
            candidates
                .iter()
                .map(|all| all[rows.clone()].to_vec())
                .collect(),
        );
        run.take_ahead();
    }
    Ok(true)
}

fn expect_candidates(expected: usize, got: usize) -> Result<()> {
    let what = "candidates";
    match expected == got {
        true => Ok(()),
        false => Err(Error::LengthMismatch {
            what,
            expected,
            got,
        }
        .into()),
    }
}

/// What the Gumbel noise of each position is drawn from.
#[derive(Debug, Default)]
struct GumbelDraws {
    seeds: Vec<u64>,
    keys: Vec<[u32; 3]>,
    recorded: Vec<f64>,
}

impl GumbelDraws {
    /// The draws of the step that comes `ahead` steps after this one.
    fn new(rule: &Rule<'_>, runs: &[&mut Run<'_>], vocab_size: usize, ahead: usize) -> Self {
        let mut draws = Self::default();
        if rule.temperature <= 0.0 {
            return draws;
        }
        for run in runs {
            let key = run.key(ahead);
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
