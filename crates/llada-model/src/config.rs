//! `config.json` of the published checkpoints, with the field names of the reference.

mod eos;
mod fields;
mod names;

use std::num::NonZeroUsize;
use std::path::Path;

use llada_files::{looks_like, without_bom};
use llada_tensor::Precision;
use llada_tensor::quantize::{groups, padded};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Result};

pub use eos::EosTokenIds;

/// Configuration of a mask predictor; fields as in `LLaDAConfig` of the reference.
///
/// Fields that this implementation has no use for are kept in [`Self::other`] and written back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the fields of the published config.json"
)]
pub struct ModelConfig {
    /// Model classes; `LLaDAModelLM` is supported.
    #[serde(default = "architectures")]
    pub architectures: Vec<String>,
    /// Always `llada`.
    #[serde(default = "model_type")]
    pub model_type: String,
    /// Width `D`.
    pub d_model: usize,
    /// Query heads `H`.
    pub n_heads: usize,
    /// Key and value heads `K`; null means `n_heads`.
    #[serde(default)]
    pub n_kv_heads: Option<usize>,
    /// Blocks.
    pub n_layers: usize,
    /// Width `F` of the MLP; null means `mlp_ratio * d_model`.
    #[serde(default)]
    pub mlp_hidden_size: Option<usize>,
    /// Used if `mlp_hidden_size` is null.
    #[serde(default = "mlp_ratio")]
    pub mlp_ratio: usize,
    /// Tokens that the tokenizer knows.
    pub vocab_size: usize,
    /// Rows of the embedding and of the head; null means `vocab_size`.
    #[serde(default)]
    pub embedding_size: Option<usize>,
    /// Longest sequence.
    #[serde(default = "max_sequence_length")]
    pub max_sequence_length: usize,
    /// Base of the rotary frequencies.
    #[serde(default = "rope_theta")]
    pub rope_theta: f32,
    /// Added to the mean square in norms.
    #[serde(default = "rms_norm_eps")]
    pub rms_norm_eps: f32,
    /// Biases in every linear layer.
    #[serde(default)]
    pub include_bias: bool,
    /// Biases in `q_proj`, `k_proj` and `v_proj`.
    #[serde(default)]
    pub include_qkv_bias: bool,
    /// Biases in norms; null means `include_bias`.
    #[serde(default)]
    pub bias_for_layer_norm: Option<bool>,
    /// The head is the embedding.
    #[serde(default)]
    pub weight_tying: bool,
    /// The mask M.
    pub mask_token_id: u32,
    /// End of a document.
    pub eos_token_id: EosTokenIds,
    /// Padding; null means `eos_token_id`, of several the first.
    #[serde(default)]
    pub pad_token_id: Option<u32>,
    /// Causal attention: for the autoregressive baseline only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub causal: bool,
    /// Positions of a block of block-causal attention, which sees its own block and those before;
    /// `None`: attention sees everything. Set in code: no published LLaDA model has the field.
    #[serde(skip)]
    pub block_size: Option<NonZeroUsize>,
    /// All other fields.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn architectures() -> Vec<String> {
    vec![SUPPORTED_ARCHITECTURE.to_owned()]
}
fn model_type() -> String {
    "llada".to_owned()
}
fn mlp_ratio() -> usize {
    4
}
fn max_sequence_length() -> usize {
    1024
}
fn rope_theta() -> f32 {
    10_000.0
}
fn rms_norm_eps() -> f32 {
    1e-5
}

/// Fields for which null says as much as nothing.
const OPTIONAL: [&str; 2] = ["architectures", "model_type"];
const SUPPORTED_ARCHITECTURE: &str = "LLaDAModelLM";

/// Fields of the reference that change the computation, with the values that are supported.
const SUPPORTED_VALUES: [(&str, &[&str]); 11] = [
    ("activation_type", &["\"silu\"", "\"swiglu\""]),
    ("block_type", &["\"llama\""]),
    ("layer_norm_type", &["\"rms\""]),
    ("rope", &["true"]),
    ("alibi", &["false"]),
    ("attention_layer_norm", &["false"]),
    ("input_emb_norm", &["false"]),
    ("layer_norm_with_affine", &["true"]),
    ("scale_logits", &["false"]),
    ("block_group_size", &["1"]),
    ("multi_query_attention", &["null", "false"]),
];

