//! The training configuration: a TOML file, see [`help::config_help`].

pub(crate) mod help;
pub(crate) mod sft;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::sft::{ChatUse, LoraSection, SftConfig, TooLong};
use crate::durable::io;
use crate::{Error, Result};

/// A training configuration, with every default filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// What is learned.
    #[serde(default)]
    pub objective: Objective,
    /// Seed of everything that is drawn.
    #[serde(default)]
    pub seed: u64,
    /// Section `[data]`.
    pub data: DataConfig,
    /// Section `[model]`: for whoever builds the model.
    #[serde(default)]
    pub model: Map<String, Value>,
    /// Section `[train]`.
    pub train: OptimizationConfig,
    /// Section `[sft]`: prompts are given and answers learned. `None` in pre-training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sft: Option<SftConfig>,
    /// Section `[lora]`, of fine-tuning: for whoever builds the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraSection>,
    /// Folder of the file: relative paths begin here.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// What is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// Masked diffusion, eq. 3 of the paper.
    #[default]
    Diffusion,
    /// Next-token prediction, for the baseline.
    Autoregressive,
}

/// Section `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Training files, each `PATH` or `PATH:WEIGHT`.
    pub train: Vec<String>,
    /// Held-out files.
    #[serde(default)]
    pub validation: Vec<String>,
    /// `char`, or a path to a `tokenizer.json`.
    #[serde(default = "char_tokenizer")]
    pub tokenizer: String,
    /// With `tokenizer = "char"`: how often a character must occur to get an id.
    #[serde(default = "one")]
    pub min_character_count: usize,
    /// Longest training sequence, in tokens.
    pub sequence_length: usize,
    /// How documents become sequences.
    #[serde(default)]
    pub packing: Packing,
}

/// How documents become sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// Documents are joined, EOS after each, and the stream is cut into sequences.
    #[default]
    Packed,
    /// Each document and its EOS is a sequence of its own; a longer one is cut into several.
    Documents,
}

/// Section `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizationConfig {
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// Sequences of an optimizer step.
    pub batch_size: Option<usize>,
    /// Tokens of an optimizer step at most; in place of `batch_size`.
    pub batch_tokens: Option<usize>,
    /// Tokens that are in memory at once at most; 0: the whole batch.
    #[serde(default)]
    pub micro_batch_tokens: usize,
    /// Keep of each block its input alone, and compute the rest again in the backward pass.
    #[serde(default)]
    pub activation_checkpointing: bool,
    /// Learning rate between warm-up and decay.
    #[serde(default = "defaults::learning_rate")]
    pub learning_rate: f64,
    /// Learning rate at the end of the decay.
    #[serde(default)]
    pub min_learning_rate: f64,
    /// Steps of linear warm-up.
    #[serde(default)]
    pub warmup_steps: u64,
    /// Last steps, in which the learning rate falls; overrides `decay_fraction`.
    pub decay_steps: Option<u64>,
    /// The same as a share of all steps.
    #[serde(default = "defaults::decay_fraction")]
    pub decay_fraction: f64,
    /// Curve of the decay.
    #[serde(default)]
    pub decay_shape: DecayShape,
    /// Steps, counted from 0, and their learning rates; lines between them. In place of the above.
    pub learning_rate_points: Option<Vec<(u64, f64)>>,
    /// What turns gradients into updates.
    #[serde(default)]
    pub optimizer: OptimizerName,
    /// Decay rate of Muon's momentum.
    #[serde(default = "defaults::muon_momentum")]
    pub muon_momentum: f64,
    /// Decay rate of the first moment.
    #[serde(default = "defaults::beta1")]
    pub beta1: f64,
    /// Decay rate of the second moment.
    #[serde(default = "defaults::beta2")]
    pub beta2: f64,
    /// Term that keeps the update finite.
    #[serde(default = "defaults::eps")]
    pub eps: f64,
    /// Decoupled weight decay of matrices.
    #[serde(default = "defaults::weight_decay")]
    pub weight_decay: f64,
    /// Largest global norm of the gradient; 0: no clipping.
    #[serde(default = "defaults::clip_norm")]
    pub clip_norm: f64,
    /// Steps in a row that are left out because their loss or gradient is no number or a spike;
    /// one more goes back to the newest checkpoint. 0: such a step ends the run.
    #[serde(default)]
    pub max_skipped_steps: u64,
    /// A gradient is a spike if its norm is so many times the usual one; 0: none is.
    #[serde(default)]
    pub spike_factor: f64,
    /// Times that a run goes back to a checkpoint, at most.
    #[serde(default = "defaults::max_rollbacks")]
    pub max_rollbacks: u64,
    /// Precision of matrix products.
    #[serde(default)]
    pub precision: PrecisionName,
    /// How the masking ratios of a batch are drawn.
    #[serde(default)]
    pub t_sampler: TSampler,
    /// How much each masked token counts in the loss.
    #[serde(default)]
    pub loss_weight: LossWeight,
    /// Share of batches that are cut to a random length.
    pub random_length_probability: Option<f64>,
    /// Steps between lines of `metrics.jsonl`.
    #[serde(default = "defaults::log_every")]
    pub log_every: u64,
    /// Steps between evaluations; 0: only after the last step.
    #[serde(default)]
    pub eval_every: u64,
    /// Monte Carlo draws per held-out sequence.
    #[serde(default = "defaults::eval_mc_samples")]
    pub eval_mc_samples: usize,
    /// Held-out sequences per evaluation at most; 0: all.
    #[serde(default = "defaults::eval_sequences")]
    pub eval_sequences: usize,
    /// Steps between checkpoints; 0: only after the last step.
    #[serde(default = "defaults::checkpoint_every")]
    pub checkpoint_every: u64,
    /// Newest checkpoints that are kept.
    #[serde(default = "defaults::keep_checkpoints")]
    pub keep_checkpoints: usize,
    /// Element type of the exported `model.safetensors`.
    #[serde(default)]
    pub export_dtype: ExportDType,
}

