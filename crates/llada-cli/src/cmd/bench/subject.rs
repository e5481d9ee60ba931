//! What is measured: a model or a shape, on a device, in a precision.

use std::path::PathBuf;

use anyhow::Result;
use llada::diffusion::TokenBatch;
use llada::model::Error as ModelError;
use llada::tensor::{Philox, Stream};
use llada::{
    Checkpoint, Device, FrozenModel, LladaModel, ModelConfig, ModelSource, OpenOptions, Precision,
};
use serde_json::{Value, json};

use crate::args::SubjectArgs;
use crate::cmd::memory::check_room;
use crate::config::{Misuse, check_counts, device, precision, preset};

const CONFIG: &str = "config.json";

/// Where weights come from.
#[derive(Debug)]
enum Weights {
    Embedded,
    /// The shape's name.
    Random(String),
    Path(PathBuf),
}

#[derive(Debug)]
pub(super) struct Subject {
    pub(super) device: Device,
    pub(super) precision: Precision,
    pub(super) config: ModelConfig,
    /// Sequences.
    pub(super) batch: usize,
    weights: Weights,
    threads: usize,
    pub(super) seed: u64,
    options: OpenOptions,
}

impl Subject {
    /// What the flags ask for; no weight is made or read yet.
    pub(super) fn new(args: &SubjectArgs, batch: usize, usual: Option<&str>) -> Result<Self> {
        let device = device(&args.model.run)?;
        if !args.model.adapter.is_empty() {
            let hint = "--adapter: it is merged when a model is loaded and changes no speed; leave \
                        it out";
            return Err(Misuse::of(hint));
        }
        let asked = precision(args.model.dtype);
        let usual = usual.filter(|_| args.model.model.is_none());
        let (weights, config) = match (args.preset.as_deref().or(usual), &args.model.model) {
            (Some(name), _) => (Weights::Random(name.to_owned()), preset(name)?),
            (None, Some(model)) => {
                let path = crate::hub::resolve(model)?;
                match ModelSource::open_with(&path, args.model.open.into()) {
                    Err(ModelError::NotACheckpoint { missing, .. }) if missing != CONFIG => {
                        let config = ModelConfig::from_file(&path.join(CONFIG))?;
                        (Weights::Random(path.display().to_string()), config)
                    }
                    source => (Weights::Path(path), source?.config().clone()),
                }
            }
            (None, None) => {
                let config = Checkpoint::embedded()?.config().clone();
                (Weights::Embedded, config)
            }
        };
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            device,
            precision: asked.unwrap_or_else(|| config.default_precision()),
            config,
            batch: args.batch.unwrap_or(batch),
            weights,
            threads: match args.model.run.threads {
                0 => cores(),
                threads => threads,
            },
            seed: args.seed,
            options: args.model.open.into(),
        })
    }

    /// Fields of every result.
    pub(super) fn describe(&self) -> Value {
        let model = match &self.weights {
            Weights::Embedded => "embedded".to_owned(),
            Weights::Random(name) => name.clone(),
            Weights::Path(path) => path.display().to_string(),
        };
        json!({
            "model": model,
            "total_parameters": self.config.total_parameters(),
            "dtype": self.precision.name(),
            "device": self.device.backend().name(),
            "threads": self.threads,
            "batch": self.batch,
        })
    }

    /// That `length` positions (the value of `flag`) fit into the context, and that there is a
    /// batch of them.
    pub(super) fn check_length(&self, flag: &str, length: usize) -> Result<()> {
        let limit = self.config.max_sequence_length;
        check_counts(&[(flag, Some(length)), ("--batch", Some(self.batch))])?;
        if length > limit {
            return Err(Misuse::of(format!(
                "{flag}: {length} positions exceed the context of {limit}"
            )));
        }
        let tokens = self.batch.checked_mul(length);
        if tokens.is_none_or(|tokens| u32::try_from(tokens).is_err()) {
            let batch = self.batch;
            return Err(Misuse::of(format!(
                "--batch: {batch} sequences of {length} positions are too many"
            )));
        }
        Ok(())
    }

    /// The model for inference over `length` positions a sequence.
    pub(super) fn frozen(&self, length: usize) -> Result<FrozenModel> {
        let (device, precision) = (&self.device, self.precision);
        let check = |weights: usize| {
            let bytes = weights + self.activation_bytes(length);
            check_room(bytes as u64, "the model")
        };
        Ok(match &self.weights {
            Weights::Embedded => Checkpoint::embedded()?.frozen(device, precision)?.model,
            Weights::Random(_) => {
                check(self.config.frozen_bytes(precision, true))?;
                FrozenModel::random(self.config.clone(), device, precision, self.seed)?
            }
            Weights::Path(path) => {
                let source = ModelSource::open_with(path, self.options)?;
                check(source.frozen_bytes(precision))?;
                source.frozen(device, precision)?
            }
        })
    }

    /// The model for training on `length` tokens a sequence.
    pub(super) fn trainable(&self, length: usize) -> Result<LladaModel> {
        /// A parameter with its gradient and the two moments, `f32`.
        const BYTES: usize = 16;
        let blocks = self.config.n_layers * self.activation_bytes(length);
        let bytes = BYTES * self.config.total_parameters() + blocks;
        check_room(bytes as u64, "the training step")?;
        let (device, precision) = (&self.device, self.precision);
        Ok(match &self.weights {
            Weights::Path(path) => {
                ModelSource::open_with(path, self.options)?.trainable(device, precision)?
            }
            _ => LladaModel::random(self.config.clone(), device, precision, self.seed)?,
        })
    }

    /// About what a block works on, `f32`.
    fn activation_bytes(&self, length: usize) -> usize {
        4 * self.batch * length * (6 * self.config.d_model + 3 * self.config.mlp_width())
    }

    /// Random tokens, `length` in each sequence; none is a mask.
    pub(super) fn tokens(&self, length: usize) -> Result<TokenBatch> {
        let rng = Philox::new(self.seed, Stream::Test);
        let (vocab_size, mask) = (self.config.embedding_rows(), self.config.mask_token_id);
        let counter = |x: usize| u32::try_from(x).unwrap_or(u32::MAX);
        let id = |row: usize, at: usize| {
            let id = rng.below(vocab_size as u64, [counter(at), counter(row), 0]);
            let id = u32::try_from(id).unwrap_or_default();
            // The neighbor of the mask, or the first.
            match id == mask {
                true if id > 0 => id - 1,
                true => counter(1 % vocab_size),
                false => id,
            }
        };
        let sequence = |row| (0..length).map(|at| id(row, at)).collect::<Vec<u32>>();
        let sequences: Vec<_> = (0..self.batch).map(sequence).collect();
        Ok(TokenBatch::new(&sequences)?)
    }
}
