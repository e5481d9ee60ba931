//! Values that have names in a configuration.

use serde::{Deserialize, Serialize};

/// What is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// Masked diffusion, eq. 3 of the paper.
    Diffusion,
    /// Next-token prediction, for the baseline.
    Autoregressive,
}

/// How documents become sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// Documents are joined, EOS after each, and the stream is cut into sequences.
    Packed,
    /// Each document and its EOS is a sequence of its own; a longer one is cut into several.
    Documents,
}

/// Curve of the learning-rate decay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayShape {
    /// A straight line.
    Linear,
    /// `1 - sqrt(progress)`.
    OneMinusSqrt,
    /// Half a cosine.
    Cosine,
}

/// Precision of matrix products; parameters and sums are `f32` in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionName {
    /// Operands rounded to bfloat16.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// AdamW for every parameter, as in the paper.
    AdamW,
    /// Muon for the matrices of the blocks, AdamW for the rest.
    Muon,
}

/// How the masking ratios of a batch are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TSampler {
    /// Each by itself, as in the paper.
    Iid,
    /// Spread evenly over the batch: `(u0 + i / n) mod 1`.
    Stratified,
}

/// How much each masked token counts in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossWeight {
    /// `1 / p_mask`, eq. 3 of the paper: the loss is a bound of the likelihood.
    InverseP,
    /// All alike: the loss is the mean over the masked tokens.
    Uniform,
}

/// Element type of the exported model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportDType {
    /// As trained.
    F32,
    /// Rounded to bfloat16, half the size.
    Bf16,
}

/// Which prompts go through the chat template of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatUse {
    /// Conversations, if the model has a template.
    Auto,
    /// All.
    Always,
    /// None.
    Never,
}

/// What happens to pairs that are longer than `data.sequence_length`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TooLong {
    /// They are left out.
    Drop,
    /// The end of the answer is cut off, its EOS with it; a pair without room for an answer is
    /// left out.
    Cut,
}

/// Type of the ids of a pre-tokenized file without a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenDType {
    /// 2 bytes if the vocabulary has at most 65,536 entries, else 4.
    Auto,
    /// 2 bytes.
    Uint16,
    /// 4 bytes.
    Uint32,
    /// 4 bytes.
    Int32,
    /// 8 bytes.
    Int64,
}

/// Which answers of a conversation are learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnswerUse {
    /// Each.
    All,
    /// The last.
    Last,
}

/// Which tokens of fine-tuning are masked and learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaskUse {
    /// Those of answers.
    Answers,
    /// All, in sequences that hold several pairs.
    Packed,
}
