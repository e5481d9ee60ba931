//! Which rows each expert gets.

use std::ops::Range;

use crate::cpu::panels::panel_rows;
use crate::cpu::tasks::Part;
use crate::{Error, Result, Tensor};

/// The pairs of a token and one of its experts, as rows: by expert, then by token.
pub(super) struct Groups {
    /// Token of each row.
    pub(super) tokens: Vec<usize>,
    /// `[T, k]`: row of each pair.
    pub(super) rows: Vec<usize>,
    /// Experts that have rows, and these.
    pub(super) hits: Vec<(usize, Range<usize>)>,
}

impl Groups {
    /// `ids`: `[T, k]`.
    pub(super) fn new(ids: &Tensor, n_experts: usize) -> Result<Self> {
        let [_, k] = ids.matrix_shape("experts")?;
        let ids = ids.f32s()?;
        let mut ends = vec![0; n_experts + 1];
        for &id in ids {
            let (op, index, limit) = ("experts", id as usize, n_experts);
            let count = ends.get_mut(index + 1);
            *count.ok_or(Error::IndexOutOfRange { op, index, limit })? += 1;
        }
        for e in 0..n_experts {
            ends[e + 1] += ends[e];
        }
        let hits = (0..n_experts)
            .map(|e| (e, ends[e]..ends[e + 1]))
            .filter(|(_, rows)| !rows.is_empty())
            .collect();
        let (mut tokens, mut rows) = (vec![0; ids.len()], vec![0; ids.len()]);
        for (at, &id) in ids.iter().enumerate() {
            let next = &mut ends[id as usize];
            (rows[at], tokens[*next]) = (*next, at / k);
            *next += 1;
        }
        Ok(Self { tokens, rows, hits })
    }

    /// Rows of each left panel of `height` rows: every expert begins one.
    pub(super) fn panels(&self, height: usize) -> Vec<Range<usize>> {
        panel_rows(height, self.hits.iter().map(|(_, rows)| rows.len()))
    }

    /// The products of the experts, whose left panels have `height` rows, with weights of
    /// `right_panels` panels each; `first` is the expert with the first right panel.
    pub(super) fn parts(&self, height: usize, right_panels: usize) -> Vec<Part> {
        let mut left_panel = 0;
        let part = |(expert, rows): &(usize, Range<usize>)| {
            let first = left_panel;
            left_panel += rows.len().div_ceil(height);
            Part {
                left_panel: first,
                m: rows.len(),
                right_panel: expert * right_panels,
                first_row: rows.start,
            }
        };
        self.hits.iter().map(part).collect()
    }
}
