//! See `/kernels/cross_entropy.cu`.

use llada_kernels::args::{
    LladaCrossEntropyArgs, LladaCrossEntropyMergeArgs, LladaCrossEntropyPartial,
};
use llada_tensor::backend::{CrossEntropyArgs, CrossEntropyBackwardArgs};
use llada_tensor::{DType, Result};

use crate::context::Context;
use crate::launch::candidates::{TileRows, merge, tiles};
use crate::launch::cross_entropy as plan;
use crate::ops::candidates::{Head, HeadRows, wide};
use crate::ops::missing;

const OP: &str = "cross_entropy";

/// See [`llada_tensor::backend::Backend::cross_entropy`].
pub(crate) fn cross_entropy(cx: &Context, args: CrossEntropyArgs<'_>) -> Result<()> {
    let CrossEntropyArgs {
        hidden,
        head,
        bias,
        targets,
        precision,
        losses,
        lse,
    } = args;
    let rows = targets.len();
    let states = HeadRows {
        hidden,
        unconditional: None,
    };
    let head = Head::new(cx, OP, states, head, bias, precision)?;
    let targets = cx.upload_once(targets)?;
    let target_logits = cx.scratch(rows * size_of::<f32>())?;
    let (losses, lse) = (cx.f32s_mut(OP, losses)?, cx.f32s_mut(OP, lse)?);
    let tiles = tiles(head.vocab_size);
    for pass in plan::row_passes(rows, head.vocab_size) {
        let partials = cx.scratch(pass.len() * tiles * size_of::<LladaCrossEntropyPartial>())?;
        let tile = plan::tile_rows(head.dtype, pass.len());
        let at = (pass.start * size_of::<f32>()) as u64;
        head.for_each_part(cx, pass.clone(), head.most_entries(), |part| {
            let kernel_args = LladaCrossEntropyArgs {
                head: *part,
                targets: targets.pointer() + at,
                partials: partials.pointer(),
                target_logits: target_logits.pointer() + at,
                tiles: wide(tiles),
            };
            let entries = usize::try_from(part.len).unwrap_or(0);
            let grid = tile.plan(OP, [pass.len(), 1], entries)?;
            cx.launch(OP, forward_entry(head.dtype, tile), grid, &kernel_args)
        })?;
        let kernel_args = LladaCrossEntropyMergeArgs {
            partials: partials.pointer(),
            target_logits: target_logits.pointer() + at,
            losses: losses + at,
            lse: lse + at,
            tiles: wide(tiles),
            rows: wide(pass.len()),
        };
        let grid = merge(OP, pass.len())?;
        cx.launch(OP, "llada_cross_entropy_merge_f32", grid, &kernel_args)?;
    }
    Ok(())
}

fn forward_entry(dtype: DType, tile: TileRows) -> &'static str {
    match (dtype, tile) {
        (DType::Bf16, TileRows::R16) => "llada_cross_entropy_fwd_bf16_r16",
        (DType::Bf16, TileRows::R32 | TileRows::R64) => "llada_cross_entropy_fwd_bf16_r64",
        (DType::Bf16, TileRows::R128) => "llada_cross_entropy_fwd_bf16_r128",
        (DType::F32, TileRows::R16) => "llada_cross_entropy_fwd_f32_r16",
        (DType::F32, _) => "llada_cross_entropy_fwd_f32_r64",
    }
}

/// See [`llada_tensor::backend::Backend::cross_entropy_backward`].
pub(crate) fn cross_entropy_backward(
    cx: &Context,
    _args: CrossEntropyBackwardArgs<'_>,
) -> Result<()> {
    missing(cx, "cross_entropy_backward")
}
