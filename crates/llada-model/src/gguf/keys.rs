//! The keys of a GGUF file as a configuration, and the tensors that it needs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use memmap2::Mmap;
use serde_json::{Value as Json, json};

use super::architecture::{ARCHITECTURES, Architecture, TOKENS};
use super::header::{self, Header, Reader, Value};
use super::{fault, tensor_name};
use crate::{Error, Family, ModelConfig, OpenOptions, Result};

/// Whether outputs are about the next token.
const SHIFTS: &str = "diffusion.shift_logits";

const EPSILON: &str = "attention.layer_norm_rms_epsilon";
const ROPE_BASE: &str = "rope.freq_base";
/// llama.cpp's value where the key is absent.
const DEFAULT_ROPE_BASE: f64 = 10_000.0;
/// Tables for the positions are built at loading, so their number is limited.
const MAX_CONTEXT: usize = 1 << 20;

/// What numbers are expected to be.
const NUMBER: &str = "a number from 0 to 2^28";

fn number(value: &Value) -> Option<u32> {
    match *value {
        Value::Integer(value @ 0..=0x1000_0000) => u32::try_from(value).ok(),
        _ => None,
    }
}

/// A mapped file with typed access to the keys of its header.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) map: Arc<Mmap>,
    pub(super) path: PathBuf,
    pub(super) header: Header,
}

impl Keys {
    pub(super) fn fault(
        &self,
        key: &str,
        got: impl Into<String>,
        expected: impl Into<String>,
    ) -> Error {
        fault(&self.path, format!("key {key}"), got, expected)
    }

