//! Matrix products on packed panels.
//!
//! Both operands are copied into panels: 12 rows (AVX-512) of the left one, 32 columns of the
//! right one, k running inside, in blocks of k that keep a right panel in the first-level cache.
//! Then tasks of some rows by some columns run the register block over all pairs of panels.
//! In [`Precision::Bf16`] the copies are rounded to bf16; with AVX512-BF16 or AMX they are bf16 tiles.
//! Each element of the output is one sum in a fixed order of k, so that results depend neither
//! on the number of threads nor on the other rows of the operand.

use std::sync::Arc;

use half::bf16;

use super::blocks::integers::{self, IntegerBlocks};
use super::blocks::left::Left;
use super::context::Context;
use super::panels::{
    Kind, Layout, Matrix, Operand, Panels, Side, pack_panels, pack_rows, panel_rows,
};
use super::quantized::{self, QuantizedWeight};
use super::simd::{Kernel, Simd};
use super::tasks::{Output, Part, Source, Task, TaskGrid};
#[cfg(target_arch = "x86_64")]
use super::workers::Shared;
use super::workers::rows_per_task;
use crate::backend::{FillCodes, FillRows, MatmulArgs, PackedWeight, Rhs};
use crate::storage::Buffer;
use crate::{DType, Error, Precision, Result, Tensor};

/// A weight in panels, or the weights of several experts, each of which begins a panel.
#[derive(Debug)]
pub(super) struct CpuPacked {
    pub(super) kind: Kind,
    pub(super) experts: usize,
    /// Of whole panels.
    pub(super) layout: Layout,
    pub(super) panels: Panels,
    /// Rows of an expert.
    pub(super) n: usize,
}

/// See [`crate::backend::Backend::pack`].
pub(crate) fn pack(
    cx: Context<'_>,
    [n, k]: [usize; 2],
    precision: Precision,
    fill: FillRows<'_>,
) -> Result<Arc<dyn PackedWeight>> {
    pack_stack(cx, [1, n, k], precision, fill)
}

/// See [`crate::backend::Backend::pack_experts`].
pub(super) fn pack_stack(
    cx: Context<'_>,
    [experts, n, k]: [usize; 3],
    precision: Precision,
    fill: FillRows<'_>,
) -> Result<Arc<dyn PackedWeight>> {
    if precision.is_integer() {
        let source = quantized::Source::Values(fill);
        return quantized::pack(cx, [experts, n, k], precision, source);
    }
    let kind = Kind::of(cx.level, precision);
    let rows = panel_rows(kind.columns(), (0..experts).map(|_| n));
    let layout = Layout::new(kind, rows.len() * kind.columns(), kind.columns(), k);
    let mut panels = cx.pool.take(layout.elements() * kind.packed_bytes());
    pack_rows(cx, kind, Side::Right, (layout, &rows), fill, &mut panels);
    Ok(Arc::new(CpuPacked {
        kind,
        experts,
        layout,
        panels: Panels::Packed(panels),
        n,
    }))
}

/// See [`crate::backend::Backend::pack_codes`].
pub(crate) fn pack_codes(
    cx: Context<'_>,
    [n, k]: [usize; 2],
    precision: Precision,
    fill: FillCodes<'_>,
) -> Result<Arc<dyn PackedWeight>> {
    quantized::pack(cx, [1, n, k], precision, quantized::Source::Codes(fill))
}

