//! Look-ahead: the candidates of several steps from one call, for predictors that gain from it.
//!
//! As long as quotas say how many tokens stay, a device can remask by itself and go on to the next
//! step. The sampler then goes through the same steps with the candidates that came back, so that
//! rules, observers and errors are in one place.

use std::collections::VecDeque;

use llada_diffusion::{Candidate, DenoisingStep, Keep, RankBy, RemaskRule};

use crate::evaluate::{GumbelDraws, Rule};
use crate::run::Run;
use crate::{Draws, Process, Remasking};

/// Candidates of the coming steps of a run.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// `[N]`, ascending.
    positions: Vec<usize>,
    /// `[N]` each.
    steps: VecDeque<Vec<Candidate>>,
}

impl Ahead {
    /// The candidates of the next step for `positions`, if they were computed. Positions of a
    /// block only become fewer.
    pub(crate) fn take(&mut self, positions: &[usize]) -> Option<Vec<Candidate>> {
        let mut all = self.positions.iter().zip(self.steps.pop_front()?);
        let mut find = |at: &usize| all.find(|(position, _)| *position == at).map(|(_, c)| c);
        positions.iter().map(&mut find).collect()
    }
}

/// This step and those after it, as far as all runs of a call know them.
pub(crate) struct ComingSteps {
    draws: Vec<GumbelDraws>,
    /// `[B]` each.
    remask: Vec<Vec<RemaskRule>>,
}

impl ComingSteps {
    /// `most` steps at most; none if there is nothing to gain.
    pub(crate) fn new(rule: &Rule, runs: &[&mut Run], most: usize) -> Self {
        let rules: Vec<Vec<RemaskRule>> = match most > 1 {
            true => runs.iter().map(|run| remask_rules(run, most)).collect(),
            false => Vec::new(),
        };
        let n_steps = rules.iter().map(Vec::len).min().unwrap_or(0);
        let n_steps = if n_steps > 1 { n_steps } else { 0 };
        let of_step = |step| rules.iter().map(|of_run| of_run[step]).collect();
        let runs: Vec<&Run> = runs.iter().map(|run| &**run).collect();
        Self {
            draws: (0..n_steps)
                .map(|step| GumbelDraws::new(rule, &runs, step))
                .collect(),
            remask: (0..n_steps).map(of_step).collect(),
        }
    }

    /// As a predictor is told them.
    pub(crate) fn steps(&self, rule: &Rule) -> Vec<DenoisingStep<'_>> {
        (self.draws.iter().zip(&self.remask))
            .map(|(draws, remask)| DenoisingStep {
                noise: draws.noise(rule),
                remask,
            })
            .collect()
    }
}

/// How each of the coming steps of a run remasks, this one first, as far as that is known before
/// anything is predicted.
fn remask_rules(run: &Run, most: usize) -> Vec<RemaskRule> {
    let config = &run.request.config;
    let rank_by = match config.remasking {
        Remasking::LowConfidence => RankBy::Confidence,
        Remasking::Margin => RankBy::Margin,
        Remasking::Entropy => RankBy::Entropy,
        Remasking::Random | Remasking::RunningConfidence => return Vec::new(),
    };
    let draws_ahead = config.temperature <= 0.0 || run.request.draws == Draws::Philox;
    let is_known = matches!(config.process, Process::Quota | Process::BlockQuota)
        && config.margin_exit.is_none();
    let is_plain = config.cfg_scale <= 0.0 && !config.uses_plans() && !run.info.shifts_logits;
    if !is_known || !draws_ahead || !is_plain {
        return Vec::new();
    }
    let rule = |quota| RemaskRule {
        rows: run.positions.len(),
        rank_by,
        keep: Keep::Quota(u32::try_from(quota).unwrap_or(u32::MAX)),
    };
    run.quotas_ahead()
        .take_while(|&quota| quota > 0)
        .take(most)
        .map(rule)
        .collect()
}

/// Keeps the candidates of the steps after this one, `[N]` each over the positions of all runs.
pub(crate) fn keep(runs: &mut [&mut Run], steps: &[Vec<Candidate>]) {
    let mut start = 0;
    for run in runs {
        let rows = start..start + run.positions.len();
        start = rows.end;
        run.ahead = Ahead {
            positions: run.positions.clone(),
            steps: steps.iter().map(|all| all[rows.clone()].to_vec()).collect(),
        };
    }
}
