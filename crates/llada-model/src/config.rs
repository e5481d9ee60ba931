//! What a Transformer is, in the words of `config.json` of LLaDA; other families are read into the
//! same description by `family.rs`.

mod eos;
mod extras;
mod names;

use std::num::NonZeroUsize;
use std::path::Path;

use llada_files::{looks_like, without_bom};
use llada_tensor::Precision;
use llada_tensor::quantize::{groups, padded};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::family::{self, Family};
use crate::{Error, Result};

pub use eos::EosTokenIds;
pub use extras::{EditTokens, Extras, MoeConfig};

/// Configuration of a mask predictor; fields as in `LLaDAConfig` of the reference.
///
/// Fields that this implementation has no use for are kept in [`Self::other`] and written back. Of
/// another family that is its whole `config.json`, in its own words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the fields of the published config.json"
)]
pub struct ModelConfig {
    /// Model classes, of which one names the [`Family`].
    #[serde(default = "architectures")]
    pub architectures: Vec<String>,
    /// `llada`, or the name of another family in transformers.
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
    /// `None`: attention sees everything. Set by the family or in code: no published LLaDA model
    /// has the field.
    #[serde(skip)]
    pub block_size: Option<NonZeroUsize>,
    /// Which models it belongs to.
    #[serde(skip)]
    pub family: Family,
    /// What it has that a dense LLaDA has not.
    #[serde(skip)]
    pub extras: Extras,
    /// All other fields.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn architectures() -> Vec<String> {
    vec![family::llada::ARCHITECTURE.to_owned()]
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

/// How the name of a router's weight ends.
const ROUTER: &str = ".router.weight";

/// Whether a parameter is the weight of a router or its bias.
pub(crate) fn is_of_router(parameter: &str) -> bool {
    parameter.contains(".router.")
}

/// Fields for which null says as much as nothing.
const OPTIONAL: [&str; 2] = ["architectures", "model_type"];

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
    /// [`Error::Json`] or [`Error::Config`]; [`Error::NoMaskToken`] if it does not say which token
    /// is the mask.
    pub fn from_json(json: &[u8], path: &Path) -> Result<Self> {
        Self::parse(json, path, |said, published| {
            said.or(published).ok_or_else(|| Error::NoMaskToken {
                path: path.to_owned(),
            })
        })
    }

    /// As [`Self::from_json`]; `mask` chooses the mask token, and is told what the configuration
    /// says, and what the published models of the family have.
    pub(crate) fn parse(
        json: &[u8],
        path: &Path,
        mask: impl FnOnce(Option<u32>, Option<u32>) -> Result<u32>,
    ) -> Result<Self> {
        const MASK: &str = "mask_token_id";
        let broken = |error| Error::json(path)(error).or_other(looks_like::JSON, path, json);
        let json = without_bom(json);
        let mut fields: Map<String, Value> = serde_json::from_slice(json).map_err(broken)?;
        // As transformers writes them for a class that sets none.
        fields.retain(|name, value| !(value.is_null() && OPTIONAL.contains(&name.as_str())));
        let unfit = |source| Error::Config {
            path: path.to_owned(),
            source: Box::new(source),
        };
        let family = Family::of(&fields).map_err(unfit)?;
        let said = match fields.get(MASK).filter(|value| !value.is_null()) {
            None => None,
            Some(value) => match value.as_u64().and_then(|id| u32::try_from(id).ok()) {
                Some(id) => Some(id),
                None => return Err(unfit(Error::unsupported(MASK, value, "the id of a token"))),
            },
        };
        let published = family.published_mask(&fields);
        fields.insert(MASK.to_owned(), mask(said, published)?.into());
        let config = match family {
            Family::Llada => {
                family::llada::prepare(&mut fields).map_err(unfit)?;
                serde_json::from_value(fields.into()).map_err(Error::json(path))?
            }
            _ => family.read(fields).map_err(unfit)?,
        };
        config
            .check()
            .map_err(|error| unfit(family.in_its_words(error)))?;
        Ok(config)
    }

