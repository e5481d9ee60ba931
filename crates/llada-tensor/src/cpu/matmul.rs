//! Matrix products on packed panels.
//!
//! Both operands are copied into panels: 12 rows (AVX-512) of the left one, 32 columns of the
//! right one, k running inside, in blocks of k that keep a right panel in the first-level cache.
//! Then tasks of some rows by some columns run the register block over all pairs of panels.
//! In [`Precision::Bf16`] the copies are rounded to bf16; with AMX they are bf16 tiles.
//! Each element of the output is one sum in a fixed order of k, so that results depend neither
//! on the number of threads nor on the other rows of the operand.

use std::any::Any;
use std::sync::Arc;

use half::bf16;

use super::level::CpuLevel;
#[cfg(target_arch = "x86_64")]
use super::simd::amx;
use super::simd::block::{Lhs, block};
use super::simd::{Kernel, Simd};
use super::workers::{Shared, Workers};
use crate::backend::{MatmulArgs, PackedWeight, Rhs};
use crate::storage::{Buffer, Pool};
use crate::{DType, Error, Precision, Result, Tensor};

/// A strided `f32` matrix.
#[derive(Debug, Clone, Copy)]
struct Matrix<'a> {
    data: &'a [f32],
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// The last two axes of a view, at index `at` of its flattened leading axes.
    fn of(x: &'a Tensor, at: usize) -> Self {
        let (shape, strides) = (x.shape(), x.strides());
        let rank = shape.len();
        let mut rest = at;
        let mut offset = 0;
        for axis in (0..rank - 2).rev() {
            offset += rest % shape[axis] * strides[axis];
            rest /= shape[axis];
        }
        let data = x.f32s_from_offset().get(offset..).unwrap_or(&[]);
        Self {
            data,
            row_stride: strides[rank - 2],
            column_stride: strides[rank - 1],
        }
    }

    fn transposed(self) -> Self {
        Self {
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// How panels look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `f32` values `[k][width]`, perhaps rounded to bf16.
    F32 {
        rows: usize,
        columns: usize,
        rounded: bool,
    },
    /// bf16 tiles.
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Kind {
    fn of(level: CpuLevel, precision: Precision) -> Self {
        #[cfg(target_arch = "x86_64")]
        if level == CpuLevel::Amx && precision == Precision::Bf16 {
            return Self::Amx;
        }
        let (rows, columns) = level.run(BlockShape);
        Self::F32 {
            rows,
            columns,
            rounded: precision == Precision::Bf16,
        }
    }

    fn rows(self) -> usize {
        match self {
            Self::F32 { rows, .. } => rows,
            #[cfg(target_arch = "x86_64")]
            Self::Amx => amx::WIDTH,
        }
    }

    fn columns(self) -> usize {
        match self {
            Self::F32 { columns, .. } => columns,
            #[cfg(target_arch = "x86_64")]
            Self::Amx => amx::WIDTH,
        }
    }

    /// k values are padded to a multiple of this.
    fn k_step(self) -> usize {
        match self {
            Self::F32 { .. } => 1,
            #[cfg(target_arch = "x86_64")]
            Self::Amx => amx::STEP,
        }
    }

    fn element_bytes(self) -> usize {
        match self {
            Self::F32 { .. } => 4,
            #[cfg(target_arch = "x86_64")]
            Self::Amx => 2,
        }
    }

    /// Largest block of k: a right panel takes 32 KiB.
    fn k_block(self) -> usize {
        match self {
            Self::F32 { .. } => 256,
            #[cfg(target_arch = "x86_64")]
            Self::Amx => 512,
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

/// Where the panels of one operand lie: blocks of k, then panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    /// Rows or columns of the operand.
    size: usize,
    width: usize,
    k: usize,
    k_block: usize,
    k_step: usize,
}

impl Layout {
    fn new(kind: Kind, size: usize, width: usize, k: usize) -> Self {
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

    fn n_panels(&self) -> usize {
        self.size.div_ceil(self.width)
    }

    fn n_blocks(&self) -> usize {
        self.k.div_ceil(self.k_block).max(1)
    }

    /// Values of k in a block, without padding.
    fn block_len(&self, at: usize) -> usize {
        (self.k - at * self.k_block).min(self.k_block)
    }

    fn panel_elements(&self, at: usize) -> usize {
        self.block_len(at)
            .next_multiple_of(self.k_step)
            .max(self.k_step)
            * self.width
    }

    fn offset(&self, k_block: usize, panel: usize) -> usize {
        k_block * self.k_block * self.width * self.n_panels() + panel * self.panel_elements(k_block)
    }

    fn elements(&self) -> usize {
        let last = self.n_blocks() - 1;
        self.offset(last, 0) + self.panel_elements(last) * self.n_panels()
    }
}

/// A weight in panels.
#[derive(Debug)]
struct CpuPacked {
    kind: Kind,
    layout: Layout,
    panels: Buffer,
}

impl PackedWeight for CpuPacked {
    fn n(&self) -> usize {
        self.layout.size
    }
    fn k(&self) -> usize {
        self.layout.k
    }
    fn bytes(&self) -> usize {
        self.panels.bytes().len()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What the products need of the backend.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) level: CpuLevel,
    pub(crate) workers: &'a Workers,
    pub(crate) pool: &'a Arc<Pool>,
}

/// See [`crate::backend::Backend::pack`].
pub(crate) fn pack(
    cx: Context<'_>,
    weight: &Tensor,
    precision: Precision,
) -> Result<Arc<dyn PackedWeight>> {
    let [n, k] = *weight.shape() else {
        let shape = weight.shape().to_vec();
        return Err(Error::Rank {
            op: "pack",
            expected: 2,
            shape,
        });
    };
    let widened = (weight.dtype() != DType::F32).then(|| weight.to_dtype(DType::F32));
    let matrix = Matrix::of(widened.as_ref().unwrap_or(weight), 0);
    let kind = Kind::of(cx.level, precision);
    let layout = Layout::new(kind, n, kind.columns(), k);
    let mut panels = cx.pool.take(layout.elements() * kind.element_bytes());
    pack_panels(
        cx,
        kind,
        &[Operand {
            matrix,
            side: Side::Right,
            layout,
        }],
        &mut [&mut panels],
    );
    Ok(Arc::new(CpuPacked {
        kind,
        layout,
        panels,
    }))
}

/// See [`crate::backend::Backend::matmul`].
#[expect(
    clippy::needless_pass_by_value,
    reason = "outputs come by mutable reference inside"
)]
pub(crate) fn matmul(cx: Context<'_>, args: MatmulArgs<'_>) -> Result<()> {
    matmul_into(
        cx,
        args.a,
        args.b,
        args.c.f32s_mut()?,
        args.accumulate,
        args.precision,
    )
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
    let b = Widened::of(b);
    for (at, c) in c.chunks_exact_mut(m * n).enumerate() {
        gemm(
            cx,
            precision,
            Matrix::of(a, at),
            &b.right(at)?,
            [m, n, k],
            c,
            accumulate,
        )?;
    }
    Ok(())
}

/// `c = a b[:, columns]` for one matrix `a`; of a packed weight, `columns` starts at a multiple
/// of 64.
pub(crate) fn matmul_columns(
    cx: Context<'_>,
    a: &Tensor,
    b: Rhs<'_>,
    columns: std::ops::Range<usize>,
    c: &mut [f32],
    precision: Precision,
) -> Result<()> {
    let (k, _) = b.k_n().unwrap_or_default();
    let (m, n) = (a.shape()[0], columns.len());
    if m * n == 0 {
        return Ok(());
    }
    let b = Widened::of(b);
    let right = match b.right(0)? {
        Right::Packed(packed, _) => Right::Packed(packed, columns.start),
        Right::Matrix(matrix) => {
            let data = &matrix.data[columns.start * matrix.column_stride..];
            Right::Matrix(Matrix { data, ..matrix })
        }
    };
    gemm(cx, precision, Matrix::of(a, 0), &right, [m, n, k], c, false)
}

/// A right operand, with a copy in `f32` if it is stored in another type.
struct Widened<'a> {
    b: Rhs<'a>,
    copy: Option<Tensor>,
}

impl<'a> Widened<'a> {
    fn of(b: Rhs<'a>) -> Self {
        let copy = match b {
            Rhs::Matrix(x) | Rhs::Weight(x) if x.dtype() != DType::F32 => {
                Some(x.to_dtype(DType::F32))
            }
            _ => None,
        };
        Self { b, copy }
    }

    /// The matrix `[K, N]` at one index of the batch.
    fn right(&self, at: usize) -> Result<Right<'_>> {
        Ok(match self.b {
            Rhs::Matrix(b) => Right::Matrix(Matrix::of(self.copy.as_ref().unwrap_or(b), at)),
            Rhs::Weight(w) => {
                Right::Matrix(Matrix::of(self.copy.as_ref().unwrap_or(w), 0).transposed())
            }
            Rhs::Packed(w) => {
                let packed = w.as_any().downcast_ref();
                let what = "the packed weight belongs to another backend";
                Right::Packed(
                    packed.ok_or(Error::InvalidArgument { op: "matmul", what })?,
                    0,
                )
            }
        })
    }
}

enum Right<'a> {
    Matrix(Matrix<'a>),
    /// The columns of a packed weight from some column on.
    Packed(&'a CpuPacked, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// An operand that waits to be packed. `matrix` rows are the panel index: for a right operand
/// they are its columns.
#[derive(Debug, Clone, Copy)]
struct Operand<'a> {
    matrix: Matrix<'a>,
    side: Side,
    layout: Layout,
}

fn gemm(
    cx: Context<'_>,
    precision: Precision,
    a: Matrix<'_>,
    b: &Right<'_>,
    [m, n, k]: [usize; 3],
    c: &mut [f32],
    accumulate: bool,
) -> Result<()> {
    if k == 0 {
        if !accumulate {
            c.fill(0.0);
        }
        return Ok(());
    }
    let kind = Kind::of(cx.level, precision);
    let left = Layout::new(kind, m, kind.rows(), k);
    let mut right = Layout::new(kind, n, kind.columns(), k);
    let mut first_panel = 0;
    let take = |layout: &Layout| cx.pool.take(layout.elements() * kind.element_bytes());
    let mut a_panels = take(&left);
    let a_operand = Operand {
        matrix: a,
        side: Side::Left,
        layout: left,
    };
    let mut own_panels = None;
    let b_panels = match *b {
        Right::Packed(packed, start)
            if packed.kind == kind && packed.layout.k == k && start % kind.columns() == 0 =>
        {
            right = packed.layout;
            first_panel = start / kind.columns();
            pack_panels(cx, kind, &[a_operand], &mut [&mut a_panels]);
            &packed.panels
        }
        Right::Packed(..) => {
            let what = "the weight was packed for another precision or cpu level";
            return Err(Error::InvalidArgument { op: "matmul", what });
        }
        Right::Matrix(matrix) => {
            let matrix = matrix.transposed();
            let b_operand = Operand {
                matrix,
                side: Side::Right,
                layout: right,
            };
            let b_panels = own_panels.insert(take(&right));
            pack_panels(
                cx,
                kind,
                &[a_operand, b_operand],
                &mut [&mut a_panels, b_panels],
            );
            &*b_panels
        }
    };
    let grid = TaskGrid::new(
        cx.workers.threads(),
        left.n_panels(),
        n.div_ceil(kind.columns()),
        kind,
    );
    let c = Shared::new(c);
    cx.workers.for_each(grid.n_tasks(), |at| {
        let (a_range, b_range) = grid.task(at);
        let task = Task {
            kind,
            left,
            right,
            a_range,
            b_range,
            first_panel,
            n,
            accumulate,
            c,
        };
        task.run(cx.level, &a_panels, b_panels);
    });
    Ok(())
}

/// Cuts the output into tasks of whole panels.
struct TaskGrid {
    left: usize,
    right: usize,
    left_chunk: usize,
    right_chunk: usize,
}

impl TaskGrid {
    /// About 256 rows (their left panels fit the second-level cache) by 512 columns, smaller if
    /// that leaves too few tasks for the threads.
    fn new(threads: usize, left: usize, right: usize, kind: Kind) -> Self {
        let mut grid = Self {
            left,
            right,
            left_chunk: (256 / kind.rows()).max(1),
            right_chunk: (512 / kind.columns()).max(1),
        };
        while threads > 1 && grid.n_tasks() < 4 * threads {
            if grid.right_chunk > 2 {
                grid.right_chunk = grid.right_chunk.div_ceil(2);
            } else if grid.left_chunk > 2 {
                grid.left_chunk = grid.left_chunk.div_ceil(2);
            } else {
                break;
            }
        }
        grid
    }

    fn n_tasks(&self) -> usize {
        self.left.div_ceil(self.left_chunk) * self.right.div_ceil(self.right_chunk)
    }

    fn task(&self, at: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let columns = self.right.div_ceil(self.right_chunk);
        let (i, j) = (
            at / columns * self.left_chunk,
            at % columns * self.right_chunk,
        );
        (
            i..(i + self.left_chunk).min(self.left),
            j..(j + self.right_chunk).min(self.right),
        )
    }
}

/// Packs operands, in tasks of a few panels.
fn pack_panels(cx: Context<'_>, kind: Kind, operands: &[Operand<'_>], out: &mut [&mut Buffer]) {
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

fn pack_panel(kind: Kind, operand: &Operand<'_>, k_block: usize, panel: usize, out: &mut [u8]) {
    let Operand { matrix, layout, .. } = operand;
    let (p0, k0) = (panel * layout.width, k_block * layout.k_block);
    let p = (layout.size - p0).min(layout.width);
    let k = layout.block_len(k_block);
    let data = &matrix.data[p0 * matrix.row_stride + k0 * matrix.column_stride..];
    match kind {
        Kind::F32 { rounded, .. } => {
            let out: &mut [f32] = bytemuck::cast_slice_mut(out);
            let source = Matrix { data, ..*matrix };
            pack_f32(source, [p, k], layout.width, out);
            if rounded {
                for x in out {
                    *x = bf16::from_f32(*x).to_f32();
                }
            }
        }
        #[cfg(target_arch = "x86_64")]
        Kind::Amx => {
            let source = amx::Source {
                data,
                panel: p,
                panel_stride: matrix.row_stride,
                k,
                k_stride: matrix.column_stride,
            };
            let side = match operand.side {
                Side::Left => amx::Side::Left,
                Side::Right => amx::Side::Right,
            };
            // SAFETY: this kind is only made at `CpuLevel::Amx`, which detection has allowed.
            #[expect(unsafe_code, reason = "AVX-512 packing")]
            unsafe {
                amx::pack_panel(source, side, bytemuck::cast_slice_mut(out));
            };
        }
    }
}

/// Copies `p` rows of `k` values into `[k][width]`, with zeros in the missing rows.
fn pack_f32(source: Matrix<'_>, [p, k]: [usize; 2], width: usize, out: &mut [f32]) {
    match width {
        32 => pack_f32_of::<32>(source, [p, k], out),
        16 => pack_f32_of::<16>(source, [p, k], out),
        12 => pack_f32_of::<12>(source, [p, k], out),
        6 => pack_f32_of::<6>(source, [p, k], out),
        _ => pack_f32_of::<4>(source, [p, k], out),
    }
}

fn pack_f32_of<const W: usize>(source: Matrix<'_>, [p, k]: [usize; 2], out: &mut [f32]) {
    /// Values of k whose lines of the panel stay in the first-level cache.
    const K_RUN: usize = 16;
    let (row, column) = (source.row_stride, source.column_stride);
    let (out, _) = out.as_chunks_mut::<W>();
    if p < W {
        out.fill([0.0; W]);
    }
    if row == 1 {
        for (at, out) in out.iter_mut().enumerate().take(k) {
            let values = &source.data[at * column..][..p];
            match values.first_chunk::<W>() {
                Some(values) => *out = *values,
                None => out[..p].copy_from_slice(values),
            }
        }
        return;
    }
    for (run, out) in out[..k].chunks_mut(K_RUN).enumerate() {
        for i in 0..p {
            let values = &source.data[i * row + run * K_RUN * column..];
            for (at, out) in out.iter_mut().enumerate() {
                out[i] = values[at * column];
            }
        }
    }
}

/// One task: some left panels by some right panels, over all of k.
struct Task<'a> {
    kind: Kind,
    left: Layout,
    right: Layout,
    a_range: std::ops::Range<usize>,
    /// Right panels, counted from `first_panel` on.
    b_range: std::ops::Range<usize>,
    first_panel: usize,
    /// Columns of the output.
    n: usize,
    accumulate: bool,
    c: Shared<'a, f32>,
}

/// Room for a register block at the edge of the output.
const EDGE: usize = 32 * 32;

impl Task<'_> {
    fn run(self, level: CpuLevel, a: &Buffer, b: &Buffer) {
        match self.kind {
            Kind::F32 { .. } => {
                level.run(F32Task {
                    a: a.f32s(),
                    b: b.f32s(),
                    task: self,
                });
            }
            #[cfg(target_arch = "x86_64")]
            Kind::Amx => {
                let (a, b): (&[u16], &[u16]) = (
                    bytemuck::cast_slice(a.bytes()),
                    bytemuck::cast_slice(b.bytes()),
                );
                // SAFETY: this kind is only made at `CpuLevel::Amx`, which detection has allowed.
                #[expect(unsafe_code, reason = "AMX tiles")]
                let tiles = unsafe { amx::Tiles::configure() };
                self.for_each_block(&AmxBlock {
                    a,
                    b,
                    tiles,
                    left: self.left,
                    right: self.right,
                });
            }
        }
    }

    /// Runs every block of the task, with room for a whole register block: at the edges the
    /// output is a scratch that is copied.
    #[inline(always)]
    fn for_each_block<B: BlockProduct>(&self, product: &B) {
        let (height, width) = (self.left.width, self.right.width);
        let mut edge = [0.0; EDGE];
        for k_block in 0..self.left.n_blocks() {
            let accumulate = self.accumulate || k_block > 0;
            for j in self.b_range.clone() {
                for i in self.a_range.clone() {
                    let rows = (self.left.size - i * height).min(height);
                    let columns = (self.n - j * width).min(width);
                    let start = i * height * self.n + j * width;
                    let panel = self.first_panel + j;
                    if rows == height && columns == width {
                        let len = (height - 1) * self.n + width;
                        // SAFETY: blocks of different (i, j) share no element, and only this
                        // task has this pair; the pointer reaches only elements of the block.
                        #[expect(unsafe_code, reason = "disjoint blocks of the output")]
                        let c = unsafe { self.c.block_ptr(start, len) };
                        // SAFETY: the pointer has room for a block.
                        #[expect(unsafe_code, reason = "see above")]
                        unsafe {
                            product.run([k_block, i, panel], c, self.n, accumulate);
                        }
                        continue;
                    }
                    let part = |r: usize| {
                        // SAFETY: as above, for the part of one row.
                        #[expect(unsafe_code, reason = "disjoint blocks of the output")]
                        unsafe {
                            self.c.range(start + r * self.n, columns)
                        }
                    };
                    if accumulate {
                        for (r, values) in edge.chunks_exact_mut(width).enumerate().take(rows) {
                            values[..columns].copy_from_slice(part(r));
                        }
                    }
                    // SAFETY: the scratch has room for a block.
                    #[expect(unsafe_code, reason = "see above")]
                    unsafe {
                        product.run([k_block, i, panel], edge.as_mut_ptr(), width, accumulate);
                    }
                    for (r, values) in edge.chunks_exact(width).enumerate().take(rows) {
                        part(r).copy_from_slice(&values[..columns]);
                    }
                }
            }
        }
    }
}

