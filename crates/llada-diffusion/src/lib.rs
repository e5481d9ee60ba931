//! Mathematics of LLaDA (arXiv 2502.09992): the forward process that masks tokens, the reverse
//! process that restores them, the losses and likelihood estimates between them, and the
//! [`MaskPredictor`] that all of it is written against.
#![forbid(unsafe_code)]

mod batch;
mod error;
mod forward;
mod predictor;

pub use batch::TokenBatch;
pub use error::{Error, Result};
pub use forward::{Noised, forward_process, p_mask};
pub use predictor::{MaskPredictor, Parameter, PredictorInfo, Trainable};

pub use llada_tensor::backend::{Candidate, Noise};