/// Curve of the learning-rate decay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayShape {
    /// A straight line.
    #[default]
    Linear,
    /// `1 - sqrt(progress)`.
    OneMinusSqrt,
    /// Half a cosine.
    Cosine,
}

/// Precision of matrix products; parameters and sums are `f32` in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionName {
    /// Operands rounded to bfloat16.
    #[default]
    Bf16,
    /// Operands as they are.
    F32,
}

impl From<PrecisionName> for llada_tensor::Precision {
    fn from(name: PrecisionName) -> Self {
        match name {
            PrecisionName::Bf16 => Self::Bf16,
            PrecisionName::F32 => Self::F32,
        }
    }
}

/// What turns gradients into updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// AdamW for every parameter, as in the paper.
    #[default]
    AdamW,
    /// Muon for the matrices of the blocks, AdamW for the rest.
    Muon,
}

/// How the masking ratios of a batch are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TSampler {
    /// Each by itself, as in the paper.
    #[default]
    Iid,
    /// Spread evenly over the batch: `(u0 + i / n) mod 1`.
    Stratified,
}

/// How much each masked token counts in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossWeight {
    /// `1 / p_mask`, eq. 3 of the paper: the loss is a bound of the likelihood.
    #[default]
    InverseP,
    /// All alike: the loss is the mean over the masked tokens.
    Uniform,
}

/// Element type of the exported model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportDType {
    /// As trained.
    #[default]
    F32,
    /// Rounded to bfloat16, half the size.
    Bf16,
}

