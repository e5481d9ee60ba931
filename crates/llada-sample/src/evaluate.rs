//! Questions to the predictor: runs that choose tokens in the same way share a call.

use std::sync::Arc;

use llada_diffusion::{
    Cached, Candidates, Choice, Error, Guidance, KvCache, MaskPredictor, Noise, Query, RowPlan,
    TokenBatch, TokenSet,
};

use crate::ahead::{self, ComingSteps};
use crate::request::OnHost;
use crate::run::Run;
use crate::{Draws, Request, Result};

/// What runs must have in common to share a call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    temperature: f64,
    /// How the host chooses; `None`: the predictor does.
    on_host: Option<OnHost>,
    cfg_scale: f32,
    suppress_mask: bool,
    logits_eos_inf: Vec<u32>,
    confidence_eos_eot_inf: Vec<u32>,
    is_recorded: bool,
    is_cached: bool,
}

impl Rule {
    pub(crate) fn new(request: &Request) -> Self {
        let config = &request.config;
        Self {
            temperature: config.temperature,
            on_host: request.on_host(),
            cfg_scale: config.cfg_scale,
            suppress_mask: config.suppress_mask,
            logits_eos_inf: config.logits_eos_inf.clone(),
            confidence_eos_eot_inf: config.confidence_eos_eot_inf.clone(),
            is_recorded: matches!(request.draws, Draws::Recorded(_)),
            is_cached: config.uses_plans(),
        }
    }
}

/// Sets the candidates of all runs' positions, or the error of each run that fails. Runs without
/// positions need no call.
pub(crate) fn evaluate(
    predictor: &dyn MaskPredictor,
    runs: &mut [Run],
) -> Vec<(usize, crate::Error)> {
    let mut waiting: Vec<&mut Run> = Vec::new();
    for run in runs {
        run.candidates.clear();
        if run.positions.is_empty() {
            continue;
        }
        match run.ahead.take(&run.positions) {
            Some(candidates) => run.candidates = candidates,
            None => waiting.push(run),
        }
    }
    let mut failed = Vec::new();
    while let Some(rule) = waiting.first().map(|run| run.rule.clone()) {
        let (mut group, rest): (Vec<_>, _) = waiting.into_iter().partition(|run| run.rule == rule);
        waiting = rest;
        match ask(predictor, &rule, &mut group) {
            Err(error) if group.len() == 1 => failed.push((group[0].index, error)),
            // One of them is the reason: it fails alone.
            Err(_) => {
                for run in group {
                    if let Err(error) = ask(predictor, &rule, &mut [&mut *run]) {
                        failed.push((run.index, error));
                    }
                }
            }
            Ok(()) => {}
        }
    }
    failed
}

/// One call of the predictor.
fn ask(predictor: &dyn MaskPredictor, rule: &Rule, runs: &mut [&mut Run]) -> Result<()> {
    let info = runs[0].info;
    let batch = TokenBatch::new(&runs.iter().map(|run| run.seen()).collect::<Vec<_>>())?;
    let unconditional = match rule.cfg_scale > 0.0 {
        true => {
            let canvases: Vec<Vec<u32>> = runs.iter().map(|run| run.unconditional()).collect();
            Some(TokenBatch::new(&canvases)?)
        }
        false => None,
    };
    let positions: Vec<usize> = (runs.iter().zip(batch.offsets()))
        .flat_map(|(run, start)| {
            let positions = run.positions.iter();
            positions.map(move |&position| start + info.position_of(position))
        })
        .collect();
    let plans: Vec<RowPlan> = match rule.is_cached {
        true => runs.iter().map(|run| run.plan.clone()).collect(),
        false => Vec::new(),
    };

    let mut suppress = rule.logits_eos_inf.clone();
    suppress.extend(rule.suppress_mask.then_some(info.mask_token_id));
    let draws = GumbelDraws::new(rule, runs, 0);
    let steps_at_once = match rule.on_host {
        Some(_) => 1,
        None => info.steps_at_once,
    };
    let coming = ComingSteps::new(rule, runs, steps_at_once);
    let choice = Choice {
        temperature: rule.temperature,
        suppress: &suppress,
        suppress_confidence: &rule.confidence_eos_eot_inf,
        noise: draws.noise(rule),
        ahead: &coming.steps(rule),
    };
    let sets = allowed(runs);
    let mut caches: Vec<&mut KvCache> = runs.iter_mut().map(|run| &mut run.cache).collect();
    let query = Query {
        guidance: unconditional.as_ref().map(|unconditional| Guidance {
            unconditional,
            cfg_scale: rule.cfg_scale,
        }),
        cached: rule.is_cached.then_some(Cached {
            plans: &plans,
            caches: &mut caches,
        }),
        ..Query::new(&batch, &positions)
    };
    let mut logits = Vec::new();
    let candidates = match &rule.on_host {
        None => predictor.candidates(query, &choice)?,
        Some(host) => {
            logits = predictor.logits(query)?;
            expect_length("logits", positions.len() * info.vocab_size, logits.len())?;
            boost(runs, &mut logits);
            let choose = match host.is_tempered {
                true => Choice::among_tempered,
                false => Choice::among,
            };
            Candidates::from(choose(&choice, &host.nucleus, &sets, &logits)?)
        }
    };

    for step in std::iter::once(&candidates.now).chain(&candidates.ahead) {
        expect_length("candidates", positions.len(), step.len())?;
    }
    let (mut now, mut start) = (candidates.now.into_iter(), 0);
    for run in runs.iter_mut() {
        run.candidates
            .extend(now.by_ref().take(run.positions.len()));
        if rule.on_host.is_some_and(|host| host.keeps_logits) {
            let n = run.positions.len() * info.vocab_size;
            run.logits = logits[start..start + n].to_vec();
            start += n;
        }
    }
    if !candidates.ahead.is_empty() {
        ahead::keep(runs, &candidates.ahead);
    }
    Ok(())
}

/// Raises single logits `[N, V]`, as runs ask for it.
fn boost(runs: &[&mut Run], logits: &mut [f32]) {
    let mut start = 0;
    for run in runs {
        if let Some((row, token, boost)) = run.boost() {
            logits[(start + row) * run.info.vocab_size + token as usize] += boost;
        }
        start += run.positions.len();
    }
}

/// `[N]`: the tokens that may be chosen at each position of the runs.
fn allowed(runs: &[&mut Run]) -> Vec<Option<Arc<TokenSet>>> {
    let at = |run: &&mut Run| {
        let sets = run.positions.iter();
        let sets = sets.map(|position| run.request.allowed.get(position).cloned());
        sets.collect::<Vec<_>>()
    };
    runs.iter().flat_map(at).collect()
}

fn expect_length(what: &'static str, expected: usize, got: usize) -> Result<()> {
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
pub(crate) struct GumbelDraws {
    seeds: Vec<u64>,
    keys: Vec<[u32; 3]>,
    recorded: Vec<f64>,
}

impl GumbelDraws {
    /// The draws of the step that comes `ahead` steps after this one.
    pub(crate) fn new(rule: &Rule, runs: &[&mut Run], ahead: usize) -> Self {
        let mut draws = Self::default();
        if rule.temperature <= 0.0 {
            return draws;
        }
        for run in runs {
            let (key, vocab_size) = (run.key(ahead), run.info.vocab_size);
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

    pub(crate) fn noise(&self, rule: &Rule) -> Noise<'_> {
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
