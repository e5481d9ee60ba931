//! See `/kernels/embedding.cu`.

use llada_kernels::args::{LladaEmbeddingArgs, LladaSegmentSumArgs};
use llada_tensor::backend::Storage;
use llada_tensor::{DType, Result, Tensor};

use crate::context::{Context, pointer};
use crate::launch::elementwise::count;
use crate::launch::embedding::{self as plan, Segments};

const IMAGE: &str = "embedding";

/// See [`llada_tensor::backend::Backend::embedding`].
pub(crate) fn embedding(cx: &Context, table: &Tensor, ids: &[u32], y: &mut Tensor) -> Result<()> {
    let op = "embedding";
    let [_, d] = table.matrix_shape(op)?;
    table.expect_contiguous(op)?;
    let tiles = plan::embedding(ids.len(), d, table.dtype())?;
    let ids_memory = cx.upload(ids)?;
    let args = LladaEmbeddingArgs {
        table: pointer(table)?,
        ids: ids_memory.pointer(),
        y: cx.f32s_mut(op, y)?,
        n: count(op, ids.len())?,
        d: count(op, d)?,
        lanes_log2: tiles.lanes_log2,
        padding: 0,
    };
    let entry = match table.dtype() {
        DType::F32 => "llada_embedding_fwd_f32",
        DType::Bf16 => "llada_embedding_fwd_bf16",
    };
    cx.launch(IMAGE, entry, tiles.plan, &args)
}

/// See [`llada_tensor::backend::Backend::write_rows`]: a copy on the device, no kernel.
pub(crate) fn write_rows(cx: &Context, table: &mut Tensor, first: usize, x: &Tensor) -> Result<()> {
    let op = "write_rows";
    let [_, d] = table.matrix_shape(op)?;
    // Both are on this device, contiguous and f32.
    cx.f32s(op, x)?;
    cx.f32s_mut(op, table)?;
    let bytes = size_of::<f32>();
    let at = (table.offset() + first * d) * bytes;
    let (x_at, len) = (x.offset() * bytes, x.numel() * bytes);
    match (table.storage_mut(op)?, x.storage()) {
        (Storage::Device(table), Storage::Device(x)) => table.copy(at, &**x, x_at, len),
        _ => unreachable!("their addresses were just taken"),
    }
}

/// See [`llada_tensor::backend::Backend::embedding_backward`].
pub(crate) fn embedding_backward(
    cx: &Context,
    dy: &Tensor,
    ids: &[u32],
    dtable: &mut Tensor,
) -> Result<()> {
    let op = "embedding_backward";
    let [_, d] = dtable.matrix_shape(op)?;
    let (dy, dtable) = (cx.f32s(op, dy)?, cx.f32s_mut(op, dtable)?);
    if d == 0 || ids.is_empty() {
        return Ok(());
    }
    let gathering = plan::gather(ids)?;
    let order = cx.upload_once(&gathering.order)?;
    let sums = Sums { cx, d };
    sums.launch(dy, order.pointer(), &gathering.direct, (dtable, true))?;
    if gathering.split.targets.is_empty() {
        return Ok(());
    }
    let n_partials = gathering.split.targets.len();
    let partials = cx.scratch(n_partials * d * size_of::<f32>())?;
    let split_order = order.pointer() + (gathering.n_direct * size_of::<u32>()) as u64;
    let to_partials = (partials.pointer(), false);
    sums.launch(dy, split_order, &gathering.split, to_partials)?;
    // The targets of the split sums are the rows of scratch in order.
    let in_order = cx.upload_once(&gathering.split.targets)?;
    let from = (partials.pointer(), in_order.pointer());
    sums.launch(from.0, from.1, &gathering.joined, (dtable, true))
}

/// Launches of one width.
struct Sums<'a> {
    cx: &'a Context,
    d: usize,
}

impl Sums<'_> {
    /// Sums of the rows of `x` that `order` lists, to or onto rows of `y`.
    fn launch(
        &self,
        x: u64,
        order: u64,
        segments: &Segments,
        (y, accumulate): (u64, bool),
    ) -> Result<()> {
        let (op, n) = ("embedding_backward", segments.targets.len());
        let starts = self.cx.upload_once(&segments.starts)?;
        let targets = self.cx.upload_once(&segments.targets)?;
        let tiles = plan::segment_sums(n, self.d)?;
        let args = LladaSegmentSumArgs {
            x,
            order,
            starts: starts.pointer(),
            targets: targets.pointer(),
            y,
            segments: count(op, n)?,
            d: count(op, self.d)?,
            lanes_log2: tiles.lanes_log2,
            accumulate: accumulate.into(),
        };
        self.cx
            .launch(IMAGE, "llada_embedding_bwd_f32", tiles.plan, &args)
    }
}