mod defaults {
    pub(super) fn learning_rate() -> f64 {
        4e-4
    }
    pub(super) fn decay_fraction() -> f64 {
        0.1
    }
    pub(super) fn muon_momentum() -> f64 {
        0.95
    }
    pub(super) fn beta1() -> f64 {
        0.9
    }
    pub(super) fn beta2() -> f64 {
        0.95
    }
    pub(super) fn eps() -> f64 {
        1e-8
    }
    pub(super) fn weight_decay() -> f64 {
        0.1
    }
    pub(super) fn clip_norm() -> f64 {
        1.0
    }
    pub(super) fn max_rollbacks() -> u64 {
        3
    }
    pub(super) fn log_every() -> u64 {
        10
    }
    pub(super) fn eval_mc_samples() -> usize {
        8
    }
    pub(super) fn eval_sequences() -> usize {
        256
    }
    pub(super) fn checkpoint_every() -> u64 {
        1000
    }
    pub(super) fn keep_checkpoints() -> usize {
        2
    }
}

fn char_tokenizer() -> String {
    "char".to_owned()
}

fn one() -> usize {
    1
}

/// A training file and the share of sequences that are drawn from it.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedPath {
    /// The path as the configuration writes it, without the weight.
    pub name: String,
    /// The weight, if one is written.
    pub weight: Option<f64>,
}

impl WeightedPath {
    /// Splits `PATH:WEIGHT`; a suffix that is no number belongs to the path.
    #[must_use]
    pub fn parse(entry: &str) -> Self {
        let split = entry.rsplit_once(':');
        match split.and_then(|(name, weight)| Some((name, weight.parse().ok()?))) {
            Some((name, weight)) => Self {
                name: name.to_owned(),
                weight: Some(weight),
            },
            None => Self {
                name: entry.to_owned(),
                weight: None,
            },
        }
    }
}

