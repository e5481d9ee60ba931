//! The architectures of GGUF that run here, with the names of llama.cpp.
//!
//! Source: `conversion/llada.py`, `conversion/dream.py` and `src/llama-arch.cpp` of llama.cpp.

use serde_json::{Map, Value as Json};

use crate::config::ModelConfig;
use crate::family::{Family, llada};
use crate::{Error, Result};

/// An architecture: which family it is, and what its keys mean in `config.json` of that family.
#[derive(Debug)]
pub(super) struct Architecture {
    /// In `general.architecture`, and before its keys.
    pub(super) name: &'static str,
    pub(super) family: Family,
    /// Fields of numbers and the ends of the keys that hold them.
    pub(super) required: &'static [(&'static str, &'static str)],
    pub(super) optional: &'static [(&'static str, &'static str)],
    /// The field for the rows of the embedding.
    pub(super) vocab_size: &'static str,
    /// The field for whether the head is the embedding.
    pub(super) tied: &'static str,
    /// Whether queries and keys are in the order of an interleaved rotary embedding.
    pub(super) is_interleaved: bool,
    /// `diffusion.shift_logits`.
    pub(super) shifts_logits: bool,
}

pub(super) const ARCHITECTURES: [Architecture; 3] = [
    Architecture {
        name: "llada",
        family: Family::Llada,
        required: &[
            ("d_model", "embedding_length"),
            ("n_layers", "block_count"),
            ("n_heads", "attention.head_count"),
            ("mlp_hidden_size", "feed_forward_length"),
            ("max_sequence_length", "context_length"),
        ],
        optional: &[
            ("n_kv_heads", "attention.head_count_kv"),
            ("vocab_size", "vocab_size"),
        ],
        vocab_size: "embedding_size",
        tied: "weight_tying",
        is_interleaved: true,
        shifts_logits: false,
    },
    Architecture {
        name: "llada-moe",
        family: Family::LladaMoe,
        required: &[
            ("hidden_size", "embedding_length"),
            ("num_hidden_layers", "block_count"),
            ("num_attention_heads", "attention.head_count"),
            ("max_position_embeddings", "context_length"),
            ("num_experts", "expert_count"),
            ("num_experts_per_tok", "expert_used_count"),
            ("expert_intermediate_size", "expert_feed_forward_length"),
        ],
        optional: &[
            ("num_key_value_heads", "attention.head_count_kv"),
            ("dense_intermediate_size", "feed_forward_length"),
        ],
        vocab_size: "vocab_size",
        tied: "tie_word_embeddings",
        is_interleaved: false,
        shifts_logits: false,
    },
    Architecture {
        name: "dream",
        family: Family::Dream,
        required: &[
            ("hidden_size", "embedding_length"),
            ("num_hidden_layers", "block_count"),
            ("num_attention_heads", "attention.head_count"),
            ("intermediate_size", "feed_forward_length"),
            ("max_position_embeddings", "context_length"),
        ],
        optional: &[("num_key_value_heads", "attention.head_count_kv")],
        vocab_size: "vocab_size",
        tied: "tie_word_embeddings",
        is_interleaved: false,
        shifts_logits: true,
    },
];

/// The keys of tokens, without a prefix, and the fields that they are.
pub(super) const TOKENS: [(&str, &str); 3] = [
    ("mask_token_id", "tokenizer.ggml.mask_token_id"),
    ("eos_token_id", "tokenizer.ggml.eos_token_id"),
    ("pad_token_id", "tokenizer.ggml.padding_token_id"),
];

impl Architecture {
    /// The one of a family, if llama.cpp has one.
    pub(super) fn of(family: Family) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|found| found.family == family)
    }

    /// A key of the architecture.
    pub(super) fn key(&self, end: &str) -> String {
        format!("{}.{end}", self.name)
    }

    /// The configuration of fields with their values, which is checked.
    pub(super) fn config(&self, mut fields: Map<String, Json>) -> Result<ModelConfig> {
        let config = match self.family {
            Family::Llada => {
                llada::prepare(&mut fields)?;
                serde_json::from_value(fields.into())
                    .expect("every field is there, with a number in its range")
            }
            family => {
                let architecture = vec![Json::from(family.architecture())];
                fields.insert("architectures".to_owned(), architecture.into());
                family.read(fields)?
            }
        };
        config
            .check()
            .map_err(|error| self.family.in_its_words(error))?;
        Ok(config)
    }

    /// The key that holds a field.
    pub(super) fn key_of(&self, field: &str) -> String {
        let own = self.required.iter().chain(self.optional);
        let of_token = TOKENS.iter().find(|(name, _)| *name == field);
        match (own.clone().find(|(name, _)| *name == field), of_token) {
            (Some((_, end)), _) => self.key(end),
            (None, Some((_, key))) => (*key).to_owned(),
            (None, None) => self.key("vocab_size"),
        }
    }
}

/// The error about a model whose family has no architecture in GGUF.
pub(super) fn no_architecture(family: Family) -> Error {
    let known = ARCHITECTURES
        .iter()
        .map(|found| found.family.architecture());
    let expected = format!(
        "a family that llama.cpp has: {}; convert to a folder",
        known.collect::<Vec<_>>().join(", ")
    );
    Error::unsupported("architectures", family.architecture(), expected)
}
