//! `llada train`.

mod ranks;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};
use llada::diffusion::Trainable;
use llada::train::{
    Communicator, Data, Evaluation, Objective, Observer, RunFolder, Setup, Silent, SpecialIds,
    Start, StepReport, Summary, TrainConfig, config_help, tokenizer_for, train,
};
use llada::{LladaModel, ModelConfig, Tokenizer};

use crate::args::{Format, TrainArgs};
use crate::output::{note, print};

pub(crate) fn run(args: &TrainArgs) -> Result<()> {
    if args.help_config {
        return print(&config_help());
    }
    of_all_ranks(args, |communicator, run_dir, config_path| {
        train_as(communicator, args, run_dir, config_path)
    })
}

/// Joins the job that this process belongs to, runs its part with the folder of the run and the file
/// of its configuration, and prints the result once; an error of one rank ends all.
pub(super) fn of_all_ranks(
    args: &TrainArgs,
    run: impl FnOnce(&dyn Communicator, &Path, &Path) -> Result<Summary>,
) -> Result<()> {
    let (Some(run_dir), Some(config_path)) = (&args.run_dir, &args.config) else {
        anyhow::bail!("RUN_DIR and --config are needed");
    };
    let communicator = ranks::join()?;
    let communicator = &*communicator;
    match run(communicator, run_dir, config_path) {
        Err(error) if communicator.size() > 1 => ranks::give_up(communicator, &error),
        Ok(summary) if communicator.rank() == 0 => report(run_dir, args.run.format, &summary),
        done => done.map(|_| ()),
    }
}

/// The run of one rank.
fn train_as(
    communicator: &dyn Communicator,
    args: &TrainArgs,
    run_dir: &Path,
    config_path: &Path,
) -> Result<Summary> {
    let config = TrainConfig::from_file(config_path)?;
    let run = open(communicator, run_dir)?;
    let tokenizer = shared_tokenizer(communicator, &run, &config)?;
    let special = SpecialIds::of(&tokenizer)?;
    let data = Data::load(&config, &tokenizer, special)?;
    let model_config = model_config(&config, &tokenizer, special)
        .with_context(|| format!("section [model] of {}", config_path.display()))?;
    let device = crate::config::device(&args.run)?;
    let precision = config.train.precision.into();
    let config_json = model_config.to_json();
    let model = LladaModel::random(model_config, &device, precision, config.seed)?;
    let mut model = model.checkpoint_activations(config.train.activation_checkpointing);
    if communicator.rank() == 0 {
        tokenizer.save(run.path())?;
    }
    let job = Job {
        config: &config,
        data: &data,
        run: &run,
        communicator,
        config_json: config_json.as_bytes(),
        allow_changes: args.allow_changes,
    };
    job.run(&mut model)
}

/// The run folder, which rank 0 alone uses.
pub(super) fn open(communicator: &dyn Communicator, run_dir: &Path) -> Result<RunFolder> {
    Ok(match communicator.rank() {
        0 => RunFolder::open(run_dir)?,
        _ => RunFolder::of_rank_0(run_dir),
    })
}

/// The tokenizer of rank 0: that of the run folder, or a new one.
fn shared_tokenizer(
    communicator: &dyn Communicator,
    run: &RunFolder,
    config: &TrainConfig,
) -> Result<Tokenizer> {
    let mut json = Vec::new();
    if communicator.rank() == 0 {
        let saved = run.path().join("tokenizer.json");
        let tokenizer = if run.has_checkpoint()? && saved.is_file() {
            Tokenizer::from_file(&saved)?
        } else {
            tokenizer_for(config)?
        };
        if communicator.size() == 1 {
            return Ok(tokenizer);
        }
        json = tokenizer.to_json().to_vec();
    }
    Ok(Tokenizer::from_bytes(&communicator.broadcast(0, json))?)
}

/// A run that is ready to begin or to be resumed.
pub(super) struct Job<'a> {
    pub(super) config: &'a TrainConfig,
    pub(super) data: &'a Data,
    pub(super) run: &'a RunFolder,
    pub(super) communicator: &'a dyn Communicator,
    /// Content of the `config.json` beside the model.
    pub(super) config_json: &'a [u8],
    pub(super) allow_changes: bool,
}