/// See [`crate::backend::Backend::matmul`].
pub(crate) fn matmul(cx: Context<'_>, args: MatmulArgs<'_>) -> Result<()> {
    let MatmulArgs {
        a,
        b,
        c,
        accumulate,
        precision,
    } = args;
    if c.dtype() == DType::F32 {
        return matmul_into(cx, a, b, c.f32s_mut()?, accumulate, precision);
    }
    let [m, n] = c.matrix_shape("matmul")?;
    #[cfg(target_arch = "x86_64")]
    if let (kind @ Kind::Tiles { .. }, Right::Matrix(b)) =
        (Kind::of(cx.level, precision), Right::of(b, 0)?)
        && a.shape()[1] * m * n > 0
        && !precision.is_integer()
    {
        let (size, stride) = ([m, n, a.shape()[1]], c.strides()[0]);
        let c = Shared::new(c.bf16_rows_mut()?);
        let out = Output::Rounded { c, stride };
        multiply_matrices(cx, kind, [Matrix::of(a, 0)?, b], size, out);
        return Ok(());
    }
    let mut sums = Tensor::empty(c.device(), DType::F32, &[m, n])?;
    matmul_into(cx, a, b, sums.f32s_mut()?, false, precision)?;
    round(cx, &sums, c)
}

/// See [`crate::backend::Backend::round`].
pub(crate) fn round(cx: Context<'_>, x: &Tensor, y: &mut Tensor) -> Result<()> {
    let [_, width] = x.matrix_shape("round")?;
    if x.numel() == 0 {
        return Ok(());
    }
    let (x, stride) = (Matrix::of(x, 0)?, y.strides()[0]);
    let rows = rows_per_task(width);
    cx.workers
        .for_each_chunk(y.bf16_rows_mut()?, rows * stride, |i, y| {
            cx.level.run(Round {
                x,
                first: i * rows,
                width,
                y,
                stride,
            });
        });
    Ok(())
}

/// Rounds rows, the first of which is `first`; gaps between rows of the output become zero.
struct Round<'a> {
    x: Matrix<'a>,
    first: usize,
    width: usize,
    y: &'a mut [bf16],
    stride: usize,
}

impl Kernel for Round<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut x = vec![0.0; self.width];
        for (row, y) in (self.first..).zip(self.y.chunks_mut(self.stride)) {
            self.x.copy_row(row, &mut x);
            let (y, gap) = y.split_at_mut(self.width);
            for at in (0..self.width).step_by(S::LANES) {
                s.store_bf16(&mut y[at..], s.load(&x[at..], 0.0));
            }
            gap.fill(bf16::ZERO);
        }
    }
}

/// `c (+)= a b` where `c` is a part of some output, `[.., M, N]` without gaps.
pub(crate) fn matmul_into(
    cx: Context<'_>,
    a: &Tensor,
    b: Rhs<'_>,
    c: &mut [f32],
    accumulate: bool,
    precision: Precision,
) -> Result<()> {
    let (k, n) = b.k_n().unwrap_or_default();
    let m = a.shape()[a.shape().len() - 2];
    if m * n == 0 {
        return Ok(());
    }
    for (at, c) in c.chunks_exact_mut(m * n).enumerate() {
        let (left, right) = (Matrix::of(a, at)?, Right::of(b, at)?);
        gemm(cx, precision, left, &right, [m, n, k], (c, accumulate))?;
    }
    Ok(())
}

/// The left operand `[M, K]` of several products, packed once: for each kind of right operand that it
/// meets.
#[derive(Debug)]
pub(crate) struct PackedLeft {
    pub(super) precision: Precision,
    pub(super) size: [usize; 2],
    pub(super) values: Option<Buffer>,
    pub(super) quantized: Option<quantized::Left>,
    pub(super) rounded: Option<Left>,
}

/// What a right operand is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeftKind {
    Values,
    Quantized,
    /// By the integers of blocks.
    Rounded,
}

impl LeftKind {
    pub(super) fn of_packed(weight: &Arc<dyn PackedWeight>, precision: Precision) -> Self {
        let is_blocks = || weight.as_any().is::<IntegerBlocks>();
        match precision {
            Precision::Int8 | Precision::Int4 => Self::Quantized,
            Precision::Blocks if is_blocks() => Self::Rounded,
            _ => Self::Values,
        }
    }

    pub(super) fn of_values(precision: Precision) -> Self {
        match precision.is_integer() {
            true => Self::Quantized,
            false => Self::Values,
        }
    }

