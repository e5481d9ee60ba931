//! Conversion of a whole model: its weights, and what belongs to its text.

use std::path::Path;

use llada_model::Gguf;
use llada_model::convert::Report;
use llada_model::gguf::is_gguf;
use llada_tensor::{Device, Precision};

use crate::{LoadError, gguf};

/// Converts the model at `source`, a folder in the HF layout or a GGUF file, into the folder
/// `target` in the HF layout, see [`llada_model::convert::convert`]. The vocabulary of a GGUF file
/// becomes a `tokenizer.json`; its chat template is left out.
///
/// # Errors
/// As [`crate::load`]; if `target` holds a model already.
pub fn convert(
    source: &Path,
    target: &Path,
    precision: Precision,
    device: &Device,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Report, LoadError> {
    // The vocabulary first: it is quick to fail.
    let tokenizer = match is_gguf(source) {
        true => Some(gguf::tokenizer(&Gguf::open(source)?)?),
        false => None,
    };
    let report = llada_model::convert::convert(source, target, precision, device, progress)?;
    if let Some(tokenizer) = tokenizer {
        tokenizer.save(target)?;
    }
    Ok(report)
}
