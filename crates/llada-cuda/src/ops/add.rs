//! See `/kernels/add.cu`.

use llada_kernels::args::{LladaAddArgs, LladaAddRowArgs, LladaAxpbyArgs, LladaColumnSumArgs};
use llada_tensor::{Result, Tensor};

use crate::context::Context;
use crate::launch::add as plan;
use crate::launch::elementwise::count;

const IMAGE: &str = "add";

/// See [`llada_tensor::backend::Backend::add`].
pub(crate) fn add(cx: &Context, x: &Tensor, z: &Tensor, y: &mut Tensor) -> Result<()> {
    let op = "add";
    let (n, d) = (x.numel(), z.numel());
    let (x, z, y) = (cx.f32s(op, x)?, cx.f32s(op, z)?, cx.f32s_mut(op, y)?);
    if n == d {
        return add_same(cx, x, z, y, n);
    }
    let rows = n.checked_div(d).unwrap_or(0);
    let tiles = plan::add_row(rows, d)?;
    let args = LladaAddRowArgs {
        x,
        z,
        y,
        rows: count(op, rows)?,
        d: count(op, d)?,
        lanes_log2: tiles.lanes_log2,
        padding: 0,
    };
    cx.launch(IMAGE, "llada_add_row_fwd_f32", tiles.plan, &args)
}

/// See [`llada_tensor::backend::Backend::add_into`].
pub(crate) fn add_into(cx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    let (op, n) = ("add_into", x.numel());
    let (x, y) = (cx.f32s(op, x)?, cx.f32s_mut(op, y)?);
    add_same(cx, y, x, y, n)
}

fn add_same(cx: &Context, x: u64, z: u64, y: u64, n: usize) -> Result<()> {
    let op = "add";
    let args = LladaAddArgs {
        x,
        z,
        y,
        n: count(op, n)?,
    };
    cx.launch(IMAGE, "llada_add_fwd_f32", plan::add(op, n)?, &args)
}

/// See [`llada_tensor::backend::Backend::axpby`].
pub(crate) fn axpby(cx: &Context, a: f32, x: &Tensor, b: f32, y: &mut Tensor) -> Result<()> {
    let (op, n) = ("axpby", x.numel());
    let args = LladaAxpbyArgs {
        x: cx.f32s(op, x)?,
        y: cx.f32s_mut(op, y)?,
        n: count(op, n)?,
        a,
        b,
    };
    cx.launch(IMAGE, "llada_axpby_fwd_f32", plan::add(op, n)?, &args)
}

/// See [`llada_tensor::backend::Backend::column_sum`].
pub(crate) fn column_sum(cx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    let (op, d) = ("column_sum", y.numel());
    let rows = x.numel().checked_div(d).unwrap_or(0);
    add_column_sums(cx, cx.f32s(op, x)?, [rows, d], cx.f32s_mut(op, y)?)
}

/// `y[c] += sum_r x[r, c]` for any number of rows without gaps.
pub(crate) fn add_column_sums(cx: &Context, x: u64, [rows, d]: [usize; 2], y: u64) -> Result<()> {
    let chunks = plan::column_sum_chunks(rows, d)?;
    if chunks.chunks <= 1 {
        return add_few_rows(cx, x, rows, d, y);
    }
    let partials = cx.scratch(chunks.chunks * d * size_of::<f32>())?;
    let to = (partials.pointer(), false);
    launch_column_sum(cx, &chunks, (x, rows, d), to)?;
    add_few_rows(cx, partials.pointer(), chunks.chunks, d, y)
}

/// The same in one launch: the partial sums of a first one.
fn add_few_rows(cx: &Context, x: u64, rows: usize, d: usize, y: u64) -> Result<()> {
    let total = plan::column_sum_total(rows, d)?;
    launch_column_sum(cx, &total, (x, rows, d), (y, true))
}

fn launch_column_sum(
    cx: &Context,
    stage: &plan::ColumnSum,
    (x, rows, d): (u64, usize, usize),
    (y, accumulate): (u64, bool),
) -> Result<()> {
    let op = "column_sum";
    let args = LladaColumnSumArgs {
        x,
        y,
        rows: count(op, rows)?,
        chunk_rows: count(op, stage.chunk_rows)?,
        d: count(op, d)?,
        lanes_log2: stage.lanes_log2,
        accumulate: accumulate.into(),
    };
    cx.launch(IMAGE, "llada_column_sum_fwd_f32", stage.plan, &args)
}
