//! The training loop.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use llada_diffusion::Trainable;

use crate::checkpoint::{self, Interval, State};
use crate::communicator::{Communicator, any};
use crate::config::default_of;
use crate::durable::{Crc32, replace};
use crate::eval::evaluate_shared;
use crate::guard::{Guard, Verdict};
use crate::metrics::Metrics;
use crate::step::guarded_step;
use crate::{
    BatchSampler, Data, Error, EvalConfig, Evaluation, MetricsLine, Optimizer, Result, RunFolder,
    StepReport, TrainConfig, loss_svg,
};

/// What a run needs besides its model.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// The configuration.
    pub config: &'a TrainConfig,
    /// The text, as [`Data::load`] or [`Data::load_pairs`] makes it from the same configuration.
    pub data: &'a Data,
    /// Where results and checkpoints go; rank 0 alone uses it.
    pub run: &'a RunFolder,
    /// The processes that share the run.
    pub communicator: &'a dyn Communicator,
    /// Content of the `config.json` that is written beside the model.
    pub config_json: &'a [u8],
    /// Seconds on a clock that never goes back.
    pub clock: &'a dyn Fn() -> f64,
    /// Seconds since 1970 at which that clock showed 0.
    pub started_at: f64,
    /// Set to make the run save a checkpoint and return; on any rank.
    pub stop: &'a AtomicBool,
    /// Lets a run be resumed with another configuration or other data.
    pub allow_changes: bool,
}

impl std::fmt::Debug for Setup<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup")
            .field("config", self.config)
            .finish_non_exhaustive()
    }
}

/// What is known when the first step is about to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Step of the checkpoint that the run goes on from.
    pub resumed_from: Option<u64>,
    /// Steps of the whole run.
    pub steps: u64,
    /// Numbers in the parameters.
    pub n_parameters: usize,
    /// Tokens of the training files.
    pub n_train_tokens: usize,
}

/// Is told how the run goes on. Every method may be left out.
pub trait Observer {
    /// Before the first step.
    fn started(&mut self, _start: &Start) {}
    /// After each step.
    fn stepped(&mut self, _report: &StepReport) {}
    /// After each step that was left out, as it would have done harm.
    fn skipped(&mut self, _report: &StepReport, _why: &Error) {}
    /// After parameters and moments went back to those of an earlier step.
    fn rolled_back(&mut self, _step: u64, _to_step: u64) {}
    /// After each evaluation.
    fn evaluated(&mut self, _step: u64, _evaluation: &Evaluation) {}
    /// After each checkpoint.
    fn saved(&mut self, _step: u64, _path: &Path) {}
}

/// An observer that does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Steps taken since the beginning.
    pub step: u64,
    /// Whether that is all of them; otherwise the run was stopped and can be resumed.
    pub finished: bool,
    /// Step of the checkpoint that the run went on from.
    pub resumed_from: Option<u64>,
    /// Loss of the last line of the metrics, in nats per token.
    pub loss: Option<f64>,
    /// Harmful steps that were left out.
    pub skipped_steps: u64,
    /// Tokens seen since the beginning.
    pub tokens: u64,
    /// Tokens per second over all steps since the beginning.
    pub tokens_per_second: f64,
    /// Time spent in steps since the beginning, in seconds.
    pub seconds: f64,
    /// Newest held-out bound, in nats per token.
    pub validation_bound: Option<f64>,
    /// Its standard error.
    pub validation_standard_error: Option<f64>,
}