impl TrainConfig {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`] or [`Error::ConfigValue`].
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::from_toml(&read(path)?, path)
    }

    /// Reads and checks the text of a configuration; `path` is named in errors, and relative
    /// paths begin in its folder.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::ConfigValue`].
    pub fn from_toml(text: &str, path: &Path) -> Result<Self> {
        let mut config: Self = parse(text, path)?;
        let (expected, got) = ("left out in pre-training, see `llada sft`", "a section");
        require(config.sft.is_none(), "sft", expected, &got)?;
        require(config.lora.is_none(), "lora", expected, &got)?;
        config.folder = path.parent().map(Path::to_owned).unwrap_or_default();
        config.check()?;
        Ok(config)
    }

    /// A path of the configuration, seen from the working directory.
    #[must_use]
    pub fn resolve(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Share of batches that are cut to a random length: 0.01 if packed, as in the paper, else 0.
    #[must_use]
    pub fn random_length_probability(&self) -> f64 {
        self.train
            .random_length_probability
            .unwrap_or(match self.data.packing {
                Packing::Packed => 0.01,
                Packing::Documents => 0.0,
            })
    }

    /// The training files with their weights.
    #[must_use]
    pub fn train_files(&self) -> Vec<WeightedPath> {
        self.data
            .train
            .iter()
            .map(|entry| WeightedPath::parse(entry))
            .collect()
    }

    /// Every key with its section and its value, defaults included.
    #[must_use]
    pub(crate) fn flatten(&self) -> BTreeMap<String, Value> {
        let mut resolved = self.clone();
        resolved.train.random_length_probability = Some(self.random_length_probability());
        let value = serde_json::to_value(&resolved).expect("no key is anything but a string");
        let mut flat = BTreeMap::new();
        flatten_into(&mut flat, "", value);
        flat
    }

    fn check(&self) -> Result<()> {
        let (data, train) = (&self.data, &self.train);
        require(
            !data.train.is_empty(),
            "data.train",
            "a list with a file",
            &"[]",
        )?;
        require(
            data.sequence_length > 0,
            "data.sequence_length",
            "positive",
            &data.sequence_length,
        )?;
        require(
            (1..=u64::from(u32::MAX)).contains(&train.steps),
            "train.steps",
            "in 1..=4294967295",
            &train.steps,
        )?;
        check_batch(train, data.sequence_length)?;
        check_weights(&self.train_files())?;
        check_ranges(train)?;
        self.sft
            .as_ref()
            .map_or(Ok(()), |sft| self.check_sft(sft))?;
        let p = self.random_length_probability();
        require(
            (0.0..=1.0).contains(&p),
            "train.random_length_probability",
            "in [0, 1]",
            &p,
        )
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(io("reading", path))
}

fn parse<T: serde::de::DeserializeOwned>(text: &str, path: &Path) -> Result<T> {
    toml::from_str(text).map_err(|source| Error::Config {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

fn check_batch(train: &OptimizationConfig, sequence_length: usize) -> Result<()> {
    let expected = "given, or train.batch_tokens in its place, but not both";
    match (train.batch_size, train.batch_tokens) {
        (Some(size), None) => require(size > 0, "train.batch_size", "positive", &size),
        (None, Some(tokens)) => require(
            tokens >= sequence_length,
            "train.batch_tokens",
            "at least data.sequence_length",
            &tokens,
        ),
        (None, None) => require(false, "train.batch_size", expected, &"neither"),
        (Some(_), Some(_)) => require(false, "train.batch_size", expected, &"both"),
    }
}

fn check_weights(files: &[WeightedPath]) -> Result<()> {
    let n_weights = files.iter().filter(|file| file.weight.is_some()).count();
    let (key, got) = (
        "data.train",
        format!("{n_weights} weights for {} files", files.len()),
    );
    require(
        n_weights == 0 || n_weights == files.len(),
        key,
        "weighted for all files or none",
        &got,
    )?;
    for weight in files.iter().filter_map(|file| file.weight) {
        require(
            weight > 0.0 && weight.is_finite(),
            key,
            "weighted by positive numbers",
            &weight,
        )?;
    }
    Ok(())
}

fn check_ranges(train: &OptimizationConfig) -> Result<()> {
    let unit = |key, x: f64| require((0.0..1.0).contains(&x), key, "in [0, 1)", &x);
    let at_least_0 =
        |key, x: f64| require(x >= 0.0 && x.is_finite(), key, "finite and at least 0", &x);
    let positive = |key, x: f64| require(x > 0.0 && x.is_finite(), key, "positive", &x);
    positive("train.learning_rate", train.learning_rate)?;
    at_least_0("train.min_learning_rate", train.min_learning_rate)?;
    let fraction = train.decay_fraction;
    require(
        (0.0..=1.0).contains(&fraction),
        "train.decay_fraction",
        "in [0, 1]",
        &fraction,
    )?;
    if let Some(points) = &train.learning_rate_points {
        let key = "train.learning_rate_points";
        require(!points.is_empty(), key, "a list with a point", &"[]")?;
        let is_sorted = points.is_sorted_by_key(|&(step, _)| step);
        require(
            is_sorted,
            key,
            "in the order of the steps",
            &"another order",
        )?;
        points
            .iter()
            .try_for_each(|&(_, rate)| at_least_0(key, rate))?;
    }
    unit("train.beta1", train.beta1)?;
    unit("train.beta2", train.beta2)?;
    unit("train.muon_momentum", train.muon_momentum)?;
    positive("train.eps", train.eps)?;
    at_least_0("train.weight_decay", train.weight_decay)?;
    at_least_0("train.clip_norm", train.clip_norm)?;
    at_least_0("train.spike_factor", train.spike_factor)?;
    require(
        train.log_every > 0,
        "train.log_every",
        "positive",
        &train.log_every,
    )?;
    require(
        train.eval_mc_samples > 0,
        "train.eval_mc_samples",
        "positive",
        &train.eval_mc_samples,
    )?;
    let keep = train.keep_checkpoints;
    require(keep > 0, "train.keep_checkpoints", "positive", &keep)
}

fn require(
    holds: bool,
    key: &'static str,
    expected: &'static str,
    got: &dyn std::fmt::Display,
) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::ConfigValue {
            key,
            expected,
            got: got.to_string(),
        })
    }
}

fn flatten_into(flat: &mut BTreeMap<String, Value>, prefix: &str, value: Value) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten_into(flat, &format!("{prefix}{dot}{key}"), value);
            }
        }
        value => {
            flat.insert(prefix.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests;