/// The product of one left panel and one right panel over one block of k.
trait BlockProduct {
    /// `c (+)= a b` for `[block of k, left panel, right panel]`.
    ///
    /// # Safety
    /// `c` has room for a whole register block at stride `ldc`.
    #[expect(unsafe_code, reason = "the output is a pointer")]
    unsafe fn run(&self, at: [usize; 3], c: *mut f32, ldc: usize, accumulate: bool);
}

#[cfg(target_arch = "x86_64")]
struct AmxBlock<'a> {
    a: &'a [u16],
    b: &'a [u16],
    tiles: amx::Tiles,
    left: Layout,
    right: Layout,
}

#[cfg(target_arch = "x86_64")]
impl BlockProduct for AmxBlock<'_> {
    #[inline(always)]
    #[expect(unsafe_code, reason = "AMX tiles")]
    unsafe fn run(&self, [k_block, i, j]: [usize; 3], c: *mut f32, ldc: usize, accumulate: bool) {
        let a = &self.a[self.left.offset(k_block, i)..][..self.left.panel_elements(k_block)];
        let b = &self.b[self.right.offset(k_block, j)..][..self.right.panel_elements(k_block)];
        let steps = a.len() / amx::STEP_ELEMENTS;
        // SAFETY: both panels have `steps` steps, as the slices show; `c` by the caller's promise.
        unsafe {
            self.tiles
                .block(a.as_ptr(), b.as_ptr(), steps, c, ldc, accumulate);
        }
    }
}

