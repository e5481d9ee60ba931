//! Panels: the layout in which the operands of a product are copied.
//!
//! Blocks of k, then panels of rows (left operand) or columns (right operand), k running inside.

use std::ops::Range;

use half::bf16;

use super::blocks::Blocks;
use super::context::Context;
use super::level::CpuLevel;
#[cfg(target_arch = "x86_64")]
use super::simd::tiles;
use super::simd::{Kernel, Simd};
use super::workers::Shared;
use crate::backend::FillRows;
use crate::storage::Buffer;
use crate::{DType, Precision, Result, Tensor};

/// The elements of a matrix.
#[derive(Debug, Clone, Copy)]
pub(super) enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

impl<'a> Values<'a> {
    /// Those from `start` on.
    pub(super) fn from(self, start: usize) -> Self {
        match self {
            Self::F32(x) => Self::F32(&x[start..]),
            Self::Bf16(x) => Self::Bf16(&x[start..]),
        }
    }

    /// Those of a view, from its first one to the end of the storage.
    pub(super) fn of(x: &'a Tensor) -> Result<Self> {
        Ok(match x.dtype() {
            DType::F32 => Self::F32(x.f32s_from_offset()?),
            DType::Bf16 => Self::Bf16(x.bf16s_from_offset()?),
        })
    }

    fn len(self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::Bf16(x) => x.len(),
        }
    }
}

/// A strided matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) data: Values<'a>,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// The last two axes of a view, at index `at` of its flattened leading axes.
    pub(super) fn of(x: &'a Tensor, at: usize) -> Result<Self> {
        let (shape, strides) = (x.shape(), x.strides());
        let rank = shape.len();
        let mut rest = at;
        let mut offset = 0;
        for axis in (0..rank - 2).rev() {
            offset += rest % shape[axis] * strides[axis];
            rest /= shape[axis];
        }
        let data = Values::of(x)?;
        Ok(Self {
            data: data.from(offset.min(data.len())),
            row_stride: strides[rank - 2],
            column_stride: strides[rank - 1],
        })
    }

    /// Row `at`, as many values as `out` has.
    pub(super) fn copy_row(&self, at: usize, out: &mut [f32]) {
        let stride = self.column_stride;
        match (self.data.from(at * self.row_stride), stride) {
            (Values::F32(data), 1) => out.copy_from_slice(&data[..out.len()]),
            (Values::F32(data), _) => {
                for (at, x) in out.iter_mut().enumerate() {
                    *x = data[at * stride];
                }
            }
            (Values::Bf16(data), _) => {
                for (at, x) in out.iter_mut().enumerate() {
                    *x = data[at * stride].to_f32();
                }
            }
        }
    }

    pub(super) fn transposed(self) -> Self {
        Self {
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// How panels look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `f32` values `[k][width]`, perhaps rounded to bf16.
    F32 {
        rows: usize,
        columns: usize,
        rounded: bool,
    },
    /// bf16 tiles, multiplied by AMX or by the dot product of pairs.
    #[cfg(target_arch = "x86_64")]
    Tiles { amx: bool },
}

impl Kind {
    /// Of products without integers: with those, other operands are bf16.
    pub(super) fn of(level: CpuLevel, precision: Precision) -> Self {
        #[cfg(target_arch = "x86_64")]
        if matches!(level, CpuLevel::Amx | CpuLevel::Avx512Bf16) && precision != Precision::F32 {
            return Self::Tiles {
                amx: level == CpuLevel::Amx,
            };
        }
        let (rows, columns) = level.run(BlockShape);
        Self::F32 {
            rows,
            columns,
            rounded: precision != Precision::F32,
        }
    }

    /// Whether the machine multiplies bf16 itself.
    pub(super) fn is_tiles(self) -> bool {
        !matches!(self, Self::F32 { .. })
    }

    pub(super) fn rows(self) -> usize {
        match self {
            Self::F32 { rows, .. } => rows,
            #[cfg(target_arch = "x86_64")]
            Self::Tiles { .. } => tiles::WIDTH,
        }
    }

    pub(super) fn columns(self) -> usize {
        match self {
            Self::F32 { columns, .. } => columns,
            #[cfg(target_arch = "x86_64")]
            Self::Tiles { .. } => tiles::WIDTH,
        }
    }

    /// k values are padded to a multiple of this.
    pub(super) fn k_step(self) -> usize {
        match self {
            Self::F32 { .. } => 1,
            #[cfg(target_arch = "x86_64")]
            Self::Tiles { .. } => tiles::STEP,
        }
    }

    pub(super) fn element_bytes(self) -> usize {
        match self {
            Self::F32 { .. } => 4,
            #[cfg(target_arch = "x86_64")]
            Self::Tiles { .. } => 2,
        }
    }

    /// Bytes of an element of a packed weight: `f32` values that were rounded to bf16 are stored as
    /// such.
    pub(super) fn packed_bytes(self) -> usize {
        match self {
            Self::F32 { rounded: false, .. } => 4,
            _ => 2,
        }
    }

    /// Largest block of k: a right panel takes 32 KiB, or 128 KiB where products are so fast that to
    /// add to the output again takes longer than to read the panel from the second-level cache.
    pub(super) fn k_block(self) -> usize {
        match self {
            Self::F32 { .. } => 256,
            #[cfg(target_arch = "x86_64")]
            Self::Tiles { amx: false } => 512,
            #[cfg(target_arch = "x86_64")]
            Self::Tiles { amx: true } => 2048,
        }
    }
}

struct BlockShape;

impl Kernel for BlockShape {
    type Output = (usize, usize);
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> (usize, usize) {
        (S::BLOCK_ROWS, S::BLOCK_VECS * S::LANES)
    }
}

/// A packed weight.
#[derive(Debug)]
pub(super) enum Panels {
    /// See [`Kind::packed_bytes`].
    Packed(Buffer),
    Blocks(Blocks),
}

/// Where the panels of one operand lie: blocks of k, then panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Rows or columns of the operand.
    pub(super) size: usize,
    pub(super) width: usize,
    pub(super) k: usize,
    pub(super) k_block: usize,
    pub(super) k_step: usize,
}

