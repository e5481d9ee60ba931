//! The families of models that run here, each in a file of its own: which `config.json` it is, what
//! its fields mean in the words of [`ModelConfig`], and how its tensors are called.
//!
//! A model is dispatched on `architectures` before any other field is read: of another family the
//! first field that is missing would be named, which says nothing. How to add a family is told in
//! CONTRIBUTING.md.

mod dream;
mod fields;
mod illada;
pub(crate) mod llada;
mod llada2;
mod llada_moe;
pub(crate) mod mask;
pub(crate) mod places;
mod rope;

use serde_json::{Map, Value};

use crate::{Error, ModelConfig, Result};
use fields::Reader;
pub(crate) use fields::expect_values;
use places::Names;

type Fields = Map<String, Value>;

/// Models that share fields, names of tensors and formulas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Family {
    /// The dense LLaDA of arXiv 2502.09992, `LLaDAModelLM`.
    #[default]
    Llada,
    /// iLLaDA, `ILLaDAForCausalLM`.
    Illada,
    /// LLaDA-MoE, `LLaDAMoEModelLM`.
    LladaMoe,
    /// `LLaDA2.0`, `LLaDA2.1` and `LLaDA2.2`, `LLaDA2MoeModelLM`.
    Llada2,
    /// Dream, Dream-Coder and `DiffuCoder`, `DreamModel`.
    Dream,
}

/// What a family is, but for its fields.
struct Definition {
    family: Family,
    /// In `architectures` of `config.json`.
    architecture: &'static str,
    /// In `model_type`, if that says which family it is.
    model_type: Option<&'static str>,
    read: fn(Reader) -> Result<ModelConfig>,
    names: Names,
    /// Rows of the vocabulary of the published models and the mask in it, where neither their
    /// configuration nor their tokenizer says which token that is.
    published_mask: Option<(u64, u32)>,
}

/// All families but LLaDA, whose fields and names are those of [`ModelConfig`].
const FAMILIES: [Definition; 4] = [
    illada::DEFINITION,
    llada_moe::DEFINITION,
    llada2::DEFINITION,
    dream::DEFINITION,
];

/// Diffusion language models that do not run here: how their architectures begin, in lower case and
/// without underscores, what they are, and why.
const OTHERS: [(&str, &str, &str); 5] = [
    (
        "diffusiongemma",
        "DiffusionGemma",
        "the layers of Gemma are not implemented",
    ),
    (
        "sdar",
        "SDAR",
        "no run of its reference was recorded that could prove it",
    ),
    (
        "fastdllm",
        "Fast-dLLM v2",
        "no run of its reference was recorded that could prove it",
    ),
    (
        "wedlm",
        "WeDLM",
        "it fills in masks with causal attention over a reordered text (arXiv 2512.22737), which no \
         protocol here does",
    ),
    (
        "nemotron",
        "Nemotron",
        "its layers and its protocol are not implemented",
    ),
];

impl Family {
    /// All families.
    pub const ALL: [Self; 5] = [
        Self::Llada,
        Self::Illada,
        Self::LladaMoe,
        Self::Llada2,
        Self::Dream,
    ];

    /// The name in `architectures`.
    #[must_use]
    pub fn architecture(self) -> &'static str {
        self.definition()
            .map_or(llada::ARCHITECTURE, |found| found.architecture)
    }

    fn definition(self) -> Option<&'static Definition> {
        FAMILIES.iter().find(|found| found.family == self)
    }

    /// The family of a `config.json`.
    ///
    /// # Errors
    /// [`Error::UnsupportedField`]; [`Error::OtherFamily`] for a diffusion model that is known and
    /// does not run here.
    pub(crate) fn of(fields: &Fields) -> Result<Self> {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let names: Vec<String> = match fields.get("architectures") {
            None => Vec::new(),
            Some(Value::Array(names)) => names.iter().map(text).collect(),
            Some(other) => vec![text(other)],
        };
        let named = |family: &Self| names.iter().any(|name| name == family.architecture());
        if let Some(family) = Self::ALL.into_iter().find(named) {
            return Ok(family);
        }
        let model_type = fields.get("model_type").map(text);
        for name in names.iter().chain(&model_type) {
            let plain = name.to_lowercase().replace('_', "");
            if let Some((_, what, reason)) =
                OTHERS.iter().find(|(start, _, _)| plain.starts_with(start))
            {
                let architecture = name.clone();
                return Err(Error::OtherFamily {
                    architecture,
                    what,
                    reason,
                });
            }
        }
        let unsupported = |field, value: &str| {
            let known = Self::ALL.map(Self::architecture);
            Err(Error::unsupported(field, value, known.join(" or ")))
        };
        if fields.contains_key("architectures") {
            return unsupported("architectures", &names.join(", "));
        }
        let is_typed = |found: &&Definition| {
            found.model_type.is_some() && found.model_type == model_type.as_deref()
        };
        if let Some(found) = FAMILIES.iter().find(is_typed) {
            return Ok(found.family);
        }
        match &model_type {
            Some(name) if name != llada::MODEL_TYPE => {
                let known = FAMILIES.iter().filter_map(|found| found.model_type);
                let known: Vec<&str> = [llada::MODEL_TYPE].into_iter().chain(known).collect();
                Err(Error::unsupported("model_type", name, known.join(" or ")))
            }
            _ if fields.contains_key("hidden_size") && !fields.contains_key("d_model") => {
                let got = "missing, and hidden_size is there in place of d_model,";
                unsupported("architectures", got)
            }
            _ => Ok(Self::Llada),
        }
    }

    /// The mask of the published models of the family, if `fields` are those of one: the last resort,
    /// where no file says it.
    pub(crate) fn published_mask(self, fields: &Fields) -> Option<u32> {
        let (rows, mask) = self.definition()?.published_mask?;
        let vocab_size = fields.get("vocab_size").and_then(Value::as_u64);
        (vocab_size == Some(rows)).then_some(mask)
    }

    /// Reads the fields of a family other than LLaDA.
    pub(crate) fn read(self, fields: Fields) -> Result<ModelConfig> {
        let definition = self
            .definition()
            .expect("LLaDA's fields are those of ModelConfig");
        (definition.read)(Reader::new(self, fields))
    }

    /// How its tensors are called.
    pub(crate) fn names(self) -> Names {
        self.definition().map_or(llada::NAMES, |found| found.names)
    }

    /// An error about a field of LLaDA as one about the field of this family that it came from.
    pub(crate) fn in_its_words(self, error: Error) -> Error {
        let Error::UnsupportedField {
            field,
            value,
            expected,
        } = error
        else {
            return error;
        };
        if self == Self::Llada {
            return Error::UnsupportedField {
                field,
                value,
                expected,
            };
        }
        let own = fields::OWN.iter().find(|(llada, _)| *llada == field);
        let expected = fields::OWN
            .iter()
            .fold(expected, |text, (llada, own)| text.replace(llada, own));
        Error::UnsupportedField {
            field: own.map_or(field, |(_, own)| own),
            value,
            expected,
        }
    }
}

#[cfg(test)]
mod tests;
