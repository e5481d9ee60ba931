//! `llada infill`.

use anyhow::Result;
use llada::diffusion::MaskPredictor as _;
use llada::sample::Request;

use crate::args::InfillArgs;
use crate::config::{Misuse, load, sampler};

pub(crate) fn run(args: &InfillArgs) -> Result<()> {
    let llada = load(&args.model)?;
    let info = llada.model.info();
    let mut requests = Vec::new();
    for text in &args.text {
        let canvas = llada
            .tokenizer
            .encode_with_masks(text, info.mask_token_id)?;
        let masks = canvas
            .iter()
            .filter(|&&id| id == info.mask_token_id)
            .count();
        if masks == 0 {
            return Err(Misuse::of(format!(
                "{text}: nothing to fill in, mark holes with □ or _"
            )));
        }
        let (length, limit) = (canvas.len(), info.max_sequence_length);
        if length > limit {
            return Err(Misuse::of(format!(
                "a text of {length} tokens exceeds the context of {limit}"
            )));
        }
        let config = sampler(&args.sampler, &llada, masks, true)?;
        requests.push(Request::infill(canvas, config));
    }
    super::observe::run_all(&llada, &requests, &args.sampler, args.model.format, true)
}
