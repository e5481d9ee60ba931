//! Mathematics of LLaDA (arXiv 2502.09992): the forward process that masks tokens, the reverse
//! process that restores them, the losses and likelihood estimates between them, and the
//! [`MaskPredictor`] that all of it is written against.
#![forbid(unsafe_code)]

mod ahead;
mod autoregressive;
mod batch;
mod branch;
mod error;
mod forward;
mod likelihood;
mod loss;
mod predictor;
mod query;
mod ratio;
mod reverse;
mod schedule;
mod token_set;

pub use ahead::{
    Choose, Denoiser, DenoiserExtension, Denoising, DenoisingStep, Keep, RankBy, RemaskRule,
    denoiser,
};
pub use autoregressive::autoregressive_log_likelihood;
pub use batch::TokenBatch;
pub use branch::{Branch, read_ranges, write_ranges};
pub use error::{Error, Result};
pub use forward::{Noised, forward_process, p_mask};
pub use likelihood::{
    Estimate, Estimator, LikelihoodConfig, ScoredSequence, Scoring, TokenScore, chain_rule,
    log_likelihood, stratified_counts,
};
pub use loss::{diffusion_loss_weights, sft_loss_weights, uniform_loss_weights};
pub use predictor::{
    Export, MaskPredictor, Parameter, ParameterKind, PredictorInfo, PredictorKind, Trainable,
    expect_targets, losses_by_logits,
};
pub use query::{
    Cached, Candidates, Choice, Guidance, KvCache, Nucleus, Query, RowPlan, cross_entropies,
    guide_all,
};
pub use ratio::nats_per_token;
pub use reverse::{StepKey, reveal_probability};
pub use schedule::num_transfer_tokens;
pub use token_set::TokenSet;

pub use llada_tensor::backend::{Candidate, Noise};