impl Layout {
    pub(super) fn new(kind: Kind, size: usize, width: usize, k: usize) -> Self {
        let n_blocks = k.div_ceil(kind.k_block()).max(1);
        let k_step = kind.k_step();
        let k_block = k.div_ceil(n_blocks).next_multiple_of(k_step).max(k_step);
        Self {
            size,
            width,
            k,
            k_block,
            k_step,
        }
    }

    pub(super) fn n_panels(&self) -> usize {
        self.size.div_ceil(self.width)
    }

    pub(super) fn n_blocks(&self) -> usize {
        self.k.div_ceil(self.k_block).max(1)
    }

    /// Values of k in a block, without padding.
    pub(super) fn block_len(&self, at: usize) -> usize {
        (self.k - at * self.k_block).min(self.k_block)
    }

    pub(super) fn panel_elements(&self, at: usize) -> usize {
        self.block_len(at)
            .next_multiple_of(self.k_step)
            .max(self.k_step)
            * self.width
    }

    pub(super) fn offset(&self, k_block: usize, panel: usize) -> usize {
        k_block * self.k_block * self.width * self.n_panels() + panel * self.panel_elements(k_block)
    }

    pub(super) fn elements(&self) -> usize {
        let last = self.n_blocks() - 1;
        self.offset(last, 0) + self.panel_elements(last) * self.n_panels()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// An operand that waits to be packed. `matrix` rows are the panel index: for a right operand
/// they are its columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operand<'a> {
    pub(super) matrix: Matrix<'a>,
    pub(super) side: Side,
    pub(super) layout: Layout,
}

/// Packs operands, in tasks of a few panels.
pub(super) fn pack_panels(
    cx: Context<'_>,
    kind: Kind,
    operands: &[Operand<'_>],
    out: &mut [&mut Buffer],
) {
    const PANELS_PER_TASK: usize = 4;
    let tasks: Vec<(usize, usize)> = operands
        .iter()
        .enumerate()
        .flat_map(|(i, x)| {
            (0..x.layout.n_panels())
                .step_by(PANELS_PER_TASK)
                .map(move |p| (i, p))
        })
        .collect();
    let out: Vec<Shared<'_, u8>> = out.iter_mut().map(|b| Shared::new(b.bytes_mut())).collect();
    cx.workers.for_each(tasks.len(), |task| {
        let (i, first) = tasks[task];
        let layout = operands[i].layout;
        for panel in first..(first + PANELS_PER_TASK).min(layout.n_panels()) {
            for k_block in 0..layout.n_blocks() {
                let start = layout.offset(k_block, panel) * kind.element_bytes();
                let len = layout.panel_elements(k_block) * kind.element_bytes();
                // SAFETY: the ranges of different panels and blocks of k do not overlap.
                #[expect(unsafe_code, reason = "panels are written in parallel")]
                let bytes = unsafe { out[i].range(start, len) };
                pack_panel(kind, &operands[i], k_block, panel, bytes);
            }
        }
    });
}

/// The rows of each panel, where each of several matrices of the given rows begins a panel.
pub(super) fn panel_rows(
    width: usize,
    sizes: impl IntoIterator<Item = usize>,
) -> Vec<Range<usize>> {
    let mut first = 0;
    let mut panels = Vec::new();
    for size in sizes {
        let end = first + size;
        panels.extend(
            (first..end)
                .step_by(width)
                .map(|at| at..(at + width).min(end)),
        );
        first = end;
    }
    panels
}

/// Packs rows that need not be in memory together, a panel at a time; `layout` has whole panels. A
/// right operand is a weight that is kept, see [`Kind::packed_bytes`].
pub(super) fn pack_rows(
    cx: Context<'_>,
    kind: Kind,
    side: Side,
    (layout, panels): (Layout, &[Range<usize>]),
    fill: FillRows<'_>,
    out: &mut Buffer,
) {
    let bytes = match side {
        Side::Left => kind.element_bytes(),
        Side::Right => kind.packed_bytes(),
    };
    let out = Shared::new(out.bytes_mut());
    cx.workers.for_each(panels.len(), |panel| {
        let rows = panels[panel].clone();
        // Recycled: fresh memory would be cleared for every panel.
        let mut values = cx.pool.take(rows.len() * layout.k * 4);
        fill(rows.clone(), values.f32s_mut());
        let operand = Operand {
            matrix: Matrix {
                data: Values::F32(values.f32s()),
                row_stride: layout.k,
                column_stride: 1,
            },
            side,
            layout: Layout {
                size: rows.len(),
                ..layout
            },
        };
        for k_block in 0..layout.n_blocks() {
            let elements = layout.panel_elements(k_block);
            let start = layout.offset(k_block, panel);
            // SAFETY: the ranges of different panels and blocks of k do not overlap.
            #[expect(unsafe_code, reason = "panels are written in parallel")]
            let out = unsafe { out.range(start * bytes, elements * bytes) };
            if kind.element_bytes() == bytes {
                pack_panel(kind, &operand, k_block, 0, out);
            } else {
                let mut wide = vec![0_f32; elements];
                let wide_bytes = bytemuck::cast_slice_mut(&mut wide);
                pack_panel(kind, &operand, k_block, 0, wide_bytes);
                let out: &mut [bf16] = bytemuck::cast_slice_mut(out);
                for (out, x) in out.iter_mut().zip(wide) {
                    *out = bf16::from_f32(x);
                }
            }
        }
    });
}

/// Packs right operands `[K, N]` one after another, each of which begins a panel.
pub(super) fn pack_matrices(
    cx: Context<'_>,
    kind: Kind,
    matrices: &[Matrix<'_>],
    [n, k]: [usize; 2],
) -> (Buffer, Layout) {
    let each = Layout::new(kind, n, kind.columns(), k);
    let n_panels = matrices.len() * each.n_panels();
    let all = Layout {
        size: n_panels * each.width,
        ..each
    };
    let bytes = kind.element_bytes();
    let mut panels = cx.pool.take(all.elements() * bytes);
    let out = Shared::new(panels.bytes_mut());
    cx.workers.for_each(n_panels, |panel| {
        let operand = Operand {
            matrix: matrices[panel / each.n_panels()].transposed(),
            side: Side::Right,
            layout: each,
        };
        for k_block in 0..all.n_blocks() {
            let (start, len) = (all.offset(k_block, panel), all.panel_elements(k_block));
            // SAFETY: the ranges of different panels and blocks of k do not overlap.
            #[expect(unsafe_code, reason = "panels are written in parallel")]
            let out = unsafe { out.range(start * bytes, len * bytes) };
            pack_panel(kind, &operand, k_block, panel % each.n_panels(), out);
        }
    });
    (panels, all)
}

pub(super) fn pack_panel(
    kind: Kind,
    operand: &Operand<'_>,
    k_block: usize,
    panel: usize,
    out: &mut [u8],
) {
    let Operand { matrix, layout, .. } = operand;
    let (p0, k0) = (panel * layout.width, k_block * layout.k_block);
    let p = (layout.size - p0).min(layout.width);
    let k = layout.block_len(k_block);
    let data = matrix
        .data
        .from(p0 * matrix.row_stride + k0 * matrix.column_stride);
    match kind {
        Kind::F32 { rounded, .. } => {
            let out: &mut [f32] = bytemuck::cast_slice_mut(out);
            let strides = [matrix.row_stride, matrix.column_stride];
            match data {
                Values::F32(data) => pack_f32((data, strides), [p, k], layout.width, out),
                Values::Bf16(_) => {
                    let source = Matrix { data, ..*matrix };
                    let mut wide = vec![0.0; p * k];
                    for (row, wide) in wide.chunks_exact_mut(k.max(1)).enumerate() {
                        source.copy_row(row, wide);
                    }
                    pack_f32((&wide, [k, 1]), [p, k], layout.width, out);
                }
            }
            if rounded {
                for x in out {
                    *x = bf16::from_f32(*x).to_f32();
                }
            }
        }
        #[cfg(target_arch = "x86_64")]
        Kind::Tiles { .. } => {
            let out = bytemuck::cast_slice_mut(out);
            match data {
                Values::F32(data) => pack_tiles(data, matrix, [p, k], operand.side, out),
                Values::Bf16(data) => pack_tiles(data, matrix, [p, k], operand.side, out),
            }
        }
    }
}

/// Packs `p` rows of `k` values, which begin at `data` and lie as those of `matrix`.
#[cfg(target_arch = "x86_64")]
fn pack_tiles<T: tiles::Packable>(
    data: &[T],
    matrix: &Matrix<'_>,
    [p, k]: [usize; 2],
    side: Side,
    out: &mut [u16],
) {
    let source = tiles::Source {
        data,
        panel: p,
        panel_stride: matrix.row_stride,
        k,
        k_stride: matrix.column_stride,
    };
    let side = match side {
        Side::Left => tiles::Side::Left,
        Side::Right => tiles::Side::Right,
    };
    // SAFETY: tiles are only made at levels with AVX512-BF16, which detection has allowed.
    #[expect(unsafe_code, reason = "AVX-512 packing")]
    unsafe {
        tiles::pack_panel(source, side, out);
    };
}

/// `f32` values, and the strides of rows and columns.
pub(super) type F32Rows<'a> = (&'a [f32], [usize; 2]);

/// Copies `p` rows of `k` values into `[k][width]`, with zeros in the missing rows.
pub(super) fn pack_f32(source: F32Rows<'_>, [p, k]: [usize; 2], width: usize, out: &mut [f32]) {
    match width {
        32 => pack_f32_of::<32>(source, [p, k], out),
        16 => pack_f32_of::<16>(source, [p, k], out),
        12 => pack_f32_of::<12>(source, [p, k], out),
        6 => pack_f32_of::<6>(source, [p, k], out),
        4 => pack_f32_of::<4>(source, [p, k], out),
        _ => panic!("no code packs panels of {width} values: add the width to `pack_f32`"),
    }
}

fn pack_f32_of<const W: usize>(
    (data, [row, column]): F32Rows<'_>,
    [p, k]: [usize; 2],
    out: &mut [f32],
) {
    /// Values of k whose lines of the panel stay in the first-level cache.
    const K_RUN: usize = 16;
    let (out, _) = out.as_chunks_mut::<W>();
    if p < W {
        out.fill([0.0; W]);
    }
    if row == 1 {
        for (at, out) in out.iter_mut().enumerate().take(k) {
            let values = &data[at * column..][..p];
            match values.first_chunk::<W>() {
                Some(values) => *out = *values,
                None => out[..p].copy_from_slice(values),
            }
        }
        return;
    }
    for (run, out) in out[..k].chunks_mut(K_RUN).enumerate() {
        let values_of = |i: usize| &data[i * row + run * K_RUN * column..];
        let n_fours = match column {
            1 => p / 4 * 4,
            _ => 0,
        };
        for i in (0..n_fours).step_by(4) {
            let rows = [0, 1, 2, 3].map(|at| values_of(i + at));
            for (at, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let square = transposed(rows.map(|row| four(&row[4 * at..])));
                for (out, square) in out.iter_mut().zip(square) {
                    out[i..i + 4].copy_from_slice(&square);
                }
            }
            for at in out.len() / 4 * 4..out.len() {
                for (row, out) in rows.iter().zip(&mut out[at][i..]) {
                    *out = row[at];
                }
            }
        }
        for i in n_fours..p {
            let values = values_of(i);
            for (at, out) in out.iter_mut().enumerate() {
                out[i] = values[at * column];
            }
        }
    }
}

fn four(values: &[f32]) -> [f32; 4] {
    *values.first_chunk().expect("four values")
}

/// Rows as columns: six times as fast as copying value by value.
#[inline(always)]
fn transposed(rows: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_movehl_ps, _mm_movelh_ps, _mm_unpackhi_ps, _mm_unpacklo_ps};
        let [a, b, c, d] = rows.map(bytemuck::cast);
        // SAFETY: every x86-64 processor has SSE.
        #[expect(unsafe_code, reason = "instructions that are always there")]
        let columns = unsafe {
            let (low, high) = (_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
            let (other_low, other_high) = (_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
            [
                _mm_movelh_ps(low, other_low),
                _mm_movehl_ps(other_low, low),
                _mm_movelh_ps(high, other_high),
                _mm_movehl_ps(other_high, high),
            ]
        };
        columns.map(bytemuck::cast)
    }
    #[cfg(not(target_arch = "x86_64"))]
    [0, 1, 2, 3].map(|at| rows.map(|row| row[at]))
}
