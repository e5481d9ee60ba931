//! `llada infill`.

use anyhow::Result;
use llada::Task;

use super::generate::{read_prompts, request};
use crate::args::InfillArgs;
use crate::config::{Misuse, check_flags, load, overrides};

pub(crate) fn run(args: &InfillArgs) -> Result<()> {
    let overrides = overrides(&args.sampler, None)?;
    let llada = load(&args.model)?;
    let texts = match &args.input {
        Some(path) => read_prompts(path)?,
        None => args
            .text
            .iter()
            .map(|text| (None, text.clone().into()))
            .collect(),
    };
    let mut requests = Vec::new();
    for (place, text) in texts {
        requests.push(request(&llada, &Task::infill(text), &overrides, place)?);
    }
    for request in &requests {
        if request.config.gen_length == 0 {
            return Err(Misuse::of("the text has no mask: mark holes with □ or _"));
        }
        let (length, limit) = (request.length(), llada.info().max_sequence_length);
        if length > limit {
            return Err(Misuse::of(format!(
                "a text of {length} tokens exceeds the context of {limit}"
            )));
        }
    }
    check_flags(&args.sampler, None)?;
    super::observe::run_all(&llada, &requests, &args.sampler, args.model.run.format)
}
