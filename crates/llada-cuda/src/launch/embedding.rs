//! Plans of `kernels/embedding.cu`.

use llada_tensor::{DType, Error, Result};

use crate::launch::elementwise::{RowTiles, VECTOR, row_tiles};

/// Most rows of one sum: longer ones, such as that of the mask, are split, so that many blocks
/// work on them.
const SEGMENT_ROWS: usize = 256;

/// The lookup of `n` rows of `d` elements.
pub(crate) fn embedding(n: usize, d: usize, table: DType) -> Result<RowTiles> {
    // A vector of 128 bits of the table per thread.
    row_tiles("embedding", n, d, 4 * VECTOR / table.size_bytes())
}

/// Sums of `segments` rows of `d` elements.
pub(crate) fn segment_sums(segments: usize, d: usize) -> Result<RowTiles> {
    row_tiles("embedding_backward", segments, d, VECTOR)
}

/// Sums of rows: segment `s` adds the rows `starts[s]..starts[s + 1]` of a list to row
/// `targets[s]`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Segments {
    pub(crate) starts: Vec<u32>,
    pub(crate) targets: Vec<u32>,
}

impl Segments {
    fn new() -> Self {
        let starts = vec![0];
        let targets = Vec::new();
        Self { starts, targets }
    }

    fn push(&mut self, end: u32, target: u32) {
        self.starts.push(end);
        self.targets.push(target);
    }
}

/// Which rows of the gradient of a lookup go where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gathering {
    /// The rows of the lookup, sorted by their ids and else in order. Those of ids with few rows
    /// come first.
    pub(crate) order: Vec<u32>,
    /// Sums of the first rows of `order` to rows of the table.
    pub(crate) direct: Segments,
    /// Where the rows of frequent ids start in `order`.
    pub(crate) n_direct: usize,
    /// Sums of the others to rows of scratch, counted from `n_direct`.
    pub(crate) split: Segments,
    /// Sums of rows of scratch to rows of the table.
    pub(crate) joined: Segments,
}

/// Sorts the rows of a lookup by their ids, and splits the sums of frequent ids.
///
/// # Errors
/// [`Error::InvalidArgument`] from 2^32 rows on.
pub(crate) fn gather(ids: &[u32]) -> Result<Gathering> {
    let (op, what) = ("embedding_backward", "there are 2^32 or more rows");
    let n = u32::try_from(ids.len()).map_err(|_| Error::InvalidArgument { op, what })?;
    let mut sorted: Vec<u32> = (0..n).collect();
    sorted.sort_by_key(|&row| ids[row as usize]);
    let runs = || sorted.chunk_by(|&a, &b| ids[a as usize] == ids[b as usize]);
    let [mut direct, mut split, mut joined] = [(); 3].map(|()| Segments::new());
    let mut order = Vec::with_capacity(ids.len());
    for run in runs().filter(|run| run.len() <= SEGMENT_ROWS) {
        order.extend_from_slice(run);
        direct.push(length(&order), ids[run[0] as usize]);
    }
    let n_direct = order.len();
    for run in runs().filter(|run| run.len() > SEGMENT_ROWS) {
        for part in run.chunks(SEGMENT_ROWS) {
            order.extend_from_slice(part);
            split.push(length(&order[n_direct..]), length(&split.targets));
        }
        joined.push(length(&split.targets), ids[run[0] as usize]);
    }
    Ok(Gathering {
        order,
        direct,
        n_direct,
        split,
        joined,
    })
}

/// A length that is at most the number of rows.
fn length(list: &[u32]) -> u32 {
    u32::try_from(list.len()).expect("the number of rows was checked")
}

#[cfg(test)]
mod tests;