impl ModelConfig {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`] or [`Error::Config`].
    pub fn from_file(path: &Path) -> Result<Self> {
        let json = std::fs::read(path).map_err(Error::io("reading", path))?;
        Self::from_json(&json, path)
    }

    /// Parses and checks a configuration; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Json`] or [`Error::Config`].
    pub fn from_json(json: &[u8], path: &Path) -> Result<Self> {
        let broken = |error| Error::json(path)(error).or_other(looks_like::JSON, path, json);
        let json = without_bom(json);
        let mut fields: Map<String, Value> = serde_json::from_slice(json).map_err(broken)?;
        // As transformers writes them for a class that sets none.
        fields.retain(|name, value| !(value.is_null() && OPTIONAL.contains(&name.as_str())));
        let unfit = |source| Error::Config {
            path: path.to_owned(),
            source: Box::new(source),
        };
        fields::check_kind(&fields).map_err(unfit)?;
        fields::take_rope(&mut fields).map_err(unfit)?;
        let config: Self = serde_json::from_value(fields.into()).map_err(Error::json(path))?;
        config.check().map_err(unfit)?;
        Ok(config)
    }

    /// The configuration as it is written to `config.json`.
    ///
    /// # Panics
    /// Never: every field is representable in JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain fields and strings") + "\n"
    }

    /// The precision of a checkpoint of integers, see [`crate::convert`].
    ///
    /// # Errors
    /// [`Error::UnsupportedField`] if its weights were quantised in another way.
    pub fn quantized(&self) -> Result<Option<Precision>> {
        crate::quantized::of_config(&self.other)
    }

    /// The precision for who has no wish: that of a converted model, else as exact as memory
    /// allows: models of more than a billion parameters are multiplied in bf16.
    #[must_use]
    pub fn default_precision(&self) -> Precision {
        const LARGE: usize = 1_000_000_000;
        match self.quantized() {
            Ok(Some(precision)) => precision,
            _ if self.total_parameters() > LARGE => Precision::Bf16,
            _ => Precision::F32,
        }
    }

    /// Bytes of the weights of a [`crate::FrozenModel`], with its embedding or without.
    pub(crate) fn frozen_bytes(&self, precision: Precision, has_embedding: bool) -> usize {
        let packed = |n: usize, k: usize| match precision {
            Precision::F32 => 4 * n * k,
            Precision::Bf16 => 2 * n * k,
            Precision::Int8 => n * (padded(k) + 4),
            Precision::Int4 => n * (padded(k) / 2 + groups(precision, k) + 4),
        };
        let table = 2 * self.embedding_rows() * self.d_model;
        let shapes = self.parameter_shapes().into_iter();
        shapes.fold(0, |bytes, (name, shape)| {
            bytes
                + match *shape {
                    [n, k] if !name.ends_with("wte.weight") => packed(n, k),
                    [n, k] => {
                        let of_table = if has_embedding { table } else { 0 };
                        let of_head = if self.weight_tying { packed(n, k) } else { 0 };
                        of_table + of_head
                    }
                    _ => 4 * shape.iter().product::<usize>(),
                }
        })
    }

    /// Key and value heads.
    #[must_use]
    pub fn kv_heads(&self) -> usize {
        self.n_kv_heads.unwrap_or(self.n_heads)
    }

    /// Width of one head, `E`.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.d_model / self.n_heads
    }

    /// Width of the MLP, `F`.
    #[must_use]
    pub fn mlp_width(&self) -> usize {
        self.mlp_hidden_size
            .unwrap_or(self.mlp_ratio * self.d_model)
    }

    /// Rows of the embedding, `V`.
    #[must_use]
    pub fn embedding_rows(&self) -> usize {
        self.embedding_size.unwrap_or(self.vocab_size)
    }

    /// Whether norms have a bias.
    #[must_use]
    pub fn norm_bias(&self) -> bool {
        self.bias_for_layer_norm.unwrap_or(self.include_bias)
    }

    /// Whether `q_proj`, `k_proj` and `v_proj` have a bias.
    #[must_use]
    pub fn qkv_bias(&self) -> bool {
        self.include_bias || self.include_qkv_bias
    }

    /// Names and shapes of all parameters, in the order of the model.
    #[must_use]
    pub fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (d, f, v) = (self.d_model, self.mlp_width(), self.embedding_rows());
        let kv = self.kv_heads() * self.head_dim();
        let mut shapes = Vec::new();
        let mut push = |name: String, shape: &[usize], bias: bool| {
            shapes.push((format!("{name}.weight"), shape.to_vec()));
            if bias {
                shapes.push((format!("{name}.bias"), shape[..1].to_vec()));
            }
        };
        let name = |part: &str| format!("model.transformer.{part}");
        push(name("wte"), &[v, d], false);
        for layer in 0..self.n_layers {
            let name = |part: &str| format!("model.transformer.blocks.{layer}.{part}");
            push(name("attn_norm"), &[d], self.norm_bias());
            push(name("q_proj"), &[d, d], self.qkv_bias());
            push(name("k_proj"), &[kv, d], self.qkv_bias());
            push(name("v_proj"), &[kv, d], self.qkv_bias());
            push(name("attn_out"), &[d, d], self.include_bias);
            push(name("ff_norm"), &[d], self.norm_bias());
            push(name("ff_proj"), &[f, d], self.include_bias);
            push(name("up_proj"), &[f, d], self.include_bias);
            push(name("ff_out"), &[d, f], self.include_bias);
        }
        push(name("ln_f"), &[d], self.norm_bias());
        if !self.weight_tying {
            push(name("ff_out"), &[v, d], self.include_bias);
        }
        shapes
    }

    /// Number of parameters.
    #[must_use]
    pub fn total_parameters(&self) -> usize {
        self.parameter_shapes()
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum()
    }

    /// Number of parameters without the embedding and the head, as the paper counts.
    #[must_use]
    pub fn non_embedding_parameters(&self) -> usize {
        let matrices = if self.weight_tying { 1 } else { 2 };
        self.total_parameters() - matrices * self.embedding_rows() * self.d_model
    }

    /// FLOPs of a forward pass over `positions`, of which `asked` are predicted: two for each
    /// parameter and position that meet, the input embedding left out. Only what is predicted goes
    /// through the head and through the layers behind the last attention.
    ///
    /// The products within attention are not counted: they grow with the square of the length.
    #[must_use]
    pub fn forward_flops(&self, positions: usize, asked: usize) -> u64 {
        let last = format!("blocks.{}.", self.n_layers.saturating_sub(1));
        let times = |name: &str| {
            let name = name.trim_start_matches("model.transformer.");
            let is_one_of =
                |name: &str, parts: &[&str]| parts.iter().any(|part| name.starts_with(part));
            match name.strip_prefix(&last) {
                Some(part) if is_one_of(part, &["attn_norm", "q_", "k_", "v_"]) => positions,
                None if name.starts_with("blocks.") => positions,
                None if name.starts_with("wte") && !self.weight_tying => 0,
                _ => asked,
            }
        };
        let flops = |(name, shape): &(String, Vec<usize>)| {
            2 * shape
                .iter()
                .chain([&times(name)])
                .map(|&n| n as u64)
                .product::<u64>()
        };
        self.parameter_shapes().iter().map(flops).sum()
    }

    /// Checks that this implementation computes what the configuration describes.
    ///
    /// # Errors
    /// [`Error::UnsupportedField`] names the first field that does not fit.
    pub fn check(&self) -> Result<()> {
        let unsupported = |field, value: &dyn std::fmt::Display, expected: &str| {
            Err(Error::unsupported(field, value, expected))
        };
        let is_supported = |name: &String| name == SUPPORTED_ARCHITECTURE;
        if !self.architectures.iter().any(is_supported) {
            let value = self.architectures.join(", ");
            return unsupported("architectures", &value, SUPPORTED_ARCHITECTURE);
        }
        for (field, value) in [
            ("d_model", self.d_model),
            ("n_heads", self.n_heads),
            ("n_kv_heads", self.kv_heads()),
            ("n_layers", self.n_layers),
            ("mlp_hidden_size", self.mlp_width()),
            ("vocab_size", self.vocab_size),
            ("max_sequence_length", self.max_sequence_length),
        ] {
            if value == 0 || value > 1 << 28 {
                return unsupported(field, &value, "a number from 1 to 2^28");
            }
        }
        if !self.d_model.is_multiple_of(2 * self.n_heads) {
            return unsupported("d_model", &self.d_model, "an even multiple of n_heads");
        }
        if !self.n_heads.is_multiple_of(self.kv_heads()) {
            return unsupported("n_kv_heads", &self.kv_heads(), "a divisor of n_heads");
        }
        if self.embedding_rows() < self.vocab_size {
            let rows = self.embedding_rows();
            return unsupported("embedding_size", &rows, "at least vocab_size");
        }
        let ends = self.eos_token_id.all();
        if ends.is_empty() {
            return unsupported("eos_token_id", &"[]", "an id or a list of ids");
        }
        let ends = ends.iter().map(|&id| ("eos_token_id", id));
        for (field, id) in [("mask_token_id", self.mask_token_id)]
            .into_iter()
            .chain(ends)
        {
            if id as usize >= self.embedding_rows() {
                return unsupported(field, &id, "an id below embedding_size");
            }
        }
        for (field, supported) in SUPPORTED_VALUES {
            if let Some(value) = self.other.get(field)
                && !supported.contains(&value.to_string().as_str())
            {
                return unsupported(field, value, &supported.join(" or "));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