/// Trains a model until the last step, or until it is told to stop.
///
/// If the run folder has a checkpoint, the parameters of `model` are replaced by it and the run
/// goes on as if it had never been stopped. All ranks return after the same step, with the same
/// parameters.
///
/// # Errors
/// If the configuration or the data do not fit the model or the checkpoint, a loss or a gradient
/// is no number, a file cannot be written, or the model fails. The last checkpoint is kept. An
/// error may be that of one rank alone, which then has to end the others, who wait for it:
/// [`Communicator::abort`].
pub fn train(
    model: &mut dyn Trainable,
    setup: &Setup<'_>,
    observer: &mut dyn Observer,
) -> Result<Summary> {
    let Setup {
        config,
        run,
        communicator,
        clock,
        ..
    } = *setup;
    check_fit(model, setup)?;
    let mut run_state = RunState::begin_or_resume(model, setup)?;
    observer.started(&run_state.start);

    let writes = communicator.rank() == 0;
    let time = || setup.started_at + clock();
    let metrics = writes.then(|| Metrics::open(run.path(), run_state.state.step, time()));
    let mut metrics = metrics.transpose()?;
    let is_stopped = || any(communicator, setup.stop.load(Ordering::Relaxed));
    while run_state.state.step < config.train.steps && !is_stopped() {
        let began = clock();
        let RunState {
            batches,
            optimizer,
            state,
            ..
        } = &mut run_state;
        let batch = batches.next_batch(state.step)?;
        let largest_norm = state.guard.largest_norm(&config.train);
        let (report, harm) =
            guarded_step(model, optimizer, &batch, config, state.step, largest_norm)?;
        state.count(&report, clock() - began);
        match harm {
            None => {
                state.guard.taken(report.grad_norm);
                state.interval.steps += 1;
                state.interval.loss += report.loss;
                observer.stepped(&report);
            }
            Some(error) => run_state.leave_out(model, setup, observer, &report, error)?,
        }

        let evaluated = if is_due(config.train.eval_every, report.step, config.train.steps) {
            let held_out = &setup.data.validation;
            evaluate_shared(&*model, held_out, &eval_config(config), communicator)?
        } else {
            None
        };
        if let Some(evaluated) = &evaluated {
            observer.evaluated(report.step, evaluated);
        }
        let log = is_due(config.train.log_every, report.step, config.train.steps);
        // An interval of harmful steps alone has no loss.
        if (log || evaluated.is_some()) && run_state.state.interval.steps > 0 {
            let line = run_state.state.metrics_line(&report, evaluated.as_ref());
            metrics
                .as_mut()
                .map_or(Ok(()), |file| file.push(line, time()))?;
        }
        if is_due(
            config.train.checkpoint_every,
            report.step,
            config.train.steps,
        ) {
            run_state.save(&*model, setup, metrics.as_ref(), observer)?;
        }
    }
    run_state.save(&*model, setup, metrics.as_ref(), observer)?;
    Ok(run_state.summary(config, metrics.as_ref().map_or(&[], Metrics::lines)))
}

/// Whether something that happens every `every` steps, and after the last, happens now.
fn is_due(every: u64, step: u64, steps: u64) -> bool {
    step == steps || (every > 0 && step.is_multiple_of(every))
}

fn eval_config(config: &TrainConfig) -> EvalConfig {
    EvalConfig {
        objective: config.objective,
        seed: config.seed,
        mc_samples: config.train.eval_mc_samples,
        max_sequences: config.train.eval_sequences,
    }
}

fn check_fit(model: &dyn Trainable, setup: &Setup<'_>) -> Result<()> {
    let info = model.info();
    let fits = |what, data: usize, model: usize| {
        if data <= model {
            Ok(())
        } else {
            Err(Error::DataTooLarge { what, data, model })
        }
    };
    let length = setup.config.data.sequence_length;
    fits("the longest sequence", length, info.max_sequence_length)?;
    for source in setup.data.train.iter().chain(&setup.data.validation) {
        fits(
            "the vocabulary",
            source.max_id() as usize + 1,
            info.vocab_size,
        )?;
    }
    Ok(())
}

/// The training state in memory.
struct RunState<'a> {
    state: State,
    batches: BatchSampler<'a>,
    optimizer: Optimizer<'a>,
    start: Start,
    /// Step of the newest checkpoint.
    saved: Option<u64>,
}

impl<'a> RunState<'a> {
    fn begin_or_resume(model: &mut dyn Trainable, setup: &Setup<'a>) -> Result<Self> {
        let mut batches = BatchSampler::new(&setup.data.train, setup.config)?;
        let fresh = State::fresh(setup, &batches)?;
        expect_alike(&fresh, setup.communicator)?;
        let found = if setup.communicator.rank() == 0 {
            checkpoint::newest(&setup.run.state())?
        } else {
            None
        };
        let saved = share_state(found.as_ref().map(|found| &found.state), setup.communicator);
        if let Some(saved) = saved.as_ref().filter(|_| !setup.allow_changes) {
            saved.expect_same(&fresh)?;
        }
        let path = found.as_ref().map(|found| &*found.path);
        let optimizer = checkpoint::restore(path, model.parameters_mut(), setup.communicator)?;
        let resumed_from = saved.as_ref().map(|saved| saved.step);
        let state = match saved {
            None => fresh,
            Some(saved) => {
                batches.restore(&saved.batches);
                let State {
                    config,
                    data,
                    tokenizer,
                    ..
                } = fresh;
                State {
                    config,
                    data,
                    tokenizer,
                    ..saved
                }
            }
        };
        let start = Start {
            resumed_from,
            steps: setup.config.train.steps,
            n_parameters: model.parameters().iter().map(|p| p.value.numel()).sum(),
            n_train_tokens: setup.data.train.iter().map(crate::Source::n_tokens).sum(),
        };
        Ok(Self {
            state,
            batches,
            optimizer,
            start,
            saved: resumed_from,
        })
    }

