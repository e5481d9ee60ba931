//! See `/kernels/cross_entropy.cu`.

use llada_kernels::args::{
    LladaCrossEntropyArgs, LladaCrossEntropyBackwardArgs, LladaCrossEntropyMergeArgs,
    LladaCrossEntropyPartial,
};
use llada_tensor::Result;
use llada_tensor::backend::{CrossEntropyArgs, CrossEntropyBackwardArgs, Rhs};

use crate::context::Context;
use crate::launch::candidates::{HeadTile, merge, tiles};
use crate::launch::cross_entropy as plan;
use crate::operands::{Matrices, ready};
use crate::ops::add::add_column_sums;
use crate::ops::candidates::{Head, wide};
use crate::ops::matmul::multiply_batch;
use crate::product::{Output, Write};

const OP: &str = "cross_entropy";

/// See [`llada_tensor::backend::Backend::cross_entropy`].
pub(crate) fn cross_entropy(cx: &Context, args: CrossEntropyArgs<'_>) -> Result<()> {
    let rows = args.targets.len();
    let states = (args.hidden, None);
    let head = Head::new(cx, OP, states, args.head, args.bias, args.precision)?;
    let targets = cx.upload_once(args.targets)?;
    let target_logits = cx.scratch(rows * size_of::<f32>())?;
    let (losses, lse) = (cx.f32s_mut(OP, args.losses)?, cx.f32s_mut(OP, args.lse)?);
    let tiles = tiles(head.vocab_size);
    for pass in plan::row_passes(rows, head.vocab_size) {
        let partials = cx.scratch(pass.len() * tiles * size_of::<LladaCrossEntropyPartial>())?;
        let tile = plan::head_tile(head.operands, pass.len());
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
            cx.launch(OP, entries_of(tile).0, grid, &kernel_args)
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

/// Names of the kernels forward and backward; a head of integers has no gradient.
fn entries_of(tile: HeadTile) -> (&'static str, &'static str) {
    match tile {
        HeadTile::Bf16R16 => (
            "llada_cross_entropy_fwd_bf16_r16",
            "llada_cross_entropy_bwd_bf16_r16",
        ),
        HeadTile::Bf16R32 | HeadTile::Bf16R64 => (
            "llada_cross_entropy_fwd_bf16_r64",
            "llada_cross_entropy_bwd_bf16_r64",
        ),
        HeadTile::Bf16R128 => (
            "llada_cross_entropy_fwd_bf16_r128",
            "llada_cross_entropy_bwd_bf16_r128",
        ),
        HeadTile::F32R16 => (
            "llada_cross_entropy_fwd_f32_r16",
            "llada_cross_entropy_bwd_f32_r16",
        ),
        HeadTile::F32R64 => (
            "llada_cross_entropy_fwd_f32_r64",
            "llada_cross_entropy_bwd_f32_r64",
        ),
        HeadTile::Logits => ("llada_cross_entropy_fwd_logits_f32", ""),
    }
}

/// See [`llada_tensor::backend::Backend::cross_entropy_backward`].
pub(crate) fn cross_entropy_backward(
    cx: &Context,
    args: CrossEntropyBackwardArgs<'_>,
) -> Result<()> {
    let CrossEntropyBackwardArgs {
        hidden,
        head: weight,
        bias,
        targets,
        dlosses,
        lse,
        precision,
        dhidden,
        dhead,
        dbias,
    } = args;
    let (rows, d) = (targets.len(), hidden.shape()[1]);
    let head = Rhs::Weight(weight);
    let head = Head::new(cx, OP, (hidden, None), head, bias, precision)?;
    let (hidden, weight) = (Matrices::of(hidden)?, Matrices::of(weight)?);
    let hidden = ready(cx, &hidden, precision)?;
    let (targets, dlosses) = (cx.upload_once(targets)?, cx.upload_once(dlosses)?);
    let lse = cx.f32s(OP, lse)?;
    let dbias = dbias.map_or(Ok(0), |dbias| cx.f32s_mut(OP, dbias))?;
    let dhead = dhead.map_or(Ok(0), |dhead| cx.f32s_mut(OP, dhead))?;
    let dhidden = cx.f32s_mut(OP, dhidden)?;
    if rows == 0 {
        return Ok(());
    }

    let tile = plan::head_tile(head.operands, rows);
    let entries = plan::backward_entries(rows);
    let dlogits = cx.scratch(rows * entries.min(head.vocab_size) * size_of::<f32>())?;
    head.for_each_part(cx, 0..rows, entries, |part| {
        let kernel_args = LladaCrossEntropyBackwardArgs {
            head: *part,
            targets: targets.pointer(),
            dlosses: dlosses.pointer(),
            lse,
            dlogits: dlogits.pointer(),
        };
        let [start, len] = [part.start, part.len].map(|n| usize::try_from(n).unwrap_or(0));
        let grid = tile.plan(OP, [rows, 1], len)?;
        cx.launch(OP, entries_of(tile).1, grid, &kernel_args)?;
        let slopes = Matrices::contiguous(dlogits.pointer(), rows, len);
        let slopes = ready(cx, &slopes, precision)?;
        let output = |pointer, accumulate| Output {
            pointer,
            row_stride: d,
            write: Write::f32(accumulate),
        };
        let weight = weight.clone().rows_of_transpose(start..start + len);
        let (left, right) = (&slopes.matrices, &weight);
        multiply_batch(cx, left, right, output(dhidden, start > 0), precision)?;
        if dhead != 0 {
            let at = dhead + (start * d * size_of::<f32>()) as u64;
            let (left, right) = (&left.clone().transposed(), &hidden.matrices);
            multiply_batch(cx, left, right, output(at, true), precision)?;
        }
        if dbias == 0 {
            return Ok(());
        }
        let to = dbias + (start * size_of::<f32>()) as u64;
        add_column_sums(cx, dlogits.pointer(), [rows, len], to)
    })
}
