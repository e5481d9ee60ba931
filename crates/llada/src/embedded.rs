//! The poem model that is compiled into every program that uses it.

use llada_model::weights;
use llada_sample::AnswerLength;
use llada_tensor::{Device, Precision};
use llada_text::Tokenizer;

use crate::{Llada, LladaModel, LoadError};

/// `config.json` of the embedded poem model.
pub const EMBEDDED_CONFIG: &[u8] = include_bytes!("../../../assets/poems/config.json");
const WEIGHTS: &[u8] = include_bytes!("../../../assets/poems/model.safetensors");
const TOKENIZER: &[u8] = include_bytes!("../../../assets/poems/tokenizer.json");

/// The first line of a quatrain has three more.
const ANSWER_LENGTH: AnswerLength = AnswerLength::Prompts(3);

/// The embedded poem model: a character-level LLaDA trained on Tang poems.
///
/// # Errors
/// As [`crate::load`]; not with the model of this repository.
pub fn embedded(device: &Device, precision: Precision) -> Result<Llada, LoadError> {
    let model = weights::from_bytes(EMBEDDED_CONFIG, WEIGHTS, device, precision)?;
    let tokenizer = Tokenizer::from_bytes(TOKENIZER)?;
    Ok(Llada {
        answer_length: ANSWER_LENGTH,
        ..Llada::new(model, tokenizer)
    })
}

/// As [`embedded`], to be trained.
///
/// # Errors
/// As [`embedded`].
pub fn embedded_trainable(
    device: &Device,
    precision: Precision,
) -> Result<Llada<LladaModel>, LoadError> {
    let model = weights::trainable_from_bytes(EMBEDDED_CONFIG, WEIGHTS, device, precision)?;
    let tokenizer = Tokenizer::from_bytes(TOKENIZER)?;
    Ok(Llada {
        answer_length: ANSWER_LENGTH,
        ..Llada::new(model, tokenizer)
    })
}
