//! Row lookup and its gradient.

use super::context::Context;
use super::workers::rows_per_task;
use crate::{DType, Result, Tensor};

/// See [`crate::backend::Backend::embedding`].
pub(crate) fn embedding(
    cx: Context<'_>,
    table: &Tensor,
    ids: &[u32],
    y: &mut Tensor,
) -> Result<()> {
    let d = table.shape()[1];
    if d == 0 {
        return Ok(());
    }
    let rows = rows_per_task(d);
    let y = y.f32s_mut()?;
    match table.dtype() {
        DType::F32 => {
            let table = table.f32s()?;
            cx.workers.for_each_chunk(y, rows * d, |i, y| {
                for (&id, y) in ids[i * rows..].iter().zip(y.chunks_exact_mut(d)) {
                    y.copy_from_slice(&table[id as usize * d..][..d]);
                }
            });
        }
        DType::Bf16 => {
            let table = table.bf16s()?;
            for (&id, y) in ids.iter().zip(y.chunks_exact_mut(d)) {
                for (y, x) in y.iter_mut().zip(&table[id as usize * d..][..d]) {
                    *y = x.to_f32();
                }
            }
        }
    }
    Ok(())
}

/// See [`crate::backend::Backend::write_rows`].
pub(crate) fn write_rows(
    _: Context<'_>,
    table: &mut Tensor,
    first: usize,
    x: &Tensor,
) -> Result<()> {
    let (x, start) = (x.f32s()?, first * table.shape()[1]);
    table.f32s_mut()?[start..start + x.len()].copy_from_slice(x);
    Ok(())
}

/// See [`crate::backend::Backend::embedding_backward`]. Tasks own ranges of the table's rows and
/// add in the order of `ids`, so that sums do not depend on the number of threads.
pub(crate) fn embedding_backward(
    cx: Context<'_>,
    dy: &Tensor,
    ids: &[u32],
    dtable: &mut Tensor,
) -> Result<()> {
    let [rows, d] = *dtable.shape() else {
        return Ok(());
    };
    if d == 0 {
        return Ok(());
    }
    let dy = dy.f32s()?;
    let rows_per_task = rows.div_ceil(4 * cx.workers.threads()).max(1);
    let dtable = dtable.f32s_mut()?;
    cx.workers
        .for_each_chunk(dtable, rows_per_task * d, |i, part| {
            let first = i * rows_per_task;
            let owned = first..first + part.len() / d;
            for (&id, dy) in ids.iter().zip(dy.chunks_exact(d)) {
                if owned.contains(&(id as usize)) {
                    let row = &mut part[(id as usize - first) * d..][..d];
                    for (sum, x) in row.iter_mut().zip(dy) {
                        *sum += x;
                    }
                }
            }
        });
    Ok(())
}
