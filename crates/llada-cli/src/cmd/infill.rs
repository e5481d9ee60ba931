//! `llada infill`.

use anyhow::Result;
use llada::diffusion::MaskPredictor as _;
use llada::sample::Request;

use super::generate::read_prompts;
use crate::args::InfillArgs;
use crate::config::{Misuse, is_character_model, load, sampler};

pub(crate) fn run(args: &InfillArgs) -> Result<()> {
    let llada = load(&args.model)?;
    let info = llada.model.info();
    let encode = |text: &str| llada.tokenizer.encode_with_masks(text, info.mask_token_id);
    let canvases = match &args.input {
        Some(path) => read_prompts(path, &encode)?,
        None => {
            let encoded: Result<Vec<_>, _> = args.text.iter().map(|text| encode(text)).collect();
            encoded.map_err(Misuse::from_error)?
        }
    };
    let mut requests = Vec::new();
    for mut canvas in canvases {
        let masks = canvas
            .iter()
            .filter(|&&id| id == info.mask_token_id)
            .count();
        if masks == 0 {
            return Err(Misuse::of("the text has no mask: mark holes with □ or _"));
        }
        let (length, limit) = (canvas.len(), info.max_sequence_length);
        if length > limit {
            return Err(Misuse::of(format!(
                "a text of {length} tokens exceeds the context of {limit}"
            )));
        }
        let config = sampler(&args.sampler, &llada, masks, true)?;
        if is_character_model(&llada) && length < limit {
            canvas.push(info.eos_token_id);
        }
        requests.push(Request::infill(canvas, config));
    }
    super::observe::run_all(&llada, &requests, &args.sampler, args.model.format, true)
}
