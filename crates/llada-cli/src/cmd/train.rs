//! `llada train`.

mod dry_run;
mod model_section;
mod plan;
mod progress;

use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use llada::diffusion::Trainable;
use llada::train::{
    Communicator, Data, RunFolder, Setup, Silent, Summary, TrainConfig, config_help, tokenizer_for,
    train,
};
use llada::{LladaModel, ModelConfig, Tokenizer};

use self::model_section::{model_config, special_ids};
use self::plan::Plan;

use super::ranks;
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
    run: impl FnOnce(&dyn Communicator, &Path, &Path) -> Result<Option<Summary>>,
) -> Result<()> {
    let (Some(run_dir), Some(config_path)) = (&args.run_dir, &args.config) else {
        anyhow::bail!("RUN_DIR and --config are needed");
    };
    ranks::of_all(args.run.threads, |communicator| {
        anyhow::ensure!(
            !args.dry_run || communicator.size() == 1,
            "--dry-run is for one process: leave mpirun out"
        );
        match run(communicator, run_dir, config_path)? {
            Some(summary) if communicator.rank() == 0 => report(run_dir, args.run.format, &summary),
            _ => Ok(()),
        }
    })
}

/// The run of one rank.
fn train_as(
    communicator: &dyn Communicator,
    args: &TrainArgs,
    run_dir: &Path,
    config_path: &Path,
) -> Result<Option<Summary>> {
    let config = TrainConfig::from_file(config_path)?;
    let run = open(communicator, run_dir, args.dry_run)?;
    let tokenizer = shared_tokenizer(communicator, &run, &config)?;
    let of_section = || format!("section [model] of {}", config_path.display());
    let special = special_ids(&config, &tokenizer)?;
    let data = Data::load(&config, &tokenizer, special)?;
    let model_config = model_config(&config, &tokenizer, special).with_context(of_section)?;
    let device = crate::config::device(&args.run)?;
    let precision = config.train.precision.into();
    let config_json = model_config.to_json();
    let model = LladaModel::random(model_config.clone(), &device, precision, config.seed)?;
    let mut model = model.checkpoint_activations(config.train.activation_checkpointing);
    if communicator.rank() == 0 {
        tell(&data);
        if !args.dry_run {
            tokenizer.save(run.path())?;
        }
    }
    let job = Job {
        config: &config,
        data: &data,
        run: &run,
        communicator,
        model_config: &model_config,
        config_json: config_json.as_bytes(),
        args,
    };
    job.run(&mut model)
}

/// The run folder, which rank 0 alone uses; one that nothing is written into is not opened.
pub(super) fn open(
    communicator: &dyn Communicator,
    run_dir: &Path,
    dry_run: bool,
) -> Result<RunFolder> {
    Ok(match communicator.rank() {
        0 if dry_run => RunFolder::unopened(run_dir)?,
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
    pub(super) model_config: &'a ModelConfig,
    /// Content of the `config.json` beside the model.
    pub(super) config_json: &'a [u8],
    pub(super) args: &'a TrainArgs,
}

impl Job<'_> {
    /// Trains until the end or an interrupt; rank 0 draws the progress. Nothing of a dry run.
    pub(super) fn run(&self, model: &mut dyn Trainable) -> Result<Option<Summary>> {
        let n_trained = model.parameters().iter().map(|p| p.value.numel()).sum();
        let plan = Plan {
            config: self.config,
            data: self.data,
            model: self.model_config,
            n_trained,
            n_ranks: self.communicator.size(),
        };
        // A device with a memory of its own says itself when it is full.
        if model.device().backend().peak_bytes().is_none() {
            plan.check_memory()?;
        }
        if self.args.dry_run {
            let resumes = self.run.has_checkpoint()?;
            dry_run::rehearse(&plan, model, resumes, self.args.run.format)?;
            return Ok(None);
        }
        let stop = crate::stop::on_signal()?;
        let start = Instant::now();
        #[expect(clippy::disallowed_methods, reason = "here it becomes an argument")]
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let clock = || start.elapsed().as_secs_f64();
        let setup = Setup {
            config: self.config,
            data: self.data,
            run: self.run,
            communicator: self.communicator,
            config_json: self.config_json,
            clock: &clock,
            started_at: since_1970.unwrap_or_default().as_secs_f64(),
            stop: &stop,
            allow_changes: self.args.allow_changes,
        };
        if self.communicator.rank() != 0 {
            return Ok(Some(train(model, &setup, &mut Silent)?));
        }
        let mut observer = progress::observer(plan.lines(), &clock);
        let summary = train(model, &setup, &mut *observer)?;
        observer.finish(summary.finished);
        Ok(Some(summary))
    }
}

/// Tells what the data have that is not learned as it is.
pub(super) fn tell(data: &Data) {
    for source in data.train.iter().chain(&data.validation) {
        let tell = |what: &str, n: usize, all: usize, things: &str| {
            if n > 0 {
                note(&format!("{}: {what}: {n} of {all} {things}", source.name));
            }
        };
        let (n_pairs, n_tokens) = (source.n_documents + source.n_dropped, source.n_tokens());
        tell("too long and left out", source.n_dropped, n_pairs, "pairs");
        tell("too long and cut", source.n_cut, n_pairs, "pairs");
        tell(
            "unknown to the tokenizer",
            source.n_unknown,
            n_tokens,
            "tokens",
        );
        if source.n_unlearned > 0 {
            note(&format!(
                "{}: lines without an answer to learn (weight 0 or train = false): {}",
                source.name, source.n_unlearned
            ));
        }
        if !source.unused.is_empty() {
            let lines = |n: usize| if n == 1 { "line" } else { "lines" };
            let field = |(name, n): (&String, &usize)| format!("{name} ({n} {})", lines(*n));
            let fields: Vec<String> = source.unused.iter().map(field).collect();
            let fields = fields.join(", ");
            note(&format!(
                "{}: warning: fields that are not used: {fields}",
                source.name
            ));
        }
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
