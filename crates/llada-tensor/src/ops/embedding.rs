//! Row lookup: token embeddings, and the gather of masked positions before the head.

use super::Cost;
use crate::error::expect_ids;
use crate::{DType, Error, Result, Tape, Tensor, Var};

/// Work of looking up `n` rows of `d` elements.
#[must_use]
pub fn cost(n: usize, d: usize) -> Cost {
    Cost::elementwise(n * d, 0, 8)
}

/// `table[first + i] = x[i]`: puts rows into a cache of keys or values.
///
/// - `table`: `[V, D]`, contiguous and not shared; `x`: `[N, D]`; both `f32`.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], or [`Error::IndexOutOfRange`] if the rows
/// end past the table.
pub fn write_rows(table: &mut Tensor, first: usize, x: &Tensor) -> Result<()> {
    let op = "write_rows";
    let (&[limit, d], &[n, x_d]) = (table.shape(), x.shape()) else {
        return Err(Error::shapes(op, table.shape(), x.shape()));
    };
    if d != x_d {
        return Err(Error::shapes(op, table.shape(), x.shape()));
    }
    if first.checked_add(n).is_none_or(|end| end > limit) {
        let index = first.saturating_add(n);
        return Err(Error::IndexOutOfRange { op, index, limit });
    }
    table.expect_f32(op)?;
    x.expect_f32(op)?;
    x.device().clone().backend().write_rows(table, first, x)
}

impl Tape {
    /// `y[i] = table[ids[i]]`.
    ///
    /// - `table`: `[V, D]`; returns `[ids.len(), D]`.
    /// - Gradient: `dtable[ids[i]] += dy[i]`, in the order of `i`.
    ///
    /// # Errors
    /// [`Error::Rank`], or [`Error::IndexOutOfRange`] for an id that the table lacks.
    pub fn embedding(&mut self, table: &Var, ids: &[u32]) -> Result<Var> {
        let op = "embedding";
        let [rows, d] = table.value().matrix_shape(op)?;
        expect_ids(op, ids, rows)?;
        let mut y = Tensor::empty(self.device(), DType::F32, &[ids.len(), d])?;
        self.device()
            .backend()
            .embedding(table.value(), ids, &mut y)?;
        let (table_in, ids_in) = (table.place(), ids.to_vec());
        Ok(self.push(y, &[table], move |dy, sink| {
            if let Some(dtable) = sink.sum(table_in)? {
                return dy
                    .device()
                    .backend()
                    .embedding_backward(dy, &ids_in, dtable);
            }
            let mut dtable = Tensor::zeros(dy.device(), DType::F32, &[rows, d])?;
            dy.device()
                .backend()
                .embedding_backward(dy, &ids_in, &mut dtable)?;
            sink.add(table_in, dtable)
        }))
    }
}
