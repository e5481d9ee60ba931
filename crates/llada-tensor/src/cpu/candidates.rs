//! LM head with the choice of a token per row, in tiles over the vocabulary.

use super::cross_entropy::Head;
use super::matmul::Context;
use crate::Result;
use crate::backend::{Candidate, CandidateArgs};
use crate::ops::candidates::{RowReducer, guide};

/// See [`crate::backend::Backend::candidates`].
pub(crate) fn candidates(cx: Context<'_>, args: CandidateArgs<'_>) -> Result<Vec<Candidate>> {
    let rows = args.hidden.shape()[0];
    let (_, vocab_size) = args.head.k_n().unwrap_or_default();
    let mut reducers = vec![RowReducer::default(); rows];
    let head = Head {
        weight: args.head,
        bias: args.bias,
        precision: args.precision,
    };
    head.for_each_tile(cx, args.hidden, |start, len, logits| {
        if let Some(unconditional) = args.unconditional {
            let un = head.tile(cx, unconditional, start, len)?;
            for (x, &un) in logits.f32s_mut()?.iter_mut().zip(un.f32s()?) {
                *x = guide(args.rule.cfg_scale, *x, un);
            }
        }
        let logits = logits.f32s()?;
        cx.workers.for_each_chunk(&mut reducers, 1, |row, reducer| {
            let tile = &logits[row * len..(row + 1) * len];
            reducer[0].push(tile, start, row, vocab_size, args.rule, args.noise);
        });
        Ok(())
    })?;
    Ok(reducers.iter().map(RowReducer::finish).collect())
}
