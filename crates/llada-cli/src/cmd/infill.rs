//! `llada infill`.

use anyhow::Result;
use llada::diffusion::MaskPredictor as _;
use llada::sample::{Request, Task};

use super::generate::{Prompt, end_of_text, read_prompts};
use crate::args::InfillArgs;
use crate::config::{Misuse, is_autoregressive, load, needs_diffusion, sampler};

pub(crate) fn run(args: &InfillArgs) -> Result<()> {
    let llada = load(&args.model)?;
    if is_autoregressive(&llada) {
        return Err(needs_diffusion("infill"));
    }
    let info = llada.model.info();
    let encode = |text: &str| llada.tokenizer.encode_with_masks(text, info.mask_token_id);
    let canvases = match &args.input {
        Some(path) => read_prompts(path, &encode)?,
        None => {
            let prompt = |text: &String| -> llada::text::Result<Prompt> {
                Ok(Prompt {
                    ids: encode(text)?,
                    is_text: true,
                })
            };
            let encoded: Result<Vec<_>, _> = args.text.iter().map(prompt).collect();
            encoded.map_err(Misuse::from_error)?
        }
    };
    let mut requests = Vec::new();
    for Prompt {
        ids: canvas,
        is_text,
    } in canvases
    {
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
        let suffix = Vec::from_iter(end_of_text(&llada, is_text && length < limit));
        requests.push(Request {
            task: Task::Infill { canvas, suffix },
            ..Request::infill(Vec::new(), config)
        });
    }
    super::observe::run_all(&llada, &requests, &args.sampler, args.model.run.format)
}
