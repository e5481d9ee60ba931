//! `llada bench forward`.

use anyhow::Result;
use llada::diffusion::{Choice, MaskPredictor as _, Query};
use serde_json::json;

use super::measure::Timing;
use super::{Outcome, Subject};
use crate::args::BenchForwardArgs;
use crate::config::Misuse;

pub(super) fn run(args: &BenchForwardArgs) -> Result<()> {
    let (length, format) = (args.length, args.subject.model.run.format);
    let subject = Subject::new(&args.subject, 1, None)?;
    subject.check_length("--length", length)?;
    let masked = args.masked.unwrap_or(length);
    if !(1..=length).contains(&masked) {
        return Err(Misuse::of(format!(
            "--masked {masked}: expected 1 to {length}, the length"
        )));
    }
    let model = subject.frozen(length)?;
    let mut batch = subject.tokens(length)?;
    // Spread evenly over each sequence.
    let places = (0..masked).map(|i| i * length / masked);
    let positions: Vec<usize> = (0..subject.batch)
        .flat_map(|row| places.clone().map(move |at| row * length + at))
        .collect();
    for &position in &positions {
        batch.ids_mut()[position] = subject.config.mask_token_id;
    }
    let pass = || Ok(model.candidates(Query::new(&batch, &positions), &Choice::GREEDY)?);
    let (timing, _) = Timing::of(&subject, args.subject.rounds, pass)?;
    let tokens = batch.n_tokens();
    Outcome {
        subject: &subject,
        settings: json!({ "length": length, "masked": masked }),
        timing,
        tokens,
        flops: subject.config.forward_flops(tokens, positions.len()),
        weights_bytes: model.bytes(),
    }
    .print(format)
}
