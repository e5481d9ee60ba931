//! What a configuration of supervised fine-tuning adds to one of pre-training, and its defaults.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Objective, Packing, TrainConfig, parse, require};
use crate::Result;

/// Section `[sft]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SftConfig {
    /// Which prompts go through the chat template of the model.
    pub chat: ChatUse,
    /// What happens to pairs that are longer than `data.sequence_length`.
    pub too_long: TooLong,
    /// Weight in the loss of the EOS that pad an answer; the one that ends it always has 1.
    pub eos_pad_weight: f64,
    /// Consecutive sequences of a batch that are padded to the longest of them; 0: all of them.
    pub local_batch_size: usize,
}

impl Default for SftConfig {
    fn default() -> Self {
        Self {
            chat: ChatUse::Auto,
            too_long: TooLong::Drop,
            eos_pad_weight: 1.0,
            local_batch_size: 0,
        }
    }
}

/// Which prompts go through the chat template of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatUse {
    /// Conversations, if the model has a template.
    #[default]
    Auto,
    /// All.
    Always,
    /// None.
    Never,
}

/// What happens to pairs that are longer than `data.sequence_length`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TooLong {
    /// They are left out.
    #[default]
    Drop,
    /// The end of the answer is cut off, its EOS with it; a pair without room for an answer is
    /// left out.
    Cut,
}

/// Section `[lora]`: low-rank adapters in place of all parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraSection {
    /// Rank of the adapters.
    pub rank: usize,
    /// Adapters count `alpha / rank`.
    pub alpha: f64,
    /// Names of the matrices that are adapted, in every block.
    pub targets: Vec<String>,
}

impl Default for LoraSection {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            targets: ["q_proj", "v_proj"].map(str::to_owned).to_vec(),
        }
    }
}

impl TrainConfig {
    /// Reads and checks a configuration of supervised fine-tuning: [`Self::sft`] is there, and keys
    /// that are left out are those of the paper's SFT.
    ///
    /// # Errors
    /// As [`Self::from_file`].
    pub fn sft_from_file(path: &Path) -> Result<Self> {
        Self::sft_from_toml(&super::read(path)?, path)
    }

    /// As [`Self::sft_from_file`], from the text; see [`Self::from_toml`].
    ///
    /// # Errors
    /// As [`Self::from_toml`].
    ///
    /// Source of the defaults: arXiv 2502.09992, section 2.3.
    pub fn sft_from_toml(text: &str, path: &Path) -> Result<Self> {
        let mut config: Self = parse(text, path)?;
        let given: toml::Table = parse(text, path)?;
        let is_given = |section: &str, key: &str| {
            let section = given.get(section).and_then(toml::Value::as_table);
            section.is_some_and(|section| section.contains_key(key))
        };
        for (section, key, name) in [
            ("data", "tokenizer", "data.tokenizer"),
            ("data", "min_character_count", "data.min_character_count"),
            ("data", "packing", "data.packing"),
            ("train", "batch_tokens", "train.batch_tokens"),
            (
                "train",
                "random_length_probability",
                "train.random_length_probability",
            ),
        ] {
            let expected = "left out in fine-tuning";
            require(!is_given(section, key), name, expected, &"a value")?;
        }
        let is_given = |key| is_given("train", key);
        let train = &mut config.train;
        train.batch_size = train.batch_size.or(Some(256));
        if !is_given("learning_rate") {
            train.learning_rate = 2.5e-5;
        }
        if !is_given("min_learning_rate") {
            train.min_learning_rate = train.learning_rate / 10.0;
        }
        if !is_given("warmup_steps") {
            train.warmup_steps = 50;
        }
        config.data.packing = Packing::Documents;
        config.sft.get_or_insert_default();
        config.folder = path.parent().map(Path::to_owned).unwrap_or_default();
        config.check()?;
        Ok(config)
    }

    /// Checks the sections of fine-tuning.
    pub(super) fn check_sft(&self, sft: &SftConfig) -> Result<()> {
        let is_diffusion = self.objective == Objective::Diffusion;
        let (key, got) = ("objective", "\"autoregressive\"");
        require(is_diffusion, key, "\"diffusion\" in fine-tuning", &got)?;
        let expected = "left out in fine-tuning";
        require(self.model.is_empty(), "model", expected, &"a section")?;
        let weight = sft.eos_pad_weight;
        let is_weight = weight >= 0.0 && weight.is_finite();
        let expected = "finite and at least 0";
        require(is_weight, "sft.eos_pad_weight", expected, &weight)
    }
}