    fn of(b: &Right<'_>, precision: Precision) -> Self {
        match b {
            Right::Blocks(..) if precision == Precision::Blocks => Self::Rounded,
            _ => Self::of_values(precision),
        }
    }
}

impl PackedLeft {
    /// `rights`: what it will be multiplied by.
    pub(crate) fn new<'b>(
        cx: Context<'_>,
        a: &Tensor,
        precision: Precision,
        rights: impl IntoIterator<Item = Rhs<'b>>,
    ) -> Result<Self> {
        let size = [a.shape()[0], a.shape()[1]];
        let kind = |right| match right {
            Rhs::Packed(weight) => LeftKind::of_packed(weight, precision),
            _ => LeftKind::of_values(precision),
        };
        let kinds: Vec<LeftKind> = rights.into_iter().map(kind).collect();
        Ok(Self::of(cx, Matrix::of(a, 0)?, size, precision, &kinds))
    }

    fn of(
        cx: Context<'_>,
        a: Matrix<'_>,
        size: [usize; 2],
        precision: Precision,
        kinds: &[LeftKind],
    ) -> Self {
        let is_asked = |kind| kinds.contains(&kind) && !size.contains(&0);
        let values = || {
            let kind = Kind::of(cx.level, precision);
            let operand = left_operand(kind, a, size);
            let mut panels = take(cx, kind, &operand.layout);
            pack_panels(cx, kind, &[operand], &mut [&mut panels]);
            panels
        };
        let quantized = || quantized::Left::new(cx, a, size);
        let rounded = || Left::new(cx, size, |row, out| a.copy_row(row, out));
        Self {
            precision,
            size,
            values: is_asked(LeftKind::Values).then(values),
            quantized: is_asked(LeftKind::Quantized).then(quantized),
            rounded: is_asked(LeftKind::Rounded).then(rounded),
        }
    }
}

/// `c = a b[:, columns]`; of a packed weight, `columns` starts at a multiple of 64.
pub(crate) fn matmul_columns(
    cx: Context<'_>,
    a: &PackedLeft,
    b: Rhs<'_>,
    columns: std::ops::Range<usize>,
    c: &mut [f32],
) -> Result<()> {
    let right = match Right::of(b, 0)? {
        Right::Packed(packed, _) => Right::Packed(packed, columns.start),
        Right::Quantized(packed, _) => Right::Quantized(packed, columns.start),
        Right::Blocks(packed, _) => Right::Blocks(packed, columns.start),
        Right::Matrix(matrix) => {
            let data = matrix.data.from(columns.start * matrix.column_stride);
            Right::Matrix(Matrix { data, ..matrix })
        }
    };
    gemm_packed(cx, a, &right, columns.len(), (c, false))
}

/// See [`crate::backend::Backend::matmul_each`].
pub(crate) fn matmul_each(
    cx: Context<'_>,
    a: &Tensor,
    weights: &[&Arc<dyn PackedWeight>],
    outputs: &mut [Tensor],
    precision: Precision,
) -> Result<()> {
    let rights = weights.iter().map(|weight| Rhs::Packed(weight));
    let left = PackedLeft::new(cx, a, precision, rights)?;
    for (weight, c) in weights.iter().zip(outputs) {
        let (b, columns) = (Rhs::Packed(weight), 0..weight.n());
        matmul_columns(cx, &left, b, columns, c.f32s_mut()?)?;
    }
    Ok(())
}