    /// The configuration as it is written to `config.json`.
    ///
    /// # Panics
    /// Never: every field is representable in JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let json = match self.family {
            Family::Llada => serde_json::to_string_pretty(self),
            _ => serde_json::to_string_pretty(&self.other),
        };
        json.expect("plain fields and strings") + "\n"
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

    /// About how many bytes the weights of a [`crate::FrozenModel`] take, with its embedding or without.
    #[must_use]
    pub fn frozen_bytes(&self, precision: Precision, has_embedding: bool) -> usize {
        let packed = |n: usize, k: usize| match precision {
            Precision::F32 => 4 * n * k,
            // Without a file, there are no blocks.
            Precision::Bf16 | Precision::Blocks => 2 * n * k,
            Precision::Int8 => n * (padded(k) + 4),
            Precision::Int4 => n * (padded(k) / 2 + groups(precision, k) + 4),
        };
        let table = 2 * self.embedding_rows() * self.d_model;
        let shapes = self.parameter_shapes().into_iter();
        shapes.fold(0, |bytes, (name, shape)| {
            bytes
                + match *shape {
                    [n, k] if name.ends_with(ROUTER) => 4 * n * k,
                    [e, n, k] => e * packed(n, k),
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
        self.extras.head_dim.unwrap_or(self.d_model / self.n_heads)
    }

    /// The experts of a block, if it has any.
    #[must_use]
    pub fn experts(&self, layer: usize) -> Option<&MoeConfig> {
        let moe = self.extras.moe.as_ref()?;
        moe.layers
            .get(layer)
            .copied()
            .unwrap_or(false)
            .then_some(moe)
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

    /// Names and shapes of all parameters, in the order of the model; the names are those of LLaDA
    /// whatever the family. The weights of experts lie one behind the other, `[experts, N, K]`.
    #[must_use]
    pub fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (d, f, v) = (self.d_model, self.mlp_width(), self.embedding_rows());
        let (e, all_heads) = (self.head_dim(), self.n_heads * self.head_dim());
        let kv = self.kv_heads() * e;
        let Extras {
            qk_norm,
            attn_out_bias,
            mlp_bias,
            ..
        } = self.extras;
        let (attn_out_bias, mlp_bias) = (
            attn_out_bias || self.include_bias,
            mlp_bias || self.include_bias,
        );
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
            push(name("q_proj"), &[all_heads, d], self.qkv_bias());
            push(name("k_proj"), &[kv, d], self.qkv_bias());
            push(name("v_proj"), &[kv, d], self.qkv_bias());
            if qk_norm {
                push(name("q_norm"), &[e], false);
                push(name("k_norm"), &[e], false);
            }
            push(name("attn_out"), &[d, all_heads], attn_out_bias);
            push(name("ff_norm"), &[d], self.norm_bias());
            let mut mlp = |part: &str, experts: &[usize], width: usize| {
                let shape = |matrix: [usize; 2]| [experts, &matrix[..]].concat();
                push(
                    name(&format!("{part}ff_proj")),
                    &shape([width, d]),
                    mlp_bias,
                );
                push(
                    name(&format!("{part}up_proj")),
                    &shape([width, d]),
                    mlp_bias,
                );
                push(name(&format!("{part}ff_out")), &shape([d, width]), mlp_bias);
            };
            match self.experts(layer) {
                None => mlp("", &[], f),
                Some(moe) => {
                    let n_experts = moe.router.n_experts;
                    mlp("experts.", &[n_experts], moe.expert_width);
                    if let Some(width) = moe.shared_width {
                        mlp("shared_expert.", &[], width);
                    }
                    push(name("router"), &[n_experts, d], moe.router_bias);
                }
            }
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

    /// Number of parameters that one token meets: of the experts, those that it is sent to.
    #[must_use]
    pub fn active_parameters(&self) -> usize {
        let active = |(_, shape): &(String, Vec<usize>)| {
            let (met, of) = self.active_share(shape);
            shape.iter().product::<usize>() * met / of
        };
        self.parameter_shapes().iter().map(active).sum()
    }

    /// Of how many experts a token meets how many, of a parameter of a shape.
    fn active_share(&self, shape: &[usize]) -> (usize, usize) {
        match (&self.extras.moe, shape) {
            (Some(moe), [_, _, _]) => (moe.router.k, moe.router.n_experts),
            _ => (1, 1),
        }
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
            let all: u64 = shape.iter().map(|&n| n as u64).product();
            let (met, of) = self.active_share(shape);
            2 * all * times(name) as u64 * met as u64 / of as u64
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
        let architecture = self.family.architecture();
        if !self.architectures.iter().any(|name| name == architecture) {
            let value = self.architectures.join(", ");
            return unsupported("architectures", &value, architecture);
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
        match self.extras.head_dim {
            None if !self.d_model.is_multiple_of(2 * self.n_heads) => {
                return unsupported("d_model", &self.d_model, "an even multiple of n_heads");
            }
            Some(e) if e == 0 || e % 2 == 1 || e > 1 << 16 => {
                return unsupported("head_dim", &e, "an even number up to 65536");
            }
            _ => {}
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
        if let Some(moe) = &self.extras.moe {
            moe.check()?;
        }
        match self.family {
            Family::Llada => family::expect_values(&self.other, &family::llada::SUPPORTED_VALUES),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
