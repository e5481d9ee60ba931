//! The training configuration: a TOML file, see [`help::config_help`].
#![expect(
    clippy::doc_markdown,
    reason = "the help of a key is its documentation too"
)]

pub(crate) mod help;
pub(crate) mod keys;
pub(crate) mod names;
pub(crate) mod sft;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::keys::{AT_LEAST_0, Key, check_range, key, require, section, value};
pub use self::names::{
    AnswerUse, ChatUse, DecayShape, ExportDType, LossWeight, MaskUse, Objective, OptimizerName,
    Packing, PrecisionName, TSampler, TokenDType, TooLong,
};
use self::sft::{GivenLora, GivenSft};
pub use self::sft::{LoraSection, SftConfig};
use crate::durable::io;
use crate::{Error, Result};

/// A training configuration, with every default filled in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainConfig {
    /// What is learned.
    pub objective: Objective,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Section `[data]`.
    pub data: DataConfig,
    /// Section `[model]`: for the builder of the model.
    pub model: Map<String, Value>,
    /// Section `[train]`.
    pub train: OptimizationConfig,
    /// Section `[sft]`: prompts are given and answers learned. `None` in pre-training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sft: Option<SftConfig>,
    /// Section `[lora]`, of fine-tuning: for the builder of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraSection>,
    /// Folder of the file: relative paths begin here.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// The configuration as a file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "struct TrainConfig")]
struct Given {
    objective: Option<Objective>,
    seed: Option<u64>,
    data: GivenData,
    #[serde(default)]
    model: Map<String, Value>,
    train: GivenTrain,
    sft: Option<GivenSft>,
    lora: Option<GivenLora>,
}

/// The keys above all sections.
pub(crate) const TOP_KEYS: &[Key] = &[OBJECTIVE, SEED];
const OBJECTIVE: Key = key(
    "",
    "objective",
    "\"diffusion\"",
    "\"diffusion\" or \"autoregressive\"",
);
const SEED: Key = key("", "seed", "0", "seed of everything that is drawn");

section! {
    /// Section `[data]`.
    "struct DataConfig" DataConfig, GivenData, "data" {
        train: Vec<String>,
            "required: files; .txt (a document a line), .jsonl (field \"text\"), or ids, which are \
             read as they are needed: .bin (ids alone, or with llm.c's header, or Megatron-LM's \
             with its .idx beside it) or .npy; \"a.txt:0.7\" draws 70 % of the sequences from a.txt; without \
             weights every sequence is as likely";
        validation: Vec<String> = "[]", "held-out files, for the bound of eq. 6";
        tokenizer: String = "\"char\"",
            "\"char\" (an id for each character of the training files) or a path to \
             tokenizer.json";
        min_character_count: usize = "1",
            "with \"char\": rarer characters become the unknown token";
        token_dtype: TokenDType = "\"auto\"",
            "type of the ids of a .bin without a header: \"uint16\", \"uint32\", \"int32\" or \
             \"int64\"; \"auto\": uint16 if the vocabulary has at most 65536 entries, else \
             uint32";
        sequence_length: usize where POSITIVE, "required: longest training sequence, in tokens";
        packing: Packing = "\"packed\"",
            "\"packed\": documents joined with EOS between them and cut; \"documents\": each \
             document and its EOS is a sequence of its own, cut where it is too long; nothing is \
             padded";
    }
}

