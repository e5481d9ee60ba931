//! The embedding of a quantised file, of which rows are read when a text has their tokens: in
//! memory it would be several times as large as it is in the file.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use half::bf16;
use memmap2::Mmap;

use super::blocks::Kind;

/// A matrix `[V, D]` in a mapped file.
#[derive(Clone)]
pub(crate) struct MappedTable {
    pub(super) map: Arc<Mmap>,
    pub(super) bytes: Range<usize>,
    pub(super) kind: &'static Kind,
    pub(super) width: usize,
    /// Whether values become bf16, as those of a table in memory.
    pub(super) is_rounded: bool,
}

impl fmt::Debug for MappedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, kind, .. } = self;
        write!(f, "MappedTable({} at {bytes:?})", kind.name)
    }
}

impl MappedTable {
    /// The rows of some ids, `[ids.len(), D]`.
    ///
    /// # Panics
    /// If an id is not below `V`.
    pub(crate) fn rows(&self, ids: &[u32]) -> Vec<f32> {
        let data = &self.map[self.bytes.clone()];
        let mut values = vec![0.0; ids.len() * self.width];
        for (&id, out) in ids.iter().zip(values.chunks_exact_mut(self.width)) {
            let row = self.kind.bytes_of(id as usize * self.width, self.width);
            self.kind.values(&data[row], out);
        }
        if self.is_rounded {
            let rounded = |x: &mut f32| *x = bf16::from_f32(*x).to_f32();
            values.iter_mut().for_each(rounded);
        }
        values
    }

    /// Columns, `D`.
    pub(crate) fn width(&self) -> usize {
        self.width
    }
}
