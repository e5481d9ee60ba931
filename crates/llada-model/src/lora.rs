//! Low-rank adapters: a frozen weight `W` becomes `W + alpha / rank * B A`, of which `A` and `B`
//! are trained.
//!
//! Source: Hu et al. 2021 (arXiv 2106.09685); names, initial values and files as in PEFT.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use llada_diffusion::{Parameter, ParameterKind};
use llada_tensor::backend::{MatmulArgs, Rhs};
use llada_tensor::ops::matmul::matmul;
use llada_tensor::{DType, Device, Philox, Precision, Stream, Tensor};
use serde_json::json;

use crate::files::write_file;
use crate::{Error, ModelConfig, Result};

/// File of the adapters in the folder of a run. It has a folder of its own, since transformers lays
/// adapters that it finds beside merged weights on top of these once more.
pub(crate) const ADAPTERS: &str = "adapter/adapter_model.safetensors";
const FOLDER: &str = "adapter";
const WEIGHTS: &str = "adapter_model.safetensors";
const CONFIG: &str = "adapter_config.json";
/// How PEFT's names of the parameters begin.
const PREFIX: &str = "base_model.model.";
const BLOCKS: &str = "model.transformer.blocks.";

/// The matrices of a block that may have adapters, by their names in the checkpoint.
pub const TARGETS: [&str; 7] = [
    "q_proj", "k_proj", "v_proj", "attn_out", "ff_proj", "up_proj", "ff_out",
];

/// Which matrices get adapters, and how large.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// Rows of each `A` and columns of each `B`.
    pub rank: usize,
    /// The product counts `alpha / rank`.
    pub alpha: f64,
    /// Names out of [`TARGETS`]: of these, the matrices of every block.
    pub targets: Vec<String>,
}

impl LoraConfig {
    /// Factor on the product `B A`.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a rank is small and values are f32"
    )]
    pub fn scale(&self) -> f32 {
        (self.alpha / self.rank as f64) as f32
    }

    /// An error that names the key if a value is out of range.
    ///
    /// # Errors
    /// [`Error::UnsupportedField`].
    pub fn check(&self) -> Result<()> {
        let unsupported = |field, value: &dyn std::fmt::Display, expected: &str| {
            Err(Error::unsupported(field, value, expected))
        };
        if self.rank == 0 {
            return unsupported("lora.rank", &0, "at least 1");
        }
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return unsupported("lora.alpha", &self.alpha, "a positive number");
        }
        let expected = format!("some of {}", TARGETS.join(", "));
        if self.targets.is_empty() {
            return unsupported("lora.targets", &"[]", &expected);
        }
        let is_unknown = |target: &&String| !TARGETS.contains(&target.as_str());
        match self.targets.iter().find(is_unknown) {
            Some(target) => unsupported("lora.targets", target, &expected),
            None => Ok(()),
        }
    }

    /// Writes `adapter/adapter_config.json`, as PEFT reads it, into the folder `dir` of a run, where
    /// [`Trainable::export`](llada_diffusion::Trainable::export) puts the adapters; `base` is what
    /// PEFT is told of the model that they belong to, and `revision` which of its versions. Files
    /// of adapters that earlier versions wrote into `dir` itself are moved.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, dir: &Path, base: Option<&str>, revision: Option<&str>) -> Result<()> {
        let folder = dir.join(FOLDER);
        fs::create_dir_all(&folder).map_err(Error::io("creating", &folder))?;
        for name in [WEIGHTS, CONFIG] {
            let old = dir.join(name);
            if old.is_file() {
                fs::rename(&old, folder.join(name)).map_err(Error::io("moving", &old))?;
            }
        }
        // A pattern, since `ff_out` is the name of the head as well.
        let targets = self.targets.join("|");
        let config = json!({
            "peft_type": "LORA",
            "task_type": null,
            "base_model_name_or_path": base,
            "revision": revision,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "target_modules": format!(r".*\.blocks\.\d+\.({targets})"),
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "inference_mode": true,
        });
        write_file(&folder.join(CONFIG), format!("{config:#}").as_bytes())
    }
}

/// The adapters of a model.
#[derive(Debug)]
pub(crate) struct Lora {
    /// Factor on `B A`.
    pub(crate) scale: f32,
    /// Where the `A` of a parameter, by its index, stands among the adapters; its `B` follows.
    pub(crate) slots: Arc<BTreeMap<usize, usize>>,
    /// `A` `[rank, K]` and `B` `[N, rank]` of each adapted weight `[N, K]`.
    pub(crate) adapters: Vec<Parameter>,
}

impl Lora {
    /// Adapters that change nothing yet: `A` uniform on `±1 / sqrt(K)`, `B` zero, as in PEFT.
    pub(crate) fn new(
        model: &ModelConfig,
        config: &LoraConfig,
        device: &Device,
        seed: u64,
    ) -> Result<Self> {
        config.check()?;
        let philox = Philox::new(seed, Stream::Adapter);
        let (mut slots, mut adapters) = (BTreeMap::new(), Vec::new());
        for (index, (name, shape)) in model.parameter_shapes().into_iter().enumerate() {
            let (Some(module), &[n, k]) = (adapted_module(&name, &config.targets), &shape[..])
            else {
                continue;
            };
            slots.insert(index, adapters.len());
            let rank = config.rank;
            let tensor = u32::try_from(index).unwrap_or(u32::MAX);
            #[expect(clippy::cast_precision_loss, reason = "widths fit")]
            let bound = 1.0 / (k as f32).sqrt();
            let draw = |at: usize| {
                let at = u32::try_from(at).expect("an adapter has fewer than 2^32 values");
                (2.0 * philox.uniform_f32([at, tensor, 0]) - 1.0) * bound
            };
            let a: Vec<f32> = (0..rank * k).map(draw).collect();
            for (part, value) in [
                ("A", Tensor::from_f32(device, &[rank, k], &a)?),
                ("B", Tensor::zeros(device, DType::F32, &[n, rank])?),
            ] {
                adapters.push(Parameter {
                    name: format!("{PREFIX}{module}.lora_{part}.weight"),
                    value,
                    kind: ParameterKind::Matrix,
                });
            }
        }
        Ok(Self {
            scale: config.scale(),
            slots: Arc::new(slots),
            adapters,
        })
    }

    /// `W + alpha / rank * B A` of the parameter at `index`, in `f32`; the weight itself if it has
    /// no adapter.
    pub(crate) fn merged(&self, index: usize, weight: &Tensor) -> llada_tensor::Result<Tensor> {
        let Some(&at) = self.slots.get(&index) else {
            return Ok(weight.clone());
        };
        let (a, b) = (&self.adapters[at].value, &self.adapters[at + 1].value);
        let mut merged = Tensor::zeros(weight.device(), DType::F32, weight.shape())?;
        matmul(MatmulArgs {
            a: b,
            b: Rhs::Matrix(a),
            c: &mut merged,
            accumulate: false,
            precision: Precision::F32,
        })?;
        let backend = weight.device().backend();
        backend.axpby(1.0, weight, self.scale, &mut merged)?;
        Ok(merged)
    }
}

/// The module of a parameter that gets an adapter.
fn adapted_module<'a>(name: &'a str, targets: &[String]) -> Option<&'a str> {
    let module = name.strip_suffix(".weight")?;
    let (_, part) = module.strip_prefix(BLOCKS)?.split_once('.')?;
    targets
        .iter()
        .any(|target| target == part)
        .then_some(module)
}

#[cfg(test)]
mod tests;
