//! See `/kernels/remask.cu`.

use llada_diffusion::{Keep, RankBy, RemaskRule};
use llada_kernels::args::{
    LLADA_KEEP_FACTOR, LLADA_KEEP_QUOTA, LLADA_KEEP_THRESHOLD, LLADA_SCORE_CONFIDENCE,
    LLADA_SCORE_ENTROPY, LLADA_SCORE_MARGIN, LladaRemaskArgs, LladaRemaskRule,
};
use llada_tensor::{Error, Result};

use crate::context::Context;
use crate::launch::remask as plan;
use crate::memory::Scratch;

const OP: &str = "remask";
/// Words of a [`LladaRemaskRule`].
pub(crate) const RULE: usize = size_of::<LladaRemaskRule>() / 4;

/// The masks of some sequences in the memory of a device.
pub(crate) struct Masks<'a> {
    /// `[B]`, see [`rule_words`].
    pub(crate) rules: &'a Scratch,
    /// `[N]`, inside the canvas.
    pub(crate) positions: &'a Scratch,
    /// `[N]`
    pub(crate) candidates: &'a Scratch,
    /// Ids, some of which are replaced.
    pub(crate) canvas: &'a Scratch,
    /// N
    pub(crate) rows: usize,
    /// B
    pub(crate) sequences: usize,
    pub(crate) mask_token_id: u32,
}

/// Of each sequence's candidates whose positions are still masked, those that its rule keeps take
/// their places.
///
/// # Errors
/// If there is no memory, or the device fails.
pub(crate) fn launch(cx: &Context, masks: &Masks<'_>) -> Result<()> {
    let ranks = cx.scratch(masks.rows * size_of::<u32>())?;
    let args = LladaRemaskArgs {
        rules: masks.rules.pointer(),
        positions: masks.positions.pointer(),
        candidates: masks.candidates.pointer(),
        canvas: masks.canvas.pointer(),
        ranks: ranks.pointer(),
        sequences: narrow(masks.sequences)?,
        mask_token_id: masks.mask_token_id,
    };
    let grid = plan::remask(masks.sequences)?;
    cx.launch(OP, "llada_remask_fwd_f32", grid, &args)
}

/// The rules as [`LladaRemaskRule`]s.
///
/// # Errors
/// [`Error::InvalidArgument`] from 2^32 rows on.
pub(crate) fn rule_words(rules: &[RemaskRule]) -> Result<Vec<[u32; RULE]>> {
    let mut first_row = 0;
    let of = |rule: &RemaskRule| {
        let score = match rule.rank_by {
            RankBy::Confidence => LLADA_SCORE_CONFIDENCE,
            RankBy::Margin => LLADA_SCORE_MARGIN,
            RankBy::Entropy => LLADA_SCORE_ENTROPY,
        };
        let (keep, quota, bound) = match rule.keep {
            Keep::Quota(quota) => (LLADA_KEEP_QUOTA, quota, 0.0),
            Keep::Threshold(threshold) => (LLADA_KEEP_THRESHOLD, 0, threshold),
            Keep::Factor(factor) => (LLADA_KEEP_FACTOR, 0, factor),
        };
        let [at, rows] = [narrow(first_row)?, narrow(rule.rows)?];
        first_row += rule.rows;
        Ok([at, rows, score, keep, quota, bound.to_bits()])
    };
    rules.iter().map(of).collect()
}

fn narrow(n: usize) -> Result<u32> {
    let what = "2^32 rows or more";
    u32::try_from(n).map_err(|_| Error::InvalidArgument { op: OP, what })
}

#[cfg(all(test, feature = "nvcc"))]
mod tests;
