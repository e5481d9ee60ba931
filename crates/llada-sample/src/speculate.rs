//! Speculation that changes nothing: a call computes guesses of coming canvases beside the true one,
//! and a step whose canvas was guessed needs no call.
//!
//! Why every text, event and trace is that of a run without guesses: what a step reveals is a
//! function of its candidates, and these are a function of
//!
//! 1. what the request fixes (temperature, seeds, sets, what is suppressed),
//! 2. the canvas, the block and the step, which say what is drawn and what is boosted,
//! 3. which positions are computed, seen and asked for,
//! 4. and what the cache holds of seen positions that are not computed
//!
//! alone: the bits of a sequence depend on no other sequence of its batch. A guess is used only where
//! 2 and 3 are equal, and where the same steps have computed what 4 names ([`Speculation::stamps`]).
//! Its keys and values then go into the cache, which therefore holds what the call would have left.
//! So by induction over the steps the two runs are in the same state after each of them, by
//! whatever process and rule, at any temperature; how good the guesses are says only how many calls
//! are left out.
//!
//! A guess is what the rule makes of the last candidates if it is given them again: the run itself
//! takes a step with them, on a copy ([`Run::guess`]). What was guessed in vain stays as long as it
//! can still come true, since tokens may come in another order than was guessed.
//!
//! Drafts from a step's own candidates, verified together, are those of `FreeDave` (arXiv 2510.00294).

use llada_diffusion::{Branch, Candidate, PredictorInfo, RowPlan};

use crate::run::Run;
use crate::{Error, Process, Result, SampleConfig};

/// Guesses of a call, at most.
const MAX_GUESSES: usize = 64;

/// How often a step reveals what its draft ranks first, second and third: of 400 steps of the poem
/// model.
const CHANCES: [f32; 3] = [0.66, 0.13, 0.07];

/// What a run knows of coming steps by guessing them.
#[derive(Debug, Default)]
pub(crate) struct Speculation {
    guesses: Vec<Evaluated>,
    /// The last candidates, and their positions, ascending.
    drafts: Vec<(usize, Candidate)>,
    /// `[L]`: the step, from 1, that has computed the keys and values of a position; 0 for none.
    stamps: Vec<usize>,
    /// Whether the candidates of this step were guessed.
    pub(crate) is_guessed: bool,
    /// Guesses that were computed.
    pub(crate) made: usize,
    /// Steps that were guessed: calls that were left out.
    pub(crate) right: usize,
    /// Positions that guesses have computed.
    pub(crate) rows: usize,
}

/// What the candidates of a step depend on.
#[derive(Debug, PartialEq)]
struct State {
    step: usize,
    block: usize,
    canvas: Vec<u32>,
    plan: RowPlan,
    positions: Vec<usize>,
    /// Of all keys that are not rows: when they were computed.
    stamps: Vec<usize>,
}

impl State {
    fn of(run: &Run) -> Self {
        Self {
            step: run.step(),
            block: run.block(),
            canvas: run.canvas.clone(),
            plan: run.plan.clone(),
            positions: run.positions.clone(),
            stamps: stamps_of(&run.speculation.stamps, &run.plan),
        }
    }

    /// Whether it may be one of a coming step.
    fn may_follow(&self, run: &Run) -> bool {
        let mut pairs = self.canvas.iter().zip(&run.canvas);
        let is_token = |id: u32| id != run.info.mask_token_id;
        self.step > run.step() && pairs.all(|(&guess, &id)| guess == id || !is_token(id))
    }
}

/// A guess and what its call has said of it.
#[derive(Debug)]
struct Evaluated {
    state: State,
    candidates: Vec<Candidate>,
    /// With a cache: its keys and values.
    rows: Option<Branch>,
}

impl Speculation {
    /// Of a canvas of so many tokens, if there is one.
    pub(crate) fn new(config: &SampleConfig, length: usize) -> Self {
        let length = if config.speculate > 0 { length } else { 0 };
        Self {
            stamps: vec![0; length],
            ..Self::default()
        }
    }

    /// As a copy of the run has it that takes steps ahead.
    pub(crate) fn of_guess(&self) -> Self {
        Self {
            stamps: self.stamps.clone(),
            ..Self::default()
        }
    }

    /// Notes which step computes the rows of a plan; where the output is about the next token, the
    /// position before them is computed too.
    pub(crate) fn stamp(&mut self, plan: &RowPlan, step: usize, info: &PredictorInfo) {
        for rows in &plan.rows {
            self.stamps[info.position_of(rows.start)..rows.end].fill(step + 1);
        }
    }
}

/// Of the keys of a plan that are not its rows.
fn stamps_of(stamps: &[usize], plan: &RowPlan) -> Vec<usize> {
    let is_row = |at: &usize| plan.rows.iter().any(|range| range.contains(at));
    let keys = plan.keys.iter().cloned().flatten();
    let others = keys.filter(|at| !is_row(at));
    others.map(|at| stamps[at]).collect()
}

/// Checks the setting.
pub(crate) fn check(request: usize, config: &SampleConfig) -> Result<()> {
    if config.speculate > MAX_GUESSES {
        return Err(Error::OutOfRange {
            request,
            what: "speculate",
            expected: "at most 64",
            got: config.speculate as f64,
        });
    }
    match config.process {
        // It looks at the logits of a step again.
        Process::Rewriting { .. } if config.speculate > 0 => Err(Error::NotForProcess {
            request,
            what: "speculate",
            process: config.process.name(),
        }),
        _ => Ok(()),
    }
}

