//! Reading the fields of a `config.json` in the words of transformers.

use serde_json::Value;

use super::{Family, Fields, rope};
use crate::config::{EosTokenIds, Extras};
use crate::{Error, ModelConfig, Result};

/// Fields of LLaDA, and those of the other families that say the same.
pub(super) const OWN: [(&str, &str); 6] = [
    ("n_kv_heads", "num_key_value_heads"),
    ("n_heads", "num_attention_heads"),
    ("n_layers", "num_hidden_layers"),
    ("max_sequence_length", "max_position_embeddings"),
    ("d_model", "hidden_size"),
    ("embedding_size", "vocab_size"),
];

/// The fields of a family, read one by one.
pub(super) struct Reader {
    family: Family,
    fields: Fields,
}

impl Reader {
    pub(super) fn new(family: Family, fields: Fields) -> Self {
        Self { family, fields }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &'static str, expected: &str) -> Error {
        let value = self
            .get(name)
            .map_or("missing".to_owned(), Value::to_string);
        Error::unsupported(name, value, expected)
    }

    /// A number from 0 to 2^28.
    pub(super) fn count(&self, name: &'static str) -> Result<usize> {
        let expected = "a number from 0 to 2^28";
        let number = self.get(name).and_then(Value::as_u64);
        let number = number.filter(|&n| n <= 1 << 28);
        let number = number.and_then(|n| usize::try_from(n).ok());
        number.ok_or_else(|| self.wrong(name, expected))
    }

    /// As [`Self::count`]; `None` if it is missing or null.
    pub(super) fn optional_count(&self, name: &'static str) -> Result<Option<usize>> {
        self.get(name).map(|_| self.count(name)).transpose()
    }

    /// The id of a token.
    pub(super) fn id(&self, name: &'static str) -> Result<u32> {
        let id = self.get(name).and_then(Value::as_u64);
        let id = id.and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| self.wrong(name, "the id of a token"))
    }

    /// A finite number.
    #[expect(clippy::cast_possible_truncation, reason = "values are f32")]
    pub(super) fn real(&self, name: &'static str) -> Result<f32> {
        let value = self.get(name).and_then(Value::as_f64).map(|x| x as f32);
        let value = value.filter(|x| x.is_finite());
        value.ok_or_else(|| self.wrong(name, "a number"))
    }

    /// As [`Self::real`]; `None` if it is missing or null.
    pub(super) fn optional_real(&self, name: &'static str) -> Result<Option<f32>> {
        self.get(name).map(|_| self.real(name)).transpose()
    }

    /// True or false; what it is if it is missing is up to the caller.
    pub(super) fn flag(&self, name: &'static str, default: bool) -> Result<bool> {
        let flag = self.get(name).map(Value::as_bool);
        let flag = flag.unwrap_or(Some(default));
        flag.ok_or_else(|| self.wrong(name, "true or false"))
    }

    /// A list of numbers; `None` if it is missing or null.
    pub(super) fn counts(&self, name: &'static str) -> Result<Option<Vec<u64>>> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let list = value.as_array().map(|list| list.iter().map(Value::as_u64));
        let list = list.and_then(|numbers| numbers.collect::<Option<_>>());
        list.map(Some)
            .ok_or_else(|| self.wrong(name, "a list of numbers"))
    }

    /// Refuses the values of fields that mean another computation.
    pub(super) fn expect(&self, supported: &[(&'static str, &[&str])]) -> Result<()> {
        expect_values(&self.fields, supported)
    }

    /// What all families call by the same names. `is_partial`: of a head only some dimensions are
    /// rotated.
    pub(super) fn common(mut self, extras: Extras, is_partial: bool) -> Result<ModelConfig> {
        self.expect(&[("hidden_act", &["\"silu\"", "\"swish\""])])?;
        rope::take_base(&mut self.fields, is_partial)?;
        let eos = match self.get("eos_token_id") {
            None => return Err(self.wrong("eos_token_id", "an id or a list of ids")),
            Some(value) => serde_json::from_value::<EosTokenIds>(value.clone())
                .map_err(|_| self.wrong("eos_token_id", "an id or a list of ids"))?,
        };
        let vocab_size = self.count("vocab_size")?;
        let n_heads = self.count("num_attention_heads")?;
        if n_heads == 0 {
            return Err(self.wrong("num_attention_heads", "at least 1"));
        }
        let pad = self.get("pad_token_id");
        let architecture = self.family.architecture().to_owned();
        let model_type = self.get("model_type").and_then(Value::as_str);
        Ok(ModelConfig {
            architectures: vec![architecture],
            model_type: model_type.unwrap_or_default().to_owned(),
            d_model: self.count("hidden_size")?,
            n_heads,
            n_kv_heads: self.optional_count("num_key_value_heads")?,
            n_layers: self.count("num_hidden_layers")?,
            mlp_hidden_size: None,
            mlp_ratio: 4,
            vocab_size,
            embedding_size: Some(vocab_size),
            max_sequence_length: self.count("max_position_embeddings")?,
            rope_theta: self.real("rope_theta")?,
            rms_norm_eps: self.real("rms_norm_eps")?,
            include_bias: false,
            include_qkv_bias: false,
            bias_for_layer_norm: None,
            weight_tying: self.flag("tie_word_embeddings", false)?,
            mask_token_id: self.id("mask_token_id")?,
            eos_token_id: eos,
            pad_token_id: pad.map(|_| self.id("pad_token_id")).transpose()?,
            causal: false,
            block_size: None,
            family: self.family,
            extras,
            other: self.fields,
        })
    }
}

/// Refuses the values of fields that mean another computation; a field that is missing is fine.
///
/// # Errors
/// [`Error::UnsupportedField`].
pub(crate) fn expect_values(fields: &Fields, supported: &[(&'static str, &[&str])]) -> Result<()> {
    for (field, supported) in supported {
        if let Some(value) = fields.get(*field)
            && !supported.contains(&value.to_string().as_str())
        {
            return Err(Error::unsupported(field, value, supported.join(" or ")));
        }
    }
    Ok(())
}
