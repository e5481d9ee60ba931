//! See `/kernels/remask.cu`.

use std::sync::Arc;

use llada_kernels::args::{
    LLADA_KEEP_FACTOR, LLADA_KEEP_QUOTA, LLADA_KEEP_THRESHOLD, LLADA_SCORE_CONFIDENCE,
    LLADA_SCORE_ENTROPY, LLADA_SCORE_MARGIN, LladaRemaskArgs, LladaRemaskOutcome, LladaRemaskRule,
};
use llada_tensor::backend::{Keep, RankBy, RemaskRule};
use llada_tensor::{Device, Error, Result};

use crate::backend::context_of;
use crate::context::Context;
use crate::launch::remask as plan;
use crate::memory::Scratch;
use crate::ops::candidates::DeviceCandidates;

const OP: &str = "remask";
/// Words of the structs.
pub(crate) const RULE: usize = size_of::<LladaRemaskRule>() / 4;
const OUTCOME: usize = size_of::<LladaRemaskOutcome>() / 4;

/// What a step did to one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemaskOutcome {
    /// Tokens that took the place of a mask.
    pub revealed: u32,
    /// Rows that are still masked.
    pub masked: u32,
    /// Rows whose score or confidence was not a number; they come last.
    pub not_numbers: u32,
}

/// Ids of some sequences in the memory of a device, in which steps of sampling put tokens in the
/// place of masks without the host's help.
#[derive(Debug)]
pub struct Canvas {
    device: Device,
    ids: Arc<Scratch>,
    len: usize,
    mask_token_id: u32,
    outcomes: Scratch,
    n_outcomes: usize,
}

impl Canvas {
    /// The sequences' ids, one after the other.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it is not a CUDA device; [`Error::OutOfMemory`].
    pub fn new(device: &Device, ids: &[u32], mask_token_id: u32) -> Result<Self> {
        let cx = context_of(OP, device)?;
        Ok(Self {
            device: device.clone(),
            ids: cx.upload_once(ids)?,
            len: ids.len(),
            mask_token_id,
            outcomes: cx.scratch(0)?,
            n_outcomes: 0,
        })
    }

    /// One step: of each sequence's candidates whose positions are still masked, the ones that its
    /// rule keeps take their places; among equals the first. Where the mask itself was chosen it
    /// stays. The device is not waited for.
    ///
    /// - `positions`: `[N]` indexes of the canvas, ascending in each sequence.
    /// - `candidates`: `[N]`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if there are not as many positions and candidates as the rules
    /// say; [`Error::IndexOutOfRange`] for a position past the canvas; if the device fails.
    pub fn remask(
        &mut self,
        rules: &[RemaskRule],
        positions: &[u32],
        candidates: &DeviceCandidates,
    ) -> Result<()> {
        let rows: usize = rules.iter().map(|rule| rule.rows).sum();
        if [positions.len(), candidates.rows()] != [rows; 2] {
            let (lhs, rhs) = (vec![positions.len(), candidates.rows()], vec![rows; 2]);
            return Err(Error::ShapeMismatch { op: OP, lhs, rhs });
        }
        if let Some(&at) = positions.iter().find(|&&at| at as usize >= self.len) {
            return Err(Error::IndexOutOfRange {
                op: OP,
                index: at as usize,
                limit: self.len,
            });
        }
        let cx = context_of(OP, &self.device)?;
        let (words, positions) = (
            cx.upload_once(&rule_words(rules)?)?,
            cx.upload_once(positions)?,
        );
        self.n_outcomes = rules.len();
        self.outcomes = launch(
            cx,
            &Masks {
                rules: &words,
                positions: &positions,
                candidates: &candidates.memory,
                canvas: &self.ids,
                rows,
                sequences: rules.len(),
                mask_token_id: self.mask_token_id,
            },
        )?;
        Ok(())
    }

    /// The ids after all steps.
    ///
    /// # Errors
    /// If the device fails.
    pub fn ids(&self) -> Result<Vec<u32>> {
        let mut ids = vec![0; self.len];
        context_of(OP, &self.device)?.download(&self.ids, &mut ids)?;
        Ok(ids)
    }

    /// What the last step did to each sequence.
    ///
    /// # Errors
    /// If the device fails.
    pub fn outcomes(&self) -> Result<Vec<RemaskOutcome>> {
        let mut words = vec![[0_u32; OUTCOME]; self.n_outcomes];
        context_of(OP, &self.device)?.download(&self.outcomes, &mut words)?;
        let outcome = |[revealed, masked, not_numbers, _]: [u32; OUTCOME]| RemaskOutcome {
            revealed,
            masked,
            not_numbers,
        };
        Ok(words.into_iter().map(outcome).collect())
    }
}

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

/// Remasks; returns the outcomes.
pub(crate) fn launch(cx: &Context, masks: &Masks<'_>) -> Result<Scratch> {
    let outcomes = cx.scratch(masks.sequences * size_of::<LladaRemaskOutcome>())?;
    let ranks = cx.scratch(masks.rows * size_of::<u32>())?;
    let args = LladaRemaskArgs {
        rules: masks.rules.pointer(),
        positions: masks.positions.pointer(),
        candidates: masks.candidates.pointer(),
        canvas: masks.canvas.pointer(),
        ranks: ranks.pointer(),
        outcomes: outcomes.pointer(),
        sequences: narrow(masks.sequences)?,
        mask_token_id: masks.mask_token_id,
    };
    let grid = plan::remask(masks.sequences)?;
    cx.launch(OP, "llada_remask_fwd_f32", grid, &args)?;
    Ok(outcomes)
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