/// Gives a run the candidates of its step, if they were guessed.
///
/// # Errors
/// If the runtime fails.
pub(crate) fn take(run: &mut Run) -> Result<bool> {
    run.speculation.is_guessed = false;
    if run.speculation.guesses.is_empty() {
        return Ok(false);
    }
    let state = State::of(run);
    let guesses = &mut run.speculation.guesses;
    let Some(at) = guesses.iter().position(|guess| guess.state == state) else {
        return Ok(false);
    };
    let guess = guesses.swap_remove(at);
    if let Some(rows) = &guess.rows {
        run.cache.adopt(rows)?;
    }
    run.candidates = guess.candidates;
    run.speculation.is_guessed = true;
    run.speculation.right += 1;
    evaluated(run);
    Ok(true)
}

/// Notes that the candidates of a step are there.
pub(crate) fn evaluated(run: &mut Run) {
    if run.request.config.speculate > 0 {
        let (step, pairs) = (run.step(), run.positions.iter().copied());
        run.speculation.drafts = pairs.zip(run.candidates.iter().copied()).collect();
        run.speculation.stamp(&run.plan, step, &run.info);
    }
}

/// Keeps what a call has said of a guess.
pub(crate) fn keep(run: &mut Run, guess: &Run, candidates: Vec<Candidate>, rows: Option<Branch>) {
    let is_guided = run.request.config.cfg_scale > 0.0;
    run.speculation.made += 1;
    run.speculation.rows += guess.plan.n_rows() * if is_guided { 2 } else { 1 };
    run.speculation.guesses.push(Evaluated {
        state: State::of(guess),
        candidates,
        rows,
    });
}

/// Guesses that a run has of so many a call.
pub(crate) fn most(limit: usize) -> usize {
    2 * limit
}

/// A state that may come.
struct Draft {
    run: Run,
    state: State,
    /// How likely it is to.
    chance: f32,
}

/// The likeliest states of coming steps that no call has computed: what this one is to compute
/// beside its own step.
pub(crate) fn guesses(run: &mut Run) -> Vec<Run> {
    let limit = run.request.config.speculate;
    if limit == 0 {
        return Vec::new();
    }
    let mut kept = std::mem::take(&mut run.speculation.guesses);
    kept.retain(|guess| guess.state.may_follow(run));
    let known = &run.speculation;
    let mut root = run.guess();
    // What the call leaves in the cache.
    root.speculation.stamp(&run.plan, run.step(), &run.info);
    let stamps = root.speculation.stamps.clone();
    let root = Draft {
        state: State::of(&root),
        run: root,
        chance: 1.0,
    };
    let mut drafts = following(&root, drafted(&known.drafts, &root.run), &CHANCES);
    let mut found: Vec<Run> = Vec::new();
    let mut states: Vec<State> = Vec::new();
    while found.len() < limit
        && let Some(at) = likeliest(&drafts)
    {
        let draft = drafts.swap_remove(at);
        let state = &draft.state;
        // It reads what this call leaves, and not what a guess before it would have left.
        let is_readable = state.stamps == stamps_of(&stamps, &state.plan);
        if !is_readable || states.contains(state) {
            continue;
        }
        // Of a state that was computed the next one is known.
        let computed = kept.iter().find(|guess| guess.state == *state);
        let next = match computed {
            Some(guess) => following(&draft, Some(guess.candidates.clone()), &[1.0]),
            None => following(&draft, drafted(&known.drafts, &draft.run), &CHANCES),
        };
        for next in next {
            // Tokens that come in another order lead to the same canvas.
            match drafts.iter_mut().find(|draft| draft.state == next.state) {
                Some(same) => same.chance += next.chance,
                None => drafts.push(next),
            }
        }
        if computed.is_none() {
            found.push(draft.run);
        }
        states.push(draft.state);
    }
    let excess = (kept.len() + found.len()).saturating_sub(most(limit));
    kept.drain(..excess.min(kept.len()));
    run.speculation.guesses = kept;
    found
}

fn likeliest(drafts: &[Draft]) -> Option<usize> {
    let by_chance = |a: &usize, b: &usize| drafts[*a].chance.total_cmp(&drafts[*b].chance);
    // Of equals the first.
    (0..drafts.len()).rev().max_by(by_chance)
}

/// The states after a step with these candidates, with these but for the best, and so on.
fn following(draft: &Draft, candidates: Option<Vec<Candidate>>, chances: &[f32]) -> Vec<Draft> {
    let Some(mut candidates) = candidates else {
        return Vec::new();
    };
    let order = draft.run.order_of(&candidates);
    let mut all = Vec::new();
    for (&chance, best) in chances.iter().zip(order) {
        all.extend(draft.run.after(&candidates).map(|run| Draft {
            state: State::of(&run),
            run,
            chance: draft.chance * chance,
        }));
        let last = &mut candidates[best];
        (last.confidence, last.margin, last.entropy) = (0.0, 0.0, f32::INFINITY);
    }
    all
}

/// The last candidates of the positions of a step, if there are some of all of them.
fn drafted(drafts: &[(usize, Candidate)], run: &Run) -> Option<Vec<Candidate>> {
    let find = |at: &usize| {
        let found = drafts.binary_search_by_key(at, |(position, _)| *position);
        found.ok().map(|i| drafts[i].1)
    };
    run.positions.iter().map(find).collect()
}
