//! LM head with the choice of a token per row, in tiles over the vocabulary.

use super::context::Context;
use super::cross_entropy::Head;
use super::simd::{Kernel, Simd};
use crate::Result;
use crate::backend::{Candidate, CandidateArgs};
use crate::ops::candidates::{RowReducer, TileSummary, guide};

/// See [`crate::backend::Backend::candidates`].
pub(crate) fn candidates(cx: Context<'_>, args: CandidateArgs<'_>) -> Result<Vec<Candidate>> {
    let rows = args.hidden.shape()[0];
    let (_, vocab_size) = args.head.k_n().unwrap_or_default();
    let mut reducers = vec![RowReducer::default(); rows];
    let head = |hidden| Head::new(cx, hidden, args.head, args.bias, args.precision);
    let unconditional = args.unconditional.map(head).transpose()?;
    head(args.hidden)?.for_each_tile(cx, |start, len, logits| {
        if let Some(unconditional) = &unconditional {
            let un = unconditional.tile(cx, start, len)?;
            for (x, &un) in logits.f32s_mut()?.iter_mut().zip(un.f32s()?) {
                *x = guide(args.rule.cfg_scale, *x, un);
            }
        }
        let logits = logits.f32s_mut()?;
        let in_tile = |ids: &[u32]| -> Vec<usize> {
            let places = ids
                .iter()
                .filter_map(|&id| (id as usize).checked_sub(start));
            places.filter(|&at| at < len).collect()
        };
        for at in in_tile(args.rule.suppress) {
            for row in logits.chunks_exact_mut(len) {
                row[at] = f32::NEG_INFINITY;
            }
        }
        let all_count = in_tile(args.rule.suppress_confidence).is_empty();
        let logits = &*logits;
        cx.workers.for_each_chunk(&mut reducers, 1, |row, reducer| {
            let tile = &logits[row * len..(row + 1) * len];
            if all_count {
                let summary = cx.level.run(Summarize(tile));
                let noise = (args.rule.temperature, args.noise);
                reducer[0].merge(tile, (start, row, vocab_size), summary, noise);
            } else {
                reducer[0].push(tile, start, row, vocab_size, args.rule, args.noise);
            }
        });
        Ok(())
    })?;
    Ok(reducers.iter().map(RowReducer::finish).collect())
}

/// One tile of one row.
struct Summarize<'a>(&'a [f32]);

impl Kernel for Summarize<'_> {
    type Output = TileSummary;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> TileSummary {
        let tile = self.0;
        let none = f32::NEG_INFINITY;
        let (mut firsts, mut seconds) = (s.splat(none), s.splat(none));
        for at in (0..tile.len()).step_by(S::LANES) {
            let x = s.load(&tile[at..], none);
            seconds = s.max(seconds, s.min(firsts, x));
            firsts = s.max(firsts, x);
        }
        let (mut lanes, mut runners_up) = ([none; 16], [none; 16]);
        s.store(&mut lanes[..S::LANES], firsts);
        s.store(&mut runners_up[..S::LANES], seconds);
        let (mut first, mut second) = (none, none);
        for x in lanes.into_iter().chain(runners_up) {
            second = second.max(first.min(x));
            first = first.max(x);
        }
        let (shift, least) = (s.splat(first), s.splat(-100.0));
        let (mut sum, mut weighted) = (s.splat(0.0), s.splat(0.0));
        for at in (0..tile.len()).step_by(S::LANES) {
            // Not -inf, times which a zero is NaN; a NaN stays one.
            let x = s.max(least, s.sub(s.load(&tile[at..], none), shift));
            let e = s.exp(x);
            sum = s.add(sum, e);
            weighted = s.fma(e, x, weighted);
        }
        TileSummary {
            first,
            second,
            sum: s.sum(sum),
            weighted: s.sum(weighted),
        }
    }
}
