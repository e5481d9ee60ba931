//! Blocks of a canvas, filled one after the other, and their shares of the steps.

use std::ops::Range;

use llada_diffusion::num_transfer_tokens;

/// A stretch of the canvas and the steps that are spent on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// Its positions.
    pub(crate) range: Range<usize>,
    /// Its steps.
    pub(crate) steps: usize,
}

/// Cuts `span` into blocks of `block_length` (the last may be shorter), leaves out those without a
/// mask, and divides the steps among the others: evenly where that is possible, as the reference
/// demands, or else with one more for the first blocks.
///
/// With fewer steps than blocks the last blocks get none: the caller checks.
pub(crate) fn blocks(
    is_masked: &[bool],
    span: Range<usize>,
    block_length: Option<usize>,
    steps: usize,
) -> Vec<Block> {
    let length = block_length.unwrap_or(span.len()).max(1);
    let cut = |start: usize| start..span.end.min(start.saturating_add(length));
    let ranges: Vec<Range<usize>> = (span.start..span.end)
        .step_by(length)
        .map(cut)
        .filter(|range| is_masked[range.clone()].contains(&true))
        .collect();
    let shares = num_transfer_tokens(steps, ranges.len());
    ranges
        .into_iter()
        .zip(shares)
        .map(|(range, steps)| Block { range, steps })
        .collect()
}

#[cfg(test)]
mod tests;
