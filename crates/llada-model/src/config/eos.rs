//! `eos_token_id`, which may be a list.

use serde::{Deserialize, Serialize};

/// The tokens that end a text: an id or, as transformers has it too, a list, of which the first is
/// the usual one. Written back as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[serde(expecting = "eos_token_id is neither an id nor a list of ids")]
pub enum EosTokenIds {
    /// One id.
    One(u32),
    /// Several ids, at least one.
    Several(Vec<u32>),
}

impl EosTokenIds {
    /// The one that training puts behind a document.
    ///
    /// # Panics
    /// For an empty list, which [`super::ModelConfig::check`] refuses.
    #[must_use]
    pub fn usual(&self) -> u32 {
        self.all()[0]
    }

    /// All of them, each of which ends an answer.
    #[must_use]
    pub fn all(&self) -> &[u32] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Several(ids) => ids,
        }
    }
}