struct F32Block<'a, S> {
    s: S,
    a: &'a [f32],
    b: &'a [f32],
    left: Layout,
    right: Layout,
}

impl<S: Simd> BlockProduct for F32Block<'_, S> {
    #[inline(always)]
    #[expect(unsafe_code, reason = "the register block works on pointers")]
    unsafe fn run(&self, [k_block, i, j]: [usize; 3], c: *mut f32, ldc: usize, accumulate: bool) {
        let (height, width) = (self.left.width, self.right.width);
        let k = self.left.block_len(k_block);
        let a = &self.a[self.left.offset(k_block, i)..][..k * height];
        let b = &self.b[self.right.offset(k_block, j)..][..k * width];
        let a = Lhs {
            data: a.as_ptr(),
            row_stride: 1,
            k_stride: height,
        };
        // SAFETY: panels are `k` rows of `height` and `width` values, as the slices show; `c` by
        // the caller's promise.
        unsafe {
            block(self.s, a, b.as_ptr(), width, k, c, ldc, accumulate);
        }
    }
}

struct F32Task<'a> {
    a: &'a [f32],
    b: &'a [f32],
    task: Task<'a>,
}

impl Kernel for F32Task<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Task { left, right, .. } = self.task;
        self.task.for_each_block(&F32Block {
            s,
            a: self.a,
            b: self.b,
            left,
            right,
        });
    }
}
