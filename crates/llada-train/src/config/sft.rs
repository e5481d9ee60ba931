//! What a configuration of supervised fine-tuning adds to one of pre-training, and its defaults.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::keys::{Key, key, require, section, value};
use super::{AnswerUse, ChatUse, Given, MaskUse, Objective, Packing, TooLong, TrainConfig, parse};
use crate::Result;

section! {
    /// Section `[sft]`.
    "struct SftConfig" SftConfig, GivenSft, "sft" {
        chat: ChatUse = "\"auto\"",
            "prompts that go through the model's chat template: \"auto\": those of conversations, \
             if it has one; \"always\" or \"never\"";
        answers: AnswerUse = "\"all\"",
            "answers of a conversation of several turns that are learned, each with all before it \
             as its prompt: \"all\", or the \"last\" one; messages with \"weight\": 0 or \
             \"train\": false never are";
        masks: MaskUse = "\"answers\"",
            "tokens that are masked and learned: those of \"answers\"; or \"packed\": all, prompts \
             too, in sequences of up to sequence_length that hold the pairs of the batch one behind \
             the other (iLLaDA)";
        too_long: TooLong = "\"drop\"",
            "pairs longer than sequence_length: \"drop\" leaves them out; \"cut\" cuts the end of \
             the answer off, its EOS with it; both are counted";
        eos_pad_weight: f64 = "1.0" where AT_LEAST_0,
            "weight in the loss of the EOS that pad short pairs; the EOS that ends an answer has \
             1";
        local_batch_size: usize = "0",
            "so many sequences in a row are padded to the longest of them; 0: the whole batch";
    }
}

section! {
    /// Section `[lora]`: low-rank adapters in place of all parameters.
    "struct LoraSection" LoraSection, GivenLora, "lora" {
        rank: usize = "8", "rank of the adapters";
        alpha: f64 = "16.0", "adapters count alpha / rank";
        targets: Vec<String> = "[\"q_proj\", \"v_proj\"]",
            "matrices of every block that get one: q_proj, k_proj, v_proj, attn_out, ff_proj, \
             up_proj, ff_out";
    }
}

impl Default for SftConfig {
    fn default() -> Self {
        GivenSft::default().resolve(&[])
    }
}

impl Default for LoraSection {
    fn default() -> Self {
        GivenLora::default().resolve(&[])
    }
}

const LEARNING_RATE: &str = "2.5e-5";

/// What fine-tuning says of keys of pre-training instead.
///
/// Source of the defaults: arXiv 2502.09992, section 2.3.
pub(crate) const OTHER_KEYS: &[Key] = &[
    key(
        "",
        "objective",
        "\"diffusion\"",
        "\"diffusion\", nothing else",
    ),
    key(
        "data",
        "train",
        "",
        "required: files of pairs, .jsonl; of each line \"messages\" (role, content), or \
         \"conversations\" (from, value), or \"prompt\" and \"completion\", or \"instruction\", \
         \"input\" and \"output\"; weights as \"a.jsonl:0.7\"; without them every pair is as \
         likely",
    ),
    key(
        "data",
        "validation",
        "[]",
        "held-out files of pairs, for the bound of the answers given their prompts",
    ),
    key(
        "data",
        "sequence_length",
        "",
        "required: longest pair, in tokens, its EOS counted",
    ),
    key("train", "batch_size", "256", "pairs of an optimizer step"),
    key(
        "train",
        "learning_rate",
        LEARNING_RATE,
        "learning rate between warm-up and decay",
    ),
    key(
        "train",
        "min_learning_rate",
        "",
        "learning rate at the end of the decay; a tenth of learning_rate if not given",
    ),
    key(
        "train",
        "warmup_steps",
        "50",
        "first steps, in which the learning rate rises in a line",
    ),
];

/// Keys of pre-training that fine-tuning has no use for.
pub(crate) const UNUSED_KEYS: &[&str] = &[
    "data.tokenizer",
    "data.min_character_count",
    "data.token_dtype",
    "data.packing",
    "train.batch_tokens",
    "train.random_length_probability",
];

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
    pub fn sft_from_toml(text: &str, path: &Path) -> Result<Self> {
        let mut given: Given = parse(text, path)?;
        let table: toml::Table = parse(text, path)?;
        for &key in UNUSED_KEYS {
            let (section, name) = key.split_once('.').unwrap_or_default();
            let section = table.get(section).and_then(toml::Value::as_table);
            let is_given = section.is_some_and(|section| section.contains_key(name));
            require(!is_given, key, "left out in fine-tuning", &"a value")?;
        }
        let train = &mut given.train;
        let rate = train.learning_rate.unwrap_or_else(|| value(LEARNING_RATE));
        train.min_learning_rate.get_or_insert(rate / 10.0);
        given.data.packing = Some(Packing::Documents);
        given.sft.get_or_insert_default();
        given.resolve(OTHER_KEYS, path)
    }

    /// Checks the sections of fine-tuning.
    pub(super) fn check_sft(&self, sft: &SftConfig) -> Result<()> {
        let is_diffusion = self.objective == Objective::Diffusion;
        let (key, got) = ("objective", "\"autoregressive\"");
        require(is_diffusion, key, "\"diffusion\" in fine-tuning", &got)?;
        let expected = "left out in fine-tuning";
        require(self.model.is_empty(), "model", expected, &"a section")?;
        sft.check_ranges()
    }
}