impl Job<'_> {
    /// Trains until the end or an interrupt; rank 0 draws the progress.
    pub(super) fn run(&self, model: &mut dyn Trainable) -> Result<Summary> {
        let stop = Arc::new(AtomicBool::new(false));
        let on_interrupt = Arc::clone(&stop);
        ctrlc::set_handler(move || on_interrupt.store(true, Ordering::Relaxed))?;
        let start = Instant::now();
        let setup = Setup {
            config: self.config,
            data: self.data,
            run: self.run,
            communicator: self.communicator,
            config_json: self.config_json,
            clock: &|| start.elapsed().as_secs_f64(),
            stop: &stop,
            allow_changes: self.allow_changes,
        };
        if self.communicator.rank() != 0 {
            return Ok(train(model, &setup, &mut Silent)?);
        }
        let mut observer = Bar {
            bar: ProgressBar::hidden(),
            loss: None,
            bound: None,
        };
        let summary = train(model, &setup, &mut observer)?;
        observer.bar.finish();
        Ok(summary)
    }
}

fn report(run_dir: &Path, format: Format, summary: &Summary) -> Result<()> {
    let result = serde_json::json!({
        "run_dir": run_dir,
        "step": summary.step,
        "finished": summary.finished,
        "resumed_from": summary.resumed_from,
        "skipped_steps": summary.skipped_steps,
        "loss": summary.loss,
        "tokens": summary.tokens,
        "tokens_per_second": summary.tokens_per_second,
        "seconds": summary.seconds,
        "validation_bound": summary.validation_bound,
        "validation_standard_error": summary.validation_standard_error,
    });
    match format {
        Format::Json => print(&format!("{result}\n")),
        Format::Text if summary.finished => print(&format!(
            "step {}, {} tokens, {:.0} tokens/s: the model is in {}\n",
            summary.step,
            summary.tokens,
            summary.tokens_per_second,
            run_dir.display()
        )),
        Format::Text => print(&format!(
            "stopped at step {}; run the same command again to go on\n",
            summary.step
        )),
    }
}

/// The `[model]` table with what follows from the tokenizer and the data.
fn model_config(
    config: &TrainConfig,
    tokenizer: &Tokenizer,
    special: SpecialIds,
) -> Result<ModelConfig> {
    let mut fields = config.model.clone();
    if let Some(name) = fields.remove("preset") {
        let name = name.as_str().unwrap_or_default().to_owned();
        let preset = llada::model::preset(&name).with_context(|| {
            format!(
                "preset {name}: unknown, expected {}",
                llada::model::PRESETS.join(", ")
            )
        })?;
        let serde_json::Value::Object(mut base) = serde_json::to_value(preset)? else {
            unreachable!("a configuration is an object")
        };
        base.remove("embedding_size");
        base.extend(fields);
        fields = base;
    }
    for (field, value) in [
        ("vocab_size", tokenizer.vocab_size()),
        ("mask_token_id", special.mask_token_id as usize),
        ("eos_token_id", special.eos_token_id as usize),
    ] {
        fields.insert(field.to_owned(), value.into());
    }
    if !fields.contains_key("max_sequence_length") {
        fields.insert(
            "max_sequence_length".to_owned(),
            config.data.sequence_length.into(),
        );
    }
    let causal = config.objective == Objective::Autoregressive;
    fields.insert("causal".to_owned(), causal.into());
    Ok(ModelConfig::from_json(
        &serde_json::to_vec(&fields)?,
        Path::new("[model]"),
    )?)
}

/// Draws the progress on standard error.
struct Bar {
    bar: ProgressBar,
    loss: Option<f64>,
    bound: Option<f64>,
}

impl Observer for Bar {
    fn started(&mut self, start: &Start) {
        let style = "{bar:24} {pos}/{len} steps, {msg}, {elapsed} passed, {eta} left";
        let style = ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar());
        self.bar = ProgressBar::new(start.steps).with_style(style);
        self.bar.set_position(start.resumed_from.unwrap_or(0));
        self.bar.reset_eta();
    }

    fn stepped(&mut self, report: &StepReport) {
        // A running mean over about fifty steps: single losses are noisy.
        let loss = self
            .loss
            .map_or(report.loss, |mean| mean + 0.02 * (report.loss - mean));
        self.loss = Some(loss);
        let bound = self
            .bound
            .map_or(String::new(), |bound| format!(", held-out {bound:.3}"));
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = self.bar.per_sec() * report.tokens as f64;
        self.bar
            .set_message(format!("loss {loss:.3}{bound}, {rate:.0} tokens/s"));
        self.bar.set_position(report.step);
    }

    fn skipped(&mut self, _report: &StepReport, why: &llada::train::Error) {
        self.bar.suspend(|| note(&format!("left out: {why}")));
    }

    fn rolled_back(&mut self, step: u64, to_step: u64) {
        let text = format!("step {step}: the parameters are those of step {to_step} again");
        self.bar.suspend(|| note(&text));
    }

    fn evaluated(&mut self, _step: u64, evaluation: &Evaluation) {
        self.bound = Some(evaluation.bound);
    }
}