    /// Leaves a harmful step out, goes back to the newest checkpoint, or ends the run.
    fn leave_out(
        &mut self,
        model: &mut dyn Trainable,
        setup: &Setup<'a>,
        observer: &mut dyn Observer,
        report: &StepReport,
        error: Error,
    ) -> Result<()> {
        match (self.state.guard.harmful(&setup.config.train), self.saved) {
            (Verdict::Skip, _) => observer.skipped(report, &error),
            (Verdict::RollBack, Some(step)) => {
                observer.skipped(report, &error);
                let found = match setup.communicator.rank() {
                    0 => checkpoint::newest(&setup.run.state())?,
                    _ => None,
                };
                let path = found.as_ref().map(|found| &*found.path);
                self.optimizer =
                    checkpoint::restore(path, model.parameters_mut(), setup.communicator)?;
                observer.rolled_back(report.step, step);
            }
            (Verdict::End | Verdict::RollBack, _) => return Err(error),
        }
        Ok(())
    }

    /// Checkpoint, loadable model, picture of the loss; no checkpoint if it was just written, and
    /// nothing amid harmful steps: what causes them may be in the parameters.
    /// Rank 0 has the metrics, and writes.
    fn save(
        &mut self,
        model: &dyn Trainable,
        setup: &Setup<'_>,
        metrics: Option<&Metrics>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let Setup { config, run, .. } = *setup;
        let step = self.state.step;
        if self.state.guard.in_a_row > 0 && step < config.train.steps {
            return Ok(());
        }
        self.state.batches = self.batches.state().clone();
        let is_new = self.saved.replace(step) != Some(step);
        let (parameters, optimizer) = (model.parameters(), &self.optimizer);
        let Some(metrics) = metrics else {
            return match is_new {
                true => checkpoint::assist(optimizer, parameters.len()),
                false => Ok(()),
            };
        };
        if is_new {
            let keep = config.train.keep_checkpoints;
            let path = checkpoint::save(&run.state(), &self.state, parameters, optimizer, keep)?;
            observer.saved(step, &path);
        }
        let tokenizer_json = &setup.data.tokenizer_json;
        let dtype = config.train.export_dtype;
        run.export(&model.export()?, dtype, setup.config_json, tokenizer_json)?;
        let svg = loss_svg(metrics.lines(), config.train.loss_weight)?;
        replace(&run.path().join("loss.svg"), svg)
    }

    fn summary(&self, config: &TrainConfig, lines: &[MetricsLine]) -> Summary {
        let State {
            step,
            tokens,
            seconds,
            ..
        } = self.state;
        let evaluated = lines
            .iter()
            .rev()
            .find(|line| line.validation_bound.is_some());
        Summary {
            step,
            finished: step >= config.train.steps,
            resumed_from: self.start.resumed_from,
            loss: lines.last().map(|line| line.loss),
            skipped_steps: self.state.guard.skipped,
            tokens,
            tokens_per_second: per_second(tokens, seconds),
            seconds,
            validation_bound: evaluated.and_then(|line| line.validation_bound),
            validation_standard_error: evaluated.and_then(|line| line.validation_standard_error),
        }
    }
}

/// Checks that every rank has the configuration, the data and the tokenizer of rank 0.
fn expect_alike(state: &State, communicator: &dyn Communicator) -> Result<()> {
    let mut sum = Crc32::new();
    sum.update(&serde_json::to_vec(state).expect("keys are strings and numbers finite"));
    let told = communicator.all_gather(&[f64::from(sum.value())]).concat();
    // They are whole numbers.
    match told
        .iter()
        .position(|sum| sum.to_bits() != told[0].to_bits())
    {
        Some(rank) => Err(Error::RankDiffers { rank }),
        None => Ok(()),
    }
}

