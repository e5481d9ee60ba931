//! Questions to the predictor: runs that choose tokens in the same way share a call.

use std::sync::Arc;

use llada_diffusion::{
    Branch, Cached, Candidates, Choice, Error, Guidance, KvCache, MaskPredictor, Noise, Query,
    RowPlan, TokenBatch, TokenSet,
};

use crate::ahead::{self, ComingSteps};
use crate::request::OnHost;
use crate::run::Run;
use crate::{Draws, Request, Result, speculate};

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
    let mut failed = Vec::new();
    for run in runs {
        run.candidates.clear();
        if run.positions.is_empty() {
            continue;
        }
        if let Some(candidates) = run.ahead.take(&run.positions) {
            run.candidates = candidates;
            continue;
        }
        match speculate::take(run) {
            Ok(true) => {}
            Ok(false) => waiting.push(run),
            Err(error) => failed.push((run.index, error)),
        }
    }
    while let Some(rule) = waiting.first().map(|run| run.rule.clone()) {
        let (mut group, rest): (Vec<_>, _) = waiting.into_iter().partition(|run| run.rule == rule);
        waiting = rest;
        let guesses = group.iter_mut().map(|run| speculate::guesses(run));
        let guesses: Vec<Vec<Run>> = guesses.collect();
        let is_alone = group.len() == 1 && guesses[0].is_empty();
        match ask(predictor, &rule, &mut group, guesses) {
            Err(error) if is_alone => failed.push((group[0].index, error)),
            // One of them is the reason, or a guess: it fails alone.
            Err(_) => {
                for run in group {
                    if let Err(error) = ask(predictor, &rule, &mut [&mut *run], vec![Vec::new()]) {
                        failed.push((run.index, error));
                    }
                }
            }
            Ok(()) => {}
        }
    }
    failed
}

/// One call of the predictor, with guesses of coming steps of each run.
fn ask(
    predictor: &dyn MaskPredictor,
    rule: &Rule,
    runs: &mut [&mut Run],
    mut guesses: Vec<Vec<Run>>,
) -> Result<()> {
    let info = runs[0].info;
    let steps_at_once = match rule.on_host {
        Some(_) => 1,
        None => info.steps_at_once,
    };
    let coming = ComingSteps::new(rule, runs, steps_at_once);
    let coming_steps = coming.steps(rule);
    if !coming_steps.is_empty() {
        guesses.iter_mut().for_each(Vec::clear);
    }
    let asked = Asked::new(rule, &sequences(runs, &guesses))?;
    let choice = Choice {
        temperature: rule.temperature,
        suppress: &asked.suppress,
        suppress_confidence: &rule.confidence_eos_eot_inf,
        noise: asked.draws.noise(rule),
        ahead: &coming_steps,
    };
    let owners = guesses.iter().enumerate();
    let mut branches: Vec<Branch> = owners
        .flat_map(|(run, guesses)| guesses.iter().map(move |_| Branch::of(run)))
        .collect();
    let mut caches: Vec<&mut KvCache> = runs.iter_mut().map(|run| &mut run.cache).collect();
    let query = Query {
        guidance: asked.unconditional.as_ref().map(|unconditional| Guidance {
            unconditional,
            cfg_scale: rule.cfg_scale,
        }),
        cached: rule.is_cached.then_some(Cached {
            plans: &asked.plans,
            caches: &mut caches,
            branches: &mut branches,
        }),
        ..Query::new(&asked.batch, &asked.positions)
    };
    let (n, vocab_size) = (asked.positions.len(), info.vocab_size);
    let mut logits = Vec::new();
    let candidates = match &rule.on_host {
        None => predictor.candidates(query, &choice)?,
        Some(host) => {
            logits = predictor.logits(query)?;
            expect_length("logits", n * vocab_size, logits.len())?;
            boost(&sequences(runs, &guesses), &mut logits);
            let choose = match host.is_tempered {
                true => Choice::among_tempered,
                false => Choice::among,
            };
            Candidates::from(choose(&choice, &host.nucleus, &asked.sets, &logits)?)
        }
    };

    for step in std::iter::once(&candidates.now).chain(&candidates.ahead) {
        expect_length("candidates", n, step.len())?;
    }
    let (mut now, mut start) = (candidates.now.into_iter(), 0);
    for run in runs.iter_mut() {
        run.candidates
            .extend(now.by_ref().take(run.positions.len()));
        if rule.on_host.is_some_and(|host| host.keeps_logits) {
            let n = run.positions.len() * vocab_size;
            run.logits = logits[start..start + n].to_vec();
            start += n;
        }
        speculate::evaluated(run);
    }
    let mut branches = branches
        .into_iter()
        .map(|rows| rule.is_cached.then_some(rows));
    for (run, guesses) in runs.iter_mut().zip(&guesses) {
        for guess in guesses {
            let candidates = now.by_ref().take(guess.positions.len()).collect();
            speculate::keep(run, guess, candidates, branches.next().flatten());
        }
    }
    if !candidates.ahead.is_empty() {
        ahead::keep(runs, &candidates.ahead);
    }
    Ok(())
}

/// The sequences of a call: the runs, then the guesses of each.
fn sequences<'a>(runs: &'a [&mut Run], guesses: &'a [Vec<Run>]) -> Vec<&'a Run> {
    let runs = runs.iter().map(|run| &**run);
    runs.chain(guesses.iter().flatten()).collect()
}

/// What a call is told of its sequences.
struct Asked {
    batch: TokenBatch,
    unconditional: Option<TokenBatch>,
    positions: Vec<usize>,
    plans: Vec<RowPlan>,
    suppress: Vec<u32>,
    draws: GumbelDraws,
    /// `[N]`: the tokens that may be chosen at each position.
    sets: Vec<Option<Arc<TokenSet>>>,
}

impl Asked {
    fn new(rule: &Rule, runs: &[&Run]) -> Result<Self> {
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
        let mut suppress = rule.logits_eos_inf.clone();
        suppress.extend(rule.suppress_mask.then_some(info.mask_token_id));
        Ok(Self {
            batch,
            unconditional,
            positions,
            plans: match rule.is_cached {
                true => runs.iter().map(|run| run.plan.clone()).collect(),
                false => Vec::new(),
            },
            suppress,
            draws: GumbelDraws::new(rule, runs, 0),
            sets: allowed(runs),
        })
    }
}

/// Raises single logits `[N, V]`, as runs ask for it.
fn boost(runs: &[&Run], logits: &mut [f32]) {
    let mut start = 0;
    for run in runs {
        if let Some((row, token, boost)) = run.boost() {
            logits[(start + row) * run.info.vocab_size + token as usize] += boost;
        }
        start += run.positions.len();
    }
}

/// `[N]`: the tokens that may be chosen at each position of the runs.
fn allowed(runs: &[&Run]) -> Vec<Option<Arc<TokenSet>>> {
    let at = |run: &&Run| {
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
    pub(crate) fn new(rule: &Rule, runs: &[&Run], ahead: usize) -> Self {
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