    pub(super) fn missing(&self, key: &str) -> Error {
        self.fault(key, "missing", "its value in the file")
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.missing(key))
    }

    /// What `read` makes of the value of a key, if the file has the key.
    fn value<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.header.values.get(key) else {
            return Ok(None);
        };
        let error = || self.fault(key, value.describe(), expected);
        read(value).map(Some).ok_or_else(error)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        self.value(key, "a text", |value| match value {
            Value::Text(bytes) => std::str::from_utf8(&self.map[bytes.clone()]).ok(),
            _ => None,
        })
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.value(key, "true or false", |value| match value {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        })
    }

    fn real(&self, key: &str) -> Result<Option<f64>> {
        self.value(key, "a real number above 0", |value| match *value {
            Value::Real(value) => (value.is_finite() && value > 0.0).then_some(value),
            _ => None,
        })
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u32>> {
        self.value(key, NUMBER, number)
    }

    /// A reader of the values of a key's array, with their type and number.
    fn array(&self, key: &str) -> Result<(Reader<'_>, u32, u64)> {
        match self.header.values.get(key) {
            None => Err(self.missing(key)),
            Some(Value::Array {
                kind,
                length,
                bytes,
            }) => {
                let within = &self.map[..bytes.end];
                let reader = Reader::new(within, bytes.start, &self.path, format!("key {key}"));
                Ok((reader, *kind, *length))
            }
            Some(other) => Err(self.fault(key, other.describe(), "an array")),
        }
    }

    pub(super) fn texts(&self, key: &str) -> Result<Vec<&str>> {
        let (mut reader, kind, length) = self.array(key)?;
        if kind != header::TEXT {
            return Err(self.fault(key, format!("an array of type {kind}"), "texts"));
        }
        (0..length).map(|_| reader.text()).collect()
    }

    pub(super) fn numbers(&self, key: &str) -> Result<Vec<u32>> {
        let (mut reader, kind, length) = self.array(key)?;
        if kind == header::TEXT {
            return Err(self.fault(key, "an array of texts", "numbers"));
        }
        let next = |_| {
            let value = reader.scalar(kind)?;
            number(&value).ok_or_else(|| self.fault(key, value.describe(), NUMBER))
        };
        (0..length).map(next).collect()
    }

    /// Checks what has one supported value, where the key is there at all.
    fn supported(&self, of: &Architecture, head_dim: usize) -> Result<()> {
        let flags = [
            (of.key("attention.causal"), false),
            (SHIFTS.to_owned(), of.shifts_logits),
        ];
        for (key, expected) in flags {
            if let Some(other) = self.flag(&key)?.filter(|&flag| flag != expected) {
                return Err(self.fault(&key, other.to_string(), expected.to_string()));
            }
        }
        let widths = [
            "rope.dimension_count",
            "attention.key_length",
            "attention.value_length",
        ];
        for key in widths.map(|key| of.key(key)) {
            if let Some(width) = self
                .number(&key)?
                .filter(|&width| width as usize != head_dim)
            {
                let expected = format!("the width of a head, {head_dim}");
                return Err(self.fault(&key, width.to_string(), expected));
            }
        }
        let key = of.key("rope.scaling.type");
        if let Some(scaling) = self.text(&key)?.filter(|&scaling| scaling != "none") {
            return Err(self.fault(&key, scaling, "none"));
        }
        Ok(())
    }

    /// The architecture of the file.
    pub(super) fn architecture(&self) -> Result<&'static Architecture> {
        let key = "general.architecture";
        let name = self.required(key, self.text(key)?)?;
        let mut known = ARCHITECTURES.iter();
        known.find(|found| found.name == name).ok_or_else(|| {
            let known = ARCHITECTURES.map(|found| format!("\"{}\"", found.name));
            self.fault(key, format!("{name:?}"), known.join(" or "))
        })
    }

    pub(super) fn config(&self, options: OpenOptions) -> Result<ModelConfig> {
        let of = self.architecture()?;
        let (epsilon, base) = (of.key(EPSILON), of.key(ROPE_BASE));
        let epsilon = self.required(&epsilon, self.real(&epsilon)?)?;
        let tensors = &self.header.tensors;
        let (name, path) = ("token_embd.weight".to_owned(), self.path.clone());
        let embedding = tensors.get(&name);
        let embedding = embedding.ok_or(Error::MissingTensor {
            name,
            path,
            hint: String::new(),
        })?;
        let rows = embedding.shape.first().copied().unwrap_or(0);
        let has = |name| tensors.contains_key(name);
        let mut fields = json!({
            "rms_norm_eps": epsilon,
            "rope_theta": self.real(&base)?.unwrap_or(DEFAULT_ROPE_BASE),
            "vocab_size": rows,
        });
        fields[of.vocab_size] = json!(rows);
        fields[of.tied] = json!(!has("output.weight"));
        match of.family {
            Family::Llada => {
                fields["include_bias"] = json!(has("blk.0.attn_output.bias"));
                fields["include_qkv_bias"] = json!(has("blk.0.attn_q.bias"));
                fields["bias_for_layer_norm"] = json!(has("blk.0.attn_norm.bias"));
            }
            _ => fields["qk_layernorm"] = json!(has("blk.0.attn_q_norm.weight")),
        }
        for (field, end) in of.required {
            let key = of.key(end);
            fields[*field] = json!(self.required(&key, self.number(&key)?)?);
        }
        for (field, end) in of.optional {
            if let Some(value) = self.number(&of.key(end))? {
                fields[*field] = json!(value);
            }
        }
        for (field, key) in TOKENS {
            let given = options.mask_token_id.filter(|_| field == "mask_token_id");
            match (given, self.number(key)?) {
                (Some(id), _) | (None, Some(id)) => fields[field] = json!(id),
                (None, None) if field == "pad_token_id" => {}
                (None, None) => return Err(self.missing(key)),
            }
        }
        let Json::Object(fields) = fields else {
            unreachable!("made as an object")
        };
        let config = of
            .config(fields)
            .map_err(|error| self.name_key(of, error))?;
        if config.max_sequence_length > MAX_CONTEXT {
            let got = config.max_sequence_length.to_string();
            return Err(self.fault(&of.key("context_length"), got, "at most 2^20"));
        }
        self.supported(of, config.head_dim())?;
        Ok(config)
    }

    /// The error about a field of `config.json` as one about the key.
    fn name_key(&self, of: &Architecture, error: Error) -> Error {
        match error {
            Error::UnsupportedField {
                field,
                value,
                expected,
            } => self.fault(&of.key_of(field), value, expected),
            other => other,
        }
    }

    /// All tensors are there, of the right shapes, and no others.
    pub(super) fn check_tensors(&self, config: &ModelConfig) -> Result<()> {
        let tensors = &self.header.tensors;
        // No list of names that is longer than the file.
        if config.n_layers > tensors.len() {
            let got = format!("{} blocks", config.n_layers);
            let expected = format!("blocks of the file's {} tensors", tensors.len());
            let key = format!("{}.block_count", self.architecture()?.name);
            return Err(self.fault(&key, got, expected));
        }
        let named = |(parameter, shape): (String, _)| (tensor_name(&parameter), shape);
        let needed: BTreeMap<_, _> = config.parameter_shapes().into_iter().map(named).collect();
        let wrong = |name: &str, got: String, expected: &str| {
            Err(fault(&self.path, format!("tensor {name}"), got, expected))
        };
        for (name, shape) in &needed {
            let Some(entry) = tensors.get(name) else {
                let (name, path) = (name.clone(), self.path.clone());
                return Err(Error::MissingTensor {
                    name,
                    path,
                    hint: String::new(),
                });
            };
            if entry.shape != *shape {
                let got = format!("shape {:?}", entry.shape);
                return wrong(name, got, &format!("{shape:?}"));
            }
        }
        match tensors.keys().find(|name| !needed.contains_key(*name)) {
            Some(name) => wrong(name, "there".to_owned(), "the tensors of the model only"),
            None => Ok(()),
        }
    }
}