pub(super) enum Right<'a> {
    Matrix(Matrix<'a>),
    /// The columns of a packed weight from some column on.
    Packed(&'a CpuPacked, usize),
    /// The same of a weight of integers.
    Quantized(&'a QuantizedWeight, usize),
    /// The same of the blocks of a file.
    Blocks(&'a IntegerBlocks, usize),
}

impl<'a> Right<'a> {
    /// The matrix `[K, N]` at one index of the batch.
    fn of(b: Rhs<'a>, at: usize) -> Result<Self> {
        Ok(match b {
            Rhs::Matrix(b) => Self::Matrix(Matrix::of(b, at)?),
            Rhs::Weight(w) => Self::Matrix(Matrix::of(w, 0)?.transposed()),
            Rhs::Packed(w) => {
                let right = Self::packed(w, "matmul")?;
                if right.experts() > 1 {
                    let what = "the packed weight is that of several experts";
                    return Err(Error::InvalidArgument { op: "matmul", what });
                }
                right
            }
        })
    }

    /// A weight that this backend has packed.
    pub(super) fn packed(weight: &'a Arc<dyn PackedWeight>, op: &'static str) -> Result<Self> {
        let weight = weight.as_any();
        if let Some(quantized) = weight.downcast_ref() {
            return Ok(Self::Quantized(quantized, 0));
        }
        if let Some(blocks) = weight.downcast_ref() {
            return Ok(Self::Blocks(blocks, 0));
        }
        let what = "the packed weight belongs to another backend";
        let packed = weight.downcast_ref();
        Ok(Self::Packed(
            packed.ok_or(Error::InvalidArgument { op, what })?,
            0,
        ))
    }

    pub(super) fn experts(&self) -> usize {
        match self {
            Self::Matrix(_) => 1,
            Self::Packed(weight, _) => weight.experts,
            Self::Quantized(weight, _) => weight.experts,
            Self::Blocks(weight, _) => weight.experts,
        }
    }
}

/// `c (+)= a b`, `c: [m, n]`, over `k`.
pub(super) fn gemm(
    cx: Context<'_>,
    precision: Precision,
    a: Matrix<'_>,
    b: &Right<'_>,
    [m, n, k]: [usize; 3],
    (c, accumulate): (&mut [f32], bool),
) -> Result<()> {
    match b {
        Right::Matrix(b) if k > 0 && !precision.is_integer() => {
            let (kind, out) = (Kind::of(cx.level, precision), Output::sums(c, accumulate));
            multiply_matrices(cx, kind, [a, *b], [m, n, k], out);
            Ok(())
        }
        _ => {
            let kinds = [LeftKind::of(b, precision)];
            let a = PackedLeft::of(cx, a, [m, k], precision, &kinds);
            gemm_packed(cx, &a, b, n, (c, accumulate))
        }
    }
}

/// The product of `[m, k]` and `[k, n]`, which are packed in one job; `k` is not 0.
fn multiply_matrices(
    cx: Context<'_>,
    kind: Kind,
    [a, b]: [Matrix<'_>; 2],
    [m, n, k]: [usize; 3],
    out: Output<'_>,
) {
    let (a, b) = (
        left_operand(kind, a, [m, k]),
        right_operand(kind, b, [n, k]),
    );
    let (mut a_panels, mut b_panels) = (take(cx, kind, &a.layout), take(cx, kind, &b.layout));
    pack_panels(cx, kind, &[a, b], &mut [&mut a_panels, &mut b_panels]);
    let right = RightPanels {
        source: Source::Panels(&b_panels),
        layout: b.layout,
    };
    let (parts, left) = ([Part::of_all(m, 0)], (&a_panels, a.layout));
    multiply(cx, kind, left, &right, (&parts, n), out);
}

/// The product with a left operand that is packed already.
fn gemm_packed(
    cx: Context<'_>,
    a: &PackedLeft,
    b: &Right<'_>,
    n: usize,
    (c, accumulate): (&mut [f32], bool),
) -> Result<()> {
    let op = "matmul";
    let [m, k] = a.size;
    if m * n == 0 {
        return Ok(());
    }
    if k == 0 {
        if !accumulate {
            c.fill(0.0);
        }
        return Ok(());
    }
    let kind = Kind::of(cx.level, a.precision);
    let left = Layout::new(kind, m, kind.rows(), k);
    match (b, &a.values, &a.quantized, &a.rounded) {
        (&Right::Quantized(weight, start), _, Some(left), _) => {
            let parts = [Part::of_all(m, start / quantized::PANEL)];
            quantized::gemm(cx, left, weight, (&parts, n), c, accumulate);
        }
        (&Right::Blocks(weight, start), _, _, Some(left)) if weight.k == k => {
            let parts = [Part::of_all(m, start / integers::PANEL)];
            integers::gemm(cx, left, weight, (&parts, n), c, accumulate);
        }
        (Right::Matrix(_), _, Some(_), _) => {
            let what = "integers are only multiplied by packed weights";
            return Err(Error::InvalidArgument { op, what });
        }
        (&Right::Packed(packed, start), Some(values), _, _)
            if packed.kind == kind && packed.layout.k == k && start % kind.columns() == 0 =>
        {
            let parts = [Part::of_all(m, start / kind.columns())];
            let (right, out) = (RightPanels::of(packed), Output::sums(c, accumulate));
            multiply(cx, kind, (values, left), &right, (&parts, n), out);
        }
        (Right::Matrix(matrix), Some(values), _, _) => {
            let operand = right_operand(kind, *matrix, [n, k]);
            let mut panels = take(cx, kind, &operand.layout);
            pack_panels(cx, kind, &[operand], &mut [&mut panels]);
            let right = RightPanels {
                source: Source::Panels(&panels),
                layout: operand.layout,
            };
            let (parts, out) = ([Part::of_all(m, 0)], Output::sums(c, accumulate));
            multiply(cx, kind, (values, left), &right, (&parts, n), out);
        }
        _ => {
            let what = "the weight was packed for another precision or cpu level";
            return Err(Error::InvalidArgument { op, what });
        }
    }
    Ok(())
}

fn left_operand(kind: Kind, matrix: Matrix<'_>, [m, k]: [usize; 2]) -> Operand<'_> {
    Operand {
        matrix,
        side: Side::Left,
        layout: Layout::new(kind, m, kind.rows(), k),
    }
}

fn right_operand(kind: Kind, matrix: Matrix<'_>, [n, k]: [usize; 2]) -> Operand<'_> {
    Operand {
        matrix: matrix.transposed(),
        side: Side::Right,
        layout: Layout::new(kind, n, kind.columns(), k),
    }
}

fn take(cx: Context<'_>, kind: Kind, layout: &Layout) -> Buffer {
    cx.pool.take(layout.elements() * kind.element_bytes())
}

/// A right operand in panels.
pub(super) struct RightPanels<'a> {
    pub(super) source: Source<'a>,
    pub(super) layout: Layout,
}

impl<'a> RightPanels<'a> {
    pub(super) fn of(weight: &'a CpuPacked) -> Self {
        let source = match &weight.panels {
            Panels::Packed(panels) => Source::Packed(panels),
            Panels::Blocks(blocks) => Source::Blocks(blocks),
        };
        let layout = weight.layout;
        Self { source, layout }
    }
}

/// The product of panels, for each of its parts; `n` columns.
pub(super) fn multiply(
    cx: Context<'_>,
    kind: Kind,
    (a_panels, left): (&Buffer, Layout),
    right: &RightPanels<'_>,
    (parts, n): (&[Part], usize),
    c: Output<'_>,
) {
    // 256 left rows fit the second-level cache.
    let panel = [kind.rows(), kind.columns()];
    let chunks = [256 / panel[0], 512 / panel[1]];
    let grid = TaskGrid::new(cx.workers.threads(), parts, n, panel, chunks);
    cx.workers.for_each(grid.n_tasks(), |at| {
        let (part, a_range, b_range) = grid.task(at);
        let task = Task {
            kind,
            left,
            right: right.layout,
            part,
            a_range,
            b_range,
            n,
            c,
        };
        task.run(cx.level, a_panels, right.source);
    });
}
