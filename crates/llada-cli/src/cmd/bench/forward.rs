//! `llada bench forward`.

use std::num::NonZeroUsize;
use std::ops::Range;

use anyhow::Result;
use llada::diffusion::{Cached, Candidates, Choice, KvCache, MaskPredictor as _, Query, RowPlan};
use serde_json::json;

use super::measure::Timing;
use super::{Outcome, Subject};
use crate::args::BenchForwardArgs;
use crate::config::Misuse;

pub(super) fn run(args: &BenchForwardArgs) -> Result<()> {
    let (length, format) = (args.length, args.subject.model.run.format);
    let subject = Subject::new(&args.subject, 1, None)?;
    let prefix = args.cached_prefix;
    subject.check_length("--length", prefix.saturating_add(length))?;
    let masked = args.masked.unwrap_or(length);
    if !(1..=length).contains(&masked) {
        return Err(Misuse::of(format!(
            "--masked {masked}: expected 1 to {length}, the length"
        )));
    }
    let block = subject.config.block_size.map_or(1, NonZeroUsize::get);
    if !prefix.is_multiple_of(block) {
        return Err(Misuse::of(format!(
            "--cached-prefix {prefix}: expected whole blocks of {block} positions"
        )));
    }
    let whole = prefix + length;
    let model = subject.frozen(whole)?;
    let mut batch = subject.tokens(whole)?;
    // Spread evenly over each sequence.
    let places = (0..masked).map(|i| prefix + i * length / masked);
    let positions: Vec<usize> = (0..subject.batch)
        .flat_map(|row| places.clone().map(move |at| row * whole + at))
        .collect();
    for &position in &positions {
        batch.ids_mut()[position] = subject.config.mask_token_id;
    }
    let mut caches: Vec<KvCache> = (0..subject.batch).map(|_| KvCache::default()).collect();
    let mut planned = |rows: Range<usize>, positions: &[usize]| {
        let plans = vec![RowPlan::window(rows.clone(), rows.end); subject.batch];
        let mut caches: Vec<&mut KvCache> = caches.iter_mut().collect();
        let query = Query {
            cached: Some(Cached {
                plans: &plans,
                caches: &mut caches,
                branches: &mut [],
            }),
            ..Query::new(&batch, positions)
        };
        Ok(model.candidates(query, &Choice::GREEDY)?)
    };
    if prefix > 0 {
        let _: Candidates = planned(0..prefix, &[])?;
    }
    let pass = || match prefix {
        0 => Ok(model.candidates(Query::new(&batch, &positions), &Choice::GREEDY)?),
        _ => planned(prefix..whole, &positions),
    };
    let (timing, _) = Timing::of(&subject, args.subject.rounds, pass)?;
    let tokens = subject.batch * length;
    Outcome {
        subject: &subject,
        settings: match prefix {
            0 => json!({ "length": length, "masked": masked }),
            _ => json!({ "length": length, "masked": masked, "cached_prefix": prefix }),
        },
        timing,
        tokens,
        flops: subject.config.forward_flops(tokens, positions.len()),
        weights_bytes: model.bytes(),
    }
    .print(format)
}
