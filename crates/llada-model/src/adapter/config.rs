//! `adapter_config.json` of PEFT.

use std::path::{Path, PathBuf};

use fancy_regex::Regex;
use llada_files::{looks_like, without_bom};
use serde_json::{Map, Value};

use crate::{Error, Result};

pub(crate) const CONFIG: &str = "adapter_config.json";
/// PEFT's own defaults.
const RANK: usize = 8;
const ALPHA: f64 = 8.0;
/// The way out of what can't be merged.
const MERGE: &str = "merge it in PEFT (merge_and_unload), save the model, and give that";

/// Fields that say nothing about the merged weights, or that are read here. Every other field must
/// be unset: what it means is not known.
const KNOWN: [&str; 31] = [
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    // PEFT takes it back for `nn.Linear`, and LLaDA has no other layers.
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "megatron_config",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "trainable_token_indices",
    "use_rslora",
];
/// What a merge needs of the file.
#[derive(Debug)]
pub(crate) struct AdapterConfig {
    fields: Map<String, Value>,
    rank: usize,
    alpha: f64,
    pub(crate) use_rslora: bool,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
}

impl AdapterConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`] or [`Error::Adapter`].
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let json = std::fs::read(path).map_err(Error::io("reading", path))?;
        Self::parse(&json, path)
    }

    /// Reads its bytes; `path` names the file in messages.
    ///
    /// # Errors
    /// [`Error::Json`] or [`Error::Adapter`].
    pub(crate) fn parse(json: &[u8], path: &Path) -> Result<Self> {
        let json = without_bom(json);
        let fields: Map<String, Value> = serde_json::from_slice(json)
            .map_err(|error| Error::json(path)(error).or_other(looks_like::JSON, path, json))?;
        let fault = |field: &str, expected: &str| fault(path, field, &fields[field], expected);
        let is_set = |field: &str| fields.get(field).is_some_and(|value| !value.is_null());
        let mut config = Self {
            rank: RANK,
            alpha: ALPHA,
            use_rslora: false,
            ranks: Vec::new(),
            alphas: Vec::new(),
            fields: Map::new(),
        };
        if is_set("r") {
            let rank = as_rank(&fields["r"]);
            config.rank = rank.ok_or_else(|| fault("r", "a number from 1"))?;
        }
        if is_set("lora_alpha") {
            let alpha = fields["lora_alpha"].as_f64();
            config.alpha = alpha.ok_or_else(|| fault("lora_alpha", "a number"))?;
        }
        if is_set("use_rslora") {
            let use_rslora = fields["use_rslora"].as_bool();
            config.use_rslora = use_rslora.ok_or_else(|| fault("use_rslora", "true or false"))?;
        }
        for field in ["rank_pattern", "alpha_pattern"] {
            let patterns = fields.get(field).and_then(Value::as_object);
            for (key, value) in patterns.into_iter().flatten() {
                // As `get_pattern_key` of PEFT: `re.match` of it.
                let regex = Regex::new(&format!(r"\A(.*\.)?({key})$"));
                let regex = regex.map_err(|_| fault(field, "names or patterns of modules"))?;
                match (field, as_rank(value), value.as_f64()) {
                    ("rank_pattern", Some(rank), _) => config.ranks.push((regex, rank)),
                    ("alpha_pattern", _, Some(alpha)) => config.alphas.push((regex, alpha)),
                    _ => return Err(fault(field, "a number for each pattern")),
                }
            }
        }
        config.fields = fields;
        Ok(config)
    }

    /// Refuses what is not merged by adding `B A`.
    ///
    /// # Errors
    /// [`Error::Adapter`].
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        let get = |field: &str| self.fields.get(field).unwrap_or(&Value::Null);
        if get("peft_type").as_str() != Some("LORA") {
            let expected = format!("\"LORA\"; {MERGE}");
            return Err(fault(path, "peft_type", get("peft_type"), &expected));
        }
        let init = get("init_lora_weights");
        let leaves_base = match init {
            Value::Null | Value::Bool(_) => true,
            other => matches!(other.as_str(), Some("gaussian" | "orthogonal")),
        };
        if !leaves_base {
            let expected = "true, false, \"gaussian\" or \"orthogonal\", which leave the base as it \
                            is; save it again in PEFT by save_pretrained with \
                            path_initial_model_for_weight_conversion, or merge it there";
            return Err(fault(path, "init_lora_weights", init, expected));
        }
        let is_unknown =
            |(field, value): &(&String, &Value)| !KNOWN.contains(&field.as_str()) && is_set(value);
        match self.fields.iter().find(is_unknown) {
            Some((field, value)) => {
                let expected = format!("an adapter without it; {MERGE}");
                Err(fault(path, field, value, &expected))
            }
            None => Ok(()),
        }
    }

    /// The rank and alpha of a module of the base model.
    pub(crate) fn rank_and_alpha(&self, module: &str) -> (usize, f64) {
        let matches = |regex: &Regex| regex.is_match(module).unwrap_or(false);
        let rank = self.ranks.iter().find(|(regex, _)| matches(regex));
        let alpha = self.alphas.iter().find(|(regex, _)| matches(regex));
        (
            rank.map_or(self.rank, |(_, rank)| *rank),
            alpha.map_or(self.alpha, |(_, alpha)| *alpha),
        )
    }

    /// The tokens whose rows of a module were trained: a list, or one for each name of a module.
    pub(crate) fn token_indices(&self, module: &str) -> Option<Vec<usize>> {
        let list = match self.fields.get("trainable_token_indices")? {
            Value::Object(lists) => {
                let is_module = |name: &String| {
                    let before = module.strip_suffix(name.as_str());
                    before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
                };
                lists.iter().find(|(name, _)| is_module(name))?.1
            }
            list => list,
        };
        let id = |id: &Value| usize::try_from(id.as_u64()?).ok();
        list.as_array()?.iter().map(id).collect()
    }

    /// The name or path of the model that it belongs to.
    pub(crate) fn base(&self) -> Option<&str> {
        let base = self.fields.get("base_model_name_or_path")?.as_str();
        base.filter(|base| !base.is_empty())
    }

    /// Its version on the Hub.
    pub(crate) fn revision(&self) -> Option<&str> {
        self.fields.get("revision")?.as_str()
    }

    /// The folder of [`Self::base`]: beside the adapter's, or seen from where the program runs.
    pub(crate) fn base_folder(&self, dir: &Path) -> Option<PathBuf> {
        let base = Path::new(self.base()?);
        [dir.join(base), base.to_owned()]
            .into_iter()
            .find(|path| path.exists())
    }
}

fn as_rank(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?)
        .ok()
        .filter(|&rank| rank > 0)
}

/// Whether a field says anything.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::String(text) => !text.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

fn fault(path: &Path, field: &str, got: &Value, expected: &str) -> Error {
    Error::Adapter {
        path: path.to_owned(),
        place: field.to_owned(),
        got: got.to_string(),
        expected: expected.to_owned(),
    }
}
