//! Training of masked diffusion language models and of their autoregressive twins: data, batches,
//! AdamW and Muon, the learning-rate schedule, checkpoints that survive a crash, metrics and the
//! picture of the loss.
//!
//! [`train`] sees a model only as [`llada_diffusion::Trainable`]. Everything that is drawn is a
//! function of the seed and of a counter, so that a resumed run is bit-identical to one that was
//! never stopped.
//!
//! A run may be shared by several processes, which talk through a [`Communicator`]: each has the
//! model, computes its micro-batches of every step, and keeps a share of the optimizer's state.

#![forbid(unsafe_code)]

mod batch;
mod checkpoint;
mod communicator;
mod config;
mod data;
mod durable;
mod error;
mod eval;
mod events;
mod guard;
mod lr;
mod metrics;
mod optim;
mod pairs;
mod plot;
mod run_folder;
mod sft;
mod shards;
mod step;
mod tensor_file;
mod train;

pub use batch::{Batch, BatchSampler, BatchState, FilePosition};
pub use checkpoint::parameters_checksum;
#[cfg(feature = "mpi")]
pub use communicator::Mpi;
pub use communicator::{Communicator, Single, Wait};
pub use config::help::{config_help, sft_config_help};
pub use config::{
    AnswerUse, ChatUse, DataConfig, DecayShape, ExportDType, LoraSection, LossWeight, MaskUse,
    Objective, OptimizationConfig, OptimizerName, Packing, PrecisionName, SftConfig, TSampler,
    TokenDType, TooLong, TrainConfig, WeightedPath,
};
pub use data::{Cut, Data, Source, SpecialIds, tokenizer_for};
pub use error::{Error, Result};
pub use eval::{EvalConfig, Evaluation, evaluate};
pub use lr::learning_rate;
pub use metrics::{MetricsLine, read_metrics};
pub use optim::{Optimizer, Update};
pub use plot::loss_svg;
pub use run_folder::RunFolder;
pub use step::{StepReport, train_step};
pub use train::{Observer, Setup, Silent, Start, Summary, train};
