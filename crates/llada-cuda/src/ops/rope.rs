//! See `/kernels/rope.cu`.

use llada_kernels::args::LladaRopeArgs;
use llada_tensor::backend::RopeArgs;
use llada_tensor::{DType, Result};

use crate::context::Context;
use crate::launch::elementwise::count;
use crate::launch::{narrow, rope as plan};

const IMAGE: &str = "rope";

/// See [`llada_tensor::backend::Backend::rope`]. The output may also be `bf16`.
pub(crate) fn rope(cx: &Context, args: RopeArgs<'_>) -> Result<()> {
    let op = "rope";
    let table = args.table;
    let ([rows, width], [_, half]) = (args.x.matrix_shape(op)?, table.cos.matrix_shape(op)?);
    let heads = width.checked_div(table.head_dim).unwrap_or(0);
    let entry = match args.y.dtype() {
        DType::F32 => "llada_rope_fwd_f32",
        DType::Bf16 => "llada_rope_fwd_bf16",
    };
    let tiles = plan::rope(rows, heads, half, args.y.dtype())?;
    let positions = cx.upload(args.positions)?;
    let kernel_args = LladaRopeArgs {
        x: cx.f32s(op, args.x)?,
        cos: cx.f32s(op, &table.cos)?,
        sin: cx.f32s(op, &table.sin)?,
        positions: positions.pointer(),
        y: cx.pointer_mut(args.y)?,
        rows: count(op, rows)?,
        heads: narrow(op, heads)?,
        half: narrow(op, half)?,
        sign: if args.inverse { -1.0 } else { 1.0 },
        lanes_log2: tiles.lanes_log2,
        head_dim: narrow(op, table.head_dim)?,
        padding: 0,
    };
    cx.launch(IMAGE, entry, tiles.plan, &kernel_args)
}