section! {
    /// Section `[train]`.
    "struct OptimizationConfig" OptimizationConfig, GivenTrain, "train" {
        steps: u64 where STEPS, "required: optimizer steps of the whole run";
        batch_size: Option<usize> = "" where POSITIVE,
            "sequences of an optimizer step; this or batch_tokens";
        batch_tokens: Option<usize>,
            "tokens of an optimizer step: as many sequences as fit; this or batch_size";
        micro_batch_tokens: usize = "0",
            "tokens in memory at once; larger batches are split and their gradients added; 0: no \
             limit";
        activation_checkpointing: bool = "false",
            "keep of each block its input alone, and compute the rest again in the backward pass: \
             less memory, a third more work";
        learning_rate: f64 = "4e-4" where POSITIVE, "learning rate between warm-up and decay";
        min_learning_rate: f64 = "0.0" where AT_LEAST_0, "learning rate at the end of the decay";
        warmup_steps: u64 = "0", "first steps, in which the learning rate rises in a line";
        decay_steps: Option<u64>, "last steps, in which it falls; overrides decay_fraction";
        decay_fraction: f64 = "0.1" where SHARE, "the same as a share of all steps";
        decay_shape: DecayShape = "\"linear\"", "\"linear\", \"one_minus_sqrt\" or \"cosine\"";
        learning_rate_points: Option<Vec<(u64, f64)>>,
            "in place of the six keys above: [step, rate] in order, steps counted from 0, with \
             straight lines between them and the last rate after them; two points of one step make \
             a jump; the paper's pre-training is [[0, 0.0], [2000, 4e-4], [228882, 4e-4], [228882, \
             1e-4], [381470, 1e-4], [438690, 1e-5]], its SFT of 1000 steps [[0, 0.0], [50, \
             2.5e-5], [900, 2.5e-5], [1000, 2.5e-6]]";
        optimizer: OptimizerName = "\"adamw\"",
            "\"adamw\" as in the paper, or \"muon\": Muon for the matrices of the blocks";
        muon_momentum: f64 = "0.95" where BELOW_1, "Muon: decay rate of the momentum";
        beta1: f64 = "0.9" where BELOW_1, "AdamW: decay rate of the first moment";
        beta2: f64 = "0.95" where BELOW_1, "AdamW: decay rate of the second moment";
        eps: f64 = "1e-8" where POSITIVE, "AdamW: term that keeps the update finite";
        weight_decay: f64 = "0.1" where AT_LEAST_0,
            "AdamW: decoupled weight decay, none on norms and biases";
        clip_norm: f64 = "1.0" where AT_LEAST_0,
            "largest global norm of the gradient; 0: no clipping";
        max_skipped_steps: u64 = "0",
            "steps in a row that are left out because loss or gradient is no number or a spike; \
             one more goes back to the newest checkpoint; 0: such a step ends the run";
        spike_factor: f64 = "0" where AT_LEAST_0,
            "a gradient is a spike if its norm is so many times the usual one (10, say); 0: none \
             is";
        max_rollbacks: u64 = "3", "times that a run goes back to a checkpoint, at most";
        precision: PrecisionName = "\"bf16\"",
            "operands of matrix products: \"bf16\" or \"f32\"; parameters and sums are f32 in \
             both";
        t_sampler: TSampler = "\"iid\"",
            "masking ratios of a batch: \"iid\" as in the paper, or \"stratified\"";
        loss_weight: LossWeight = "\"inverse_p\"",
            "weight of a masked token: \"inverse_p\" as in the paper, or \"uniform\" (less noise)";
        random_length_probability: Option<f64> where SHARE,
            "share of batches that are cut to a random length; 0.01 if packed (the paper's), else \
             0";
        log_every: u64 = "10" where POSITIVE, "steps between lines of metrics.jsonl";
        eval_every: u64 = "0", "steps between evaluations; 0: only after the last step";
        eval_mc_samples: usize = "8" where POSITIVE, "Monte Carlo draws per held-out sequence";
        eval_sequences: usize = "256", "held-out sequences per evaluation; 0: all";
        checkpoint_every: u64 = "1000", "steps between checkpoints; 0: only after the last";
        keep_checkpoints: usize = "2" where POSITIVE, "newest checkpoints that are kept";
        export_dtype: ExportDType = "\"f32\"", "elements of model.safetensors: \"f32\" or \"bf16\"";
    }
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
        let given: Given = parse(text, path)?;
        let (expected, got) = ("left out in pre-training, see `llada sft`", "a section");
        require(given.sft.is_none(), "sft", expected, &got)?;
        require(given.lora.is_none(), "lora", expected, &got)?;
        given.resolve(&[], path)
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
        let has_file = !self.data.train.is_empty();
        require(has_file, "data.train", "a list with a file", &"[]")?;
        self.data.check_ranges()?;
        check_batch(&self.train, self.data.sequence_length)?;
        check_weights(&self.train_files())?;
        self.train.check_ranges()?;
        check_points(&self.train)?;
        let lora = self.lora.as_ref();
        lora.map_or(Ok(()), LoraSection::check_ranges)?;
        self.sft.as_ref().map_or(Ok(()), |sft| self.check_sft(sft))
    }
}

impl Given {
    /// Fills in the defaults, of which those of `other` come first, and checks the values.
    fn resolve(self, other: &[Key], path: &Path) -> Result<TrainConfig> {
        let config = TrainConfig {
            objective: self.objective.unwrap_or_else(|| value(OBJECTIVE.default)),
            seed: self.seed.unwrap_or_else(|| value(SEED.default)),
            data: self.data.resolve(other),
            model: self.model,
            train: self.train.resolve(other),
            sft: self.sft.map(|sft| sft.resolve(other)),
            lora: self.lora.map(|lora| lora.resolve(other)),
            folder: path.parent().map(Path::to_owned).unwrap_or_default(),
        };
        config.check()?;
        Ok(config)
    }
}

fn read(path: &Path) -> Result<String> {
    llada_files::read_text(path).map_err(io("reading", path))
}

/// The default of a key by its name with its section.
pub(crate) fn default_of(name: &str) -> Option<Value> {
    let sections = help::SECTIONS.iter().flat_map(|(_, keys)| *keys);
    let mut keys = sections.chain(SftConfig::KEYS).chain(LoraSection::KEYS);
    let is_named =
        |key: &&Key| name.rsplit_once('.').unwrap_or(("", name)) == (key.section, key.name);
    let key = keys.find(is_named).filter(|key| !key.default.is_empty())?;
    Some(value(key.default))
}

fn parse<T: serde::de::DeserializeOwned>(text: &str, path: &Path) -> Result<T> {
    toml::from_str(text).map_err(|source| Error::Config {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

fn check_batch(train: &OptimizationConfig, sequence_length: usize) -> Result<()> {
    let expected = "given, or train.batch_tokens in its place, but not both";
    let got = match (train.batch_size, train.batch_tokens) {
        (Some(_), None) => return Ok(()),
        (None, Some(tokens)) => {
            let (key, expected) = ("train.batch_tokens", "at least data.sequence_length");
            return require(tokens >= sequence_length, key, expected, &tokens);
        }
        (None, None) => "neither",
        (Some(_), Some(_)) => "both",
    };
    require(false, "train.batch_size", expected, &got)
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

fn check_points(train: &OptimizationConfig) -> Result<()> {
    let Some(points) = &train.learning_rate_points else {
        return Ok(());
    };
    let key = "train.learning_rate_points";
    require(!points.is_empty(), key, "a list with a point", &"[]")?;
    let is_sorted = points.is_sorted_by_key(|&(step, _)| step);
    let (expected, got) = ("in the order of the steps", "another order");
    require(is_sorted, key, expected, &got)?;
    let mut rates = points.iter().map(|&(_, rate)| rate);
    rates.try_for_each(|rate| check_range(key, rate, &AT_LEAST_0))
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
