//! What a step of LLaDA2.x writes: which masks it fills, which tokens it replaces, and how deletions
//! and insertions move the rest of a block.

use std::ops::Range;

use crate::remask::ranked;

/// The masks that a step fills, as indexes of the confidences, ascending: all above the threshold,
/// or the `need` best if they are fewer.
pub(crate) fn filled(confidences: &[f32], threshold: f32, need: usize) -> Vec<usize> {
    let above = |&i: &usize| confidences[i] > threshold;
    let sure: Vec<usize> = (0..confidences.len()).filter(above).collect();
    if sure.len() >= need {
        return sure;
    }
    let mut best = ranked(confidences);
    best.truncate(need);
    best.sort_unstable();
    best
}

/// Tokens that are no text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EditTokens {
    pub(crate) mask: u32,
    pub(crate) delete: u32,
    pub(crate) split: u32,
}

impl EditTokens {
    /// Whether a token asks for an edit.
    pub(crate) fn is_edit(&self, id: u32) -> bool {
        id == self.delete || id == self.split
    }
}

/// Where a place of a block comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A place of the block as it was written.
    Place(usize),
    /// A mask that a split has put in.
    Inserted,
    /// A mask at the end, for what was deleted.
    Padding,
}

/// A place of a block after a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) token: u32,
    /// Whether it was a mask when the block was begun.
    pub(crate) is_original: bool,
    pub(crate) origin: Origin,
}

/// A block as a step has written it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WrittenBlock<'a> {
    /// `[B]`, with tokens that ask for edits.
    pub(crate) tokens: &'a [u32],
    /// `[B]`: the block before the step.
    pub(crate) before: &'a [u32],
    /// `[B]`
    pub(crate) is_original: &'a [bool],
    /// Places at its start that are kept as they are.
    pub(crate) n_given: usize,
}

/// Carries out the edits of a block from left to right, `[B]` again: a deletion drops its place, a
/// split becomes a mask and the token that stood there before the step. What is too long is cut
/// off, what is too short filled with masks.
///
/// Source: LLaDA2.2, as two ports of its loop describe it.
pub(crate) fn scan(written: &WrittenBlock<'_>, ids: EditTokens) -> Vec<Place> {
    let mut places = Vec::with_capacity(2 * written.tokens.len());
    for (at, &token) in written.tokens.iter().enumerate() {
        let is_given = at < written.n_given;
        let place = Place {
            token,
            is_original: written.is_original[at] && !is_given,
            origin: Origin::Place(at),
        };
        if is_given || !ids.is_edit(token) {
            places.push(place);
        } else if token == ids.split {
            places.push(new_mask(ids.mask, Origin::Inserted));
            let token = written.before[at];
            places.push(Place { token, ..place });
        }
    }
    places.resize(written.tokens.len(), new_mask(ids.mask, Origin::Padding));
    places
}

fn new_mask(token: u32, origin: Origin) -> Place {
    Place {
        token,
        is_original: false,
        origin,
    }
}

/// How a block that may change again has been worked on.
#[derive(Debug, Clone, Default)]
pub(crate) struct BlockEdits {
    /// Steps in a row that began without one of the first masks.
    pub(crate) post_steps: usize,
    /// `[B]`: masks of the beginning, which move with the tokens.
    pub(crate) is_original: Vec<bool>,
    /// The block as each step has written it, before its edits were carried out.
    pub(crate) seen: Vec<Vec<u32>>,
}

impl BlockEdits {
    /// A block at its beginning.
    pub(crate) fn of(is_masked: impl Iterator<Item = bool>) -> Self {
        Self {
            is_original: is_masked.collect(),
            ..Self::default()
        }
    }

    /// Masks of a block that were there from its beginning.
    pub(crate) fn original_masks(&self, block: &[u32], mask: u32) -> usize {
        let places = block.iter().zip(&self.is_original);
        places
            .filter(|&(&id, &original)| id == mask && original)
            .count()
    }
}

/// The part of a range that lies before a place, counted from its start.
pub(crate) fn length_before(range: &Range<usize>, place: usize) -> usize {
    place.clamp(range.start, range.end) - range.start
}

#[cfg(test)]
mod tests;
