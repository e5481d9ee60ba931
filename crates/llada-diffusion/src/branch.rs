//! Sequences that read the cache of another one and leave it as it is.

use std::ops::Range;

use llada_tensor::Tensor;
use llada_tensor::ops::embedding::write_rows;

use crate::{KvCache, Result};

/// A sequence of a call that sees the keys and values of another one, as the call leaves them, but
/// for those of its own rows, which it keeps for itself.
///
/// So a call can compute several continuations of one canvas, and the cache be any of them after it:
/// [`KvCache::adopt`].
#[derive(Debug, Default)]
pub struct Branch {
    /// Which of the call's caches it reads.
    pub cache: usize,
    /// Positions that were computed; for predictors to fill, as is the next.
    pub rows: Vec<Range<usize>>,
    /// Keys (rotated) and values of each layer, `[N, K * E]`, of these positions one after the
    /// other.
    pub layers: Vec<[Tensor; 2]>,
}

impl Branch {
    /// A branch of a cache, before its call.
    #[must_use]
    pub fn of(cache: usize) -> Self {
        Self {
            cache,
            ..Self::default()
        }
    }
}

impl KvCache {
    /// Takes the rows of a branch over, as if the call that has computed them had been given this
    /// cache. It must be what the branch has read, but for these rows.
    ///
    /// # Errors
    /// If the branch is of another sequence, or the runtime fails.
    pub fn adopt(&mut self, branch: &Branch) -> Result<()> {
        crate::forward::expect_length("layers", self.layers.len(), branch.layers.len())?;
        for (tables, new) in self.layers.iter_mut().zip(&branch.layers) {
            for (table, new) in tables.iter_mut().zip(new) {
                write_ranges(table, &branch.rows, new)?;
            }
        }
        for range in &branch.rows {
            self.known[range.clone()].fill(true);
        }
        Ok(())
    }
}

/// Writes rows `[N, D]`, one after the other, into ranges of the rows of a table.
///
/// # Errors
/// If they do not fit, or the runtime fails.
pub fn write_ranges(
    table: &mut Tensor,
    ranges: &[Range<usize>],
    rows: &Tensor,
) -> llada_tensor::Result<()> {
    let mut done = 0;
    for range in ranges {
        write_rows(table, range.start, &rows.narrow(0, done, range.len())?)?;
        done += range.len();
    }
    Ok(())
}

/// A copy of ranges of the rows of a table, one after the other.
///
/// # Errors
/// If the table has not as many rows, or the runtime fails.
pub fn read_ranges(table: &Tensor, ranges: &[Range<usize>]) -> llada_tensor::Result<Tensor> {
    let n = ranges.iter().map(ExactSizeIterator::len).sum();
    let mut rows = Tensor::empty(table.device(), table.dtype(), &[n, table.shape()[1]])?;
    let mut done = 0;
    for range in ranges {
        write_rows(&mut rows, done, &table.narrow(0, range.start, range.len())?)?;
        done += range.len();
    }
    Ok(rows)
}