/// The state that rank 0 has found, if it has.
fn share_state(found: Option<&State>, communicator: &dyn Communicator) -> Option<State> {
    let json = serde_json::to_vec(&found).expect("keys are strings and numbers finite");
    let json = communicator.broadcast(0, json);
    serde_json::from_slice(&json).expect("rank 0 wrote it")
}

impl State {
    fn fresh(setup: &Setup<'_>, batches: &BatchSampler<'_>) -> Result<Self> {
        let mut tokenizer = Crc32::new();
        tokenizer.update(&setup.data.tokenizer_json);
        let sources = setup.data.train.iter();
        Ok(Self {
            step: 0,
            tokens: 0,
            seconds: 0.0,
            batches: batches.state().clone(),
            guard: Guard::default(),
            interval: Interval::default(),
            config: setup.config.flatten(),
            data: sources
                .map(|source| Ok((source.name.clone(), source.fingerprint()?)))
                .collect::<Result<_>>()?,
            tokenizer: tokenizer.value(),
        })
    }

    /// Checks that a run with the configuration and data of `now` continues this one.
    fn expect_same(&self, now: &Self) -> Result<()> {
        let keys = self.config.keys().chain(now.config.keys());
        for key in keys.filter(|key| !may_change(key)) {
            let (was, is) = (self.config.get(key), now.config.get(key));
            // A key that the version before did not have was what its default says.
            let is_new = was.is_none() && is.is_some() && default_of(key).as_ref() == is;
            if key == MODEL_CHECKSUM && was != is {
                let name = |state: &Self| {
                    let name = state.config.get(MODEL_NAME);
                    name.and_then(|name| name.as_str())
                        .unwrap_or("another model")
                        .to_owned()
                };
                let (was, now) = (name(self), name(now));
                return Err(Error::ModelChanged { was, now });
            }
            if was != is && !is_new {
                let text = |value: Option<&serde_json::Value>| {
                    value.map_or_else(|| "absent".to_owned(), ToString::to_string)
                };
                let (was, now) = (text(was), text(is));
                return Err(Error::ConfigChanged {
                    key: key.clone(),
                    was,
                    now,
                });
            }
        }
        if self.tokenizer != now.tokenizer {
            return Err(Error::DataChanged {
                name: "the tokenizer".to_owned(),
            });
        }
        for (name, fingerprint) in &now.data {
            if self.data.get(name) != Some(fingerprint) {
                return Err(Error::DataChanged { name: name.clone() });
            }
        }
        Ok(())
    }

    fn count(&mut self, report: &StepReport, seconds: f64) {
        self.step = report.step;
        self.tokens += report.tokens as u64;
        self.seconds += seconds;
        self.interval.tokens += report.tokens as u64;
        self.interval.seconds += seconds;
    }

    /// The line of the interval that ends here.
    fn metrics_line(&mut self, report: &StepReport, eval: Option<&Evaluation>) -> MetricsLine {
        let interval = std::mem::take(&mut self.interval);
        MetricsLine {
            step: self.step,
            loss: interval.loss / interval.steps as f64,
            lr: report.learning_rate,
            grad_norm: report.grad_norm,
            tokens: self.tokens,
            tokens_per_second: per_second(interval.tokens, interval.seconds),
            seconds: self.seconds,
            skipped: self.guard.skipped,
            validation_bound: eval.map(|eval| eval.bound),
            validation_standard_error: eval.map(|eval| eval.standard_error),
        }
    }
}

/// Keys of fine-tuning that say which model a run began with.
const MODEL_CHECKSUM: &str = "model.checksum";
const MODEL_NAME: &str = "model.name";

/// Keys that a resumed run may change: those that say how long, how fast and how often.
fn may_change(key: &str) -> bool {
    const KEYS: &[&str] = &[
        MODEL_NAME,
        "data.validation",
        "train.steps",
        "train.batch_size",
        "train.batch_tokens",
        "train.activation_checkpointing",
        "train.learning_rate",
        "train.min_learning_rate",
        "train.decay_steps",
        "train.decay_fraction",
        "train.decay_shape",
        "train.learning_rate_points",
        "train.max_skipped_steps",
        "train.spike_factor",
        "train.max_rollbacks",
        "train.log_every",
        "train.eval_every",
        "train.eval_mc_samples",
        "train.eval_sequences",
        "train.checkpoint_every",
        "train.keep_checkpoints",
        "train.export_dtype",
    ];
    KEYS.contains(&key)
}

fn per_second(tokens: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        tokens as f64 / seconds
    } else {
        0.0
    }
}
