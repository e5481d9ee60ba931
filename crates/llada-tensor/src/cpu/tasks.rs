//! Tasks of a matrix product: some left panels by some right panels, over all of k.

use std::cell::Cell;
use std::ops::Range;

use half::bf16;

use super::blocks::{Blocks, Wide, WidePanel};
use super::level::CpuLevel;
use super::panels::{Kind, Layout};
use super::simd::block::{Lhs, block};
#[cfg(target_arch = "x86_64")]
use super::simd::int8::Ahead;
#[cfg(target_arch = "x86_64")]
use super::simd::tiles::{self, Products};
use super::simd::{Kernel, Simd};
use super::workers::Shared;
use crate::storage::Buffer;

/// Rows of the left operand that are multiplied by the columns of one weight. A product is a list
/// of these: one if its right operand is one matrix, one for each expert of a mixture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// The left panel at which its rows start.
    pub(super) left_panel: usize,
    /// Rows.
    pub(super) m: usize,
    /// The right panel at which its columns start.
    pub(super) right_panel: usize,
    /// First row of the output.
    pub(super) first_row: usize,
}

impl Part {
    /// A whole left operand.
    pub(super) fn of_all(m: usize, right_panel: usize) -> Self {
        Self {
            left_panel: 0,
            m,
            right_panel,
            first_row: 0,
        }
    }
}

/// Cuts the output of a product into tasks of whole panels.
pub(super) struct TaskGrid<'a> {
    parts: &'a [Part],
    /// The first task of each part, and how the part is cut.
    cuts: Vec<(usize, Cut)>,
    n_tasks: usize,
}

impl<'a> TaskGrid<'a> {
    /// Cuts parts of `width` columns, with panels of `panel` rows and columns, into tasks of
    /// `chunks` left and right panels, smaller if that leaves too few for the threads.
    pub(super) fn new(
        threads: usize,
        parts: &'a [Part],
        width: usize,
        panel: [usize; 2],
        chunks: [usize; 2],
    ) -> Self {
        let all_rows: usize = parts.iter().map(|part| part.m).sum();
        let mut n_tasks = 0;
        let cut = |part: &Part| {
            let wanted = match threads {
                1 => 1,
                _ => (4 * threads * part.m).div_ceil(all_rows.max(1)),
            };
            let panels = [part.m.div_ceil(panel[0]), width.div_ceil(panel[1])];
            let cut = Cut::new(wanted, panels, chunks);
            let first = n_tasks;
            n_tasks += cut.n_tasks();
            (first, cut)
        };
        let cuts = parts.iter().map(cut).collect();
        Self {
            parts,
            cuts,
            n_tasks,
        }
    }

    pub(super) fn n_tasks(&self) -> usize {
        self.n_tasks
    }

    /// A part, and some left and right panels counted from its first ones.
    pub(super) fn task(&self, at: usize) -> (Part, Range<usize>, Range<usize>) {
        let i = self.cuts.partition_point(|&(first, _)| first <= at) - 1;
        let (first, cut) = &self.cuts[i];
        let (a_range, b_range) = cut.task(at - first);
        (self.parts[i], a_range, b_range)
    }
}

/// How a part is cut into tasks.
struct Cut {
    left: usize,
    right: usize,
    left_chunk: usize,
    right_chunk: usize,
}

impl Cut {
    fn new(
        wanted: usize,
        [left, right]: [usize; 2],
        [left_chunk, right_chunk]: [usize; 2],
    ) -> Self {
        let mut cut = Self {
            left,
            right,
            left_chunk: left_chunk.max(1),
            right_chunk: right_chunk.max(1),
        };
        while cut.n_tasks() < wanted {
            if cut.right_chunk > 2 {
                cut.right_chunk = cut.right_chunk.div_ceil(2);
            } else if cut.left_chunk > 2 {
                cut.left_chunk = cut.left_chunk.div_ceil(2);
            } else {
                break;
            }
        }
        cut
    }

    fn n_tasks(&self) -> usize {
        self.left.div_ceil(self.left_chunk) * self.right.div_ceil(self.right_chunk)
    }

    fn task(&self, at: usize) -> (Range<usize>, Range<usize>) {
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

/// One task: some left panels by some right panels, over all of k.
pub(super) struct Task<'a> {
    pub(super) kind: Kind,
    pub(super) left: Layout,
    pub(super) right: Layout,
    pub(super) part: Part,
    /// Left panels, counted from those of the part on.
    pub(super) a_range: Range<usize>,
    /// Right panels, likewise.
    pub(super) b_range: Range<usize>,
    /// Columns of the output.
    pub(super) n: usize,
    pub(super) c: Output<'a>,
}

/// Where a product goes, a matrix `[M, N]`.
#[derive(Clone, Copy)]
pub(super) enum Output<'a> {
    /// Rows without gaps, perhaps added to.
    Sums {
        c: Shared<'a, f32>,
        accumulate: bool,
    },
    /// Rounded sums of bf16 tiles, in rows at a stride.
    #[cfg(target_arch = "x86_64")]
    Rounded { c: Shared<'a, bf16>, stride: usize },
}

impl<'a> Output<'a> {
    pub(super) fn sums(c: &'a mut [f32], accumulate: bool) -> Self {
        let c = Shared::new(c);
        Self::Sums { c, accumulate }
    }
}

/// Where the panels of a right operand come from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// As they are multiplied.
    Panels(&'a Buffer),
    /// Those of a packed weight, see [`Kind::packed_bytes`].
    Packed(&'a Buffer),
    /// Blocks of a file.
    Blocks(&'a Blocks),
}

/// Room for a register block at the edge of the output.
const EDGE: usize = 32 * 32;

#[repr(align(64))]
struct Edge([f32; EDGE]);

impl Task<'_> {
    pub(super) fn run(self, level: CpuLevel, a: &Buffer, b: Source<'_>) {
        match self.kind {
            Kind::F32 { .. } => {
                let b = match b {
                    Source::Packed(b) if self.kind.packed_bytes() == 2 => {
                        F32Panels::Bf16(bytemuck::cast_slice(b.bytes()), Cell::default())
                    }
                    Source::Panels(b) | Source::Packed(b) => F32Panels::F32(b.f32s()),
                    Source::Blocks(b) => {
                        F32Panels::Blocks(WidePanel::new(b, self.kind, self.right))
                    }
                };
                let a = a.f32s();
                level.run(F32Task { a, b, task: self });
            }
            #[cfg(target_arch = "x86_64")]
            Kind::Tiles { amx } => {
                let a: &[u16] = bytemuck::cast_slice(a.bytes());
                let b = match b {
                    Source::Panels(b) | Source::Packed(b) => {
                        TilePanels::Tiles(bytemuck::cast_slice(b.bytes()))
                    }
                    Source::Blocks(b) => {
                        TilePanels::Blocks(WidePanel::new(b, self.kind, self.right))
                    }
                };
                // SAFETY: tiles are only made at levels with AVX512-BF16, and with AMX at
                // `CpuLevel::Amx`, which detection has allowed.
                #[expect(unsafe_code, reason = "AVX-512 and AMX")]
                let products = unsafe { Products::new(amx) };
                self.for_each_block(&TileBlock {
                    a,
                    b,
                    products,
                    left: self.left,
                    right: self.right,
                });
            }
        }
    }

    /// Runs every block of the task.
    #[inline(always)]
    fn for_each_block<B: BlockProduct>(&self, product: &B) {
        match self.c {
            Output::Sums { c, accumulate } => self.sum_blocks(product, c, accumulate),
            #[cfg(target_arch = "x86_64")]
            Output::Rounded { c, stride } => self.round_blocks(product, c, stride),
        }
    }

    /// Sums every block over all of k in a scratch, and rounds it.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn round_blocks<B: BlockProduct>(&self, product: &B, c: Shared<'_, bf16>, stride: usize) {
        let (height, width) = (self.left.width, self.right.width);
        assert!(width == tiles::WIDTH, "blocks of bf16 tiles");
        let Edge(sums) = &mut Edge([0.0; EDGE]);
        for j in self.b_range.clone() {
            for (place, i) in self.a_range.clone().enumerate() {
                let place = (place, self.a_range.len());
                let rows = (self.part.m - i * height).min(height);
                let columns = (self.n - j * width).min(width);
                for k_block in 0..self.left.n_blocks() {
                    let at = [k_block, self.part.left_panel + i, self.part.right_panel + j];
                    // SAFETY: the scratch has room for a block.
                    #[expect(unsafe_code, reason = "see above")]
                    unsafe {
                        product.run(at, rows, sums.as_mut_ptr(), width, k_block > 0, place);
                    }
                }
                let start = (self.part.first_row + i * height) * stride + j * width;
                let len = (rows - 1) * stride + columns;
                // SAFETY: blocks of different (i, j) share no element, and only this task has this
                // pair; the pointer reaches only elements of the block. Tiles are only made at levels
                // with AVX512-BF16.
                #[expect(unsafe_code, reason = "disjoint blocks of the output")]
                unsafe {
                    let c = c.block_ptr(start, len);
                    tiles::round_block(sums, [rows, columns], c, stride);
                }
            }
        }
    }

    /// Sums every block with room for a whole register block: at the edges the output is a scratch
    /// that is copied.
    #[inline(always)]
    fn sum_blocks<B: BlockProduct>(&self, product: &B, c: Shared<'_, f32>, accumulate: bool) {
        let (height, width) = (self.left.width, self.right.width);
        let Edge(edge) = &mut Edge([0.0; EDGE]);
        for k_block in 0..self.left.n_blocks() {
            let accumulate = accumulate || k_block > 0;
            for j in self.b_range.clone() {
                for (place, i) in self.a_range.clone().enumerate() {
                    let place = (place, self.a_range.len());
                    let rows = (self.part.m - i * height).min(height);
                    let columns = (self.n - j * width).min(width);
                    let start = (self.part.first_row + i * height) * self.n + j * width;
                    let at = [k_block, self.part.left_panel + i, self.part.right_panel + j];
                    if rows == height && columns == width {
                        let len = (height - 1) * self.n + width;
                        // SAFETY: blocks of different (i, j) share no element, and only this
                        // task has this pair; the pointer reaches only elements of the block.
                        #[expect(unsafe_code, reason = "disjoint blocks of the output")]
                        let c = unsafe { c.block_ptr(start, len) };
                        // SAFETY: the pointer has room for a block.
                        #[expect(unsafe_code, reason = "see above")]
                        unsafe {
                            product.run(at, rows, c, self.n, accumulate, place);
                        }
                        continue;
                    }
                    let part = |r: usize| {
                        // SAFETY: as above, for the part of one row.
                        #[expect(unsafe_code, reason = "disjoint blocks of the output")]
                        unsafe {
                            c.range(start + r * self.n, columns)
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
                        let c = edge.as_mut_ptr();
                        product.run(at, rows, c, width, accumulate, place);
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
    /// `c (+)= a b` for `[block of k, left panel, right panel]`; only the first `rows` rows count. It is
    /// the block at `place.0` of `place.1` with the same right panel.
    ///
    /// # Safety
    /// `c` has room for a whole register block at stride `ldc`.
    #[expect(unsafe_code, reason = "the output is a pointer")]
    unsafe fn run(
        &self,
        at: [usize; 3],
        rows: usize,
        c: *mut f32,
        ldc: usize,
        accumulate: bool,
        place: (usize, usize),
    );
}

/// Right panels: as they are multiplied, or blocks of a file.
#[cfg(target_arch = "x86_64")]
enum TilePanels<'a> {
    Tiles(&'a [u16]),
    Blocks(WidePanel<'a, u16>),
}

#[cfg(target_arch = "x86_64")]
struct TileBlock<'a> {
    a: &'a [u16],
    b: TilePanels<'a>,
    products: Products,
    left: Layout,
    right: Layout,
}

#[cfg(target_arch = "x86_64")]
impl BlockProduct for TileBlock<'_> {
    #[inline(always)]
    #[expect(unsafe_code, reason = "AMX tiles and dot products")]
    unsafe fn run(
        &self,
        at: [usize; 3],
        rows: usize,
        c: *mut f32,
        ldc: usize,
        accumulate: bool,
        place: (usize, usize),
    ) {
        let [k_block, i, j] = at;
        let a = &self.a[self.left.offset(k_block, i)..][..self.left.panel_elements(k_block)];
        // SAFETY: `c` by the caller's promise.
        let product = |b: &[u16], ahead: Ahead| unsafe {
            self.products.block(a, b, rows, c, ldc, (accumulate, ahead));
        };
        match &self.b {
            TilePanels::Tiles(b) => {
                let start = self.right.offset(k_block, j);
                let b = &b[start..][..self.right.panel_elements(k_block)];
                let next = Ahead {
                    data: b.as_ptr_range().end.cast(),
                    step_bytes: tiles::STEP_ELEMENTS * 2,
                };
                product(b, next.share(place, b.len() / tiles::STEP_ELEMENTS));
            }
            TilePanels::Blocks(b) => {
                let wide = b.take([k_block, j]);
                product(&wide.panel, Ahead::NONE);
                b.give_back(wide);
            }
        }
    }
}

/// Right panels: as they are multiplied, or as bf16, of which one panel is widened at a time.
enum F32Panels<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16], Cell<Widened32>),
    Blocks(WidePanel<'a, f32>),
}

/// The start of a panel, and its values in `f32`.
type Widened32 = (Option<usize>, Vec<f32>);

struct F32Block<'a, S> {
    s: S,
    a: &'a [f32],
    b: &'a F32Panels<'a>,
    left: Layout,
    right: Layout,
}

impl<S: Simd> BlockProduct for F32Block<'_, S> {
    #[inline(always)]
    #[expect(unsafe_code, reason = "the register block works on pointers")]
    unsafe fn run(
        &self,
        at: [usize; 3],
        rows: usize,
        c: *mut f32,
        ldc: usize,
        accumulate: bool,
        _: (usize, usize),
    ) {
        let [k_block, i, j] = at;
        let (height, width) = (self.left.width, self.right.width);
        let k = self.left.block_len(k_block);
        let a = &self.a[self.left.offset(k_block, i)..][..k * height];
        let a = Lhs {
            data: a.as_ptr(),
            row_stride: 1,
            k_stride: height,
        };
        let (start, len) = (self.right.offset(k_block, j), k * width);
        let (mut widened, mut wide) = (Widened32::default(), Wide::default());
        let b = match self.b {
            F32Panels::F32(b) => &b[start..][..len],
            F32Panels::Bf16(b, cell) => {
                widened = cell.take();
                if widened.0 != Some(start) {
                    widened.1.clear();
                    widened
                        .1
                        .extend(b[start..][..len].iter().map(|x| x.to_f32()));
                    widened.0 = Some(start);
                }
                &widened.1[..len]
            }
            F32Panels::Blocks(b) => {
                wide = b.take([k_block, j]);
                &wide.panel[..len]
            }
        };
        // SAFETY: panels are `k` rows of `height` and `width` values, as the slices show; `c` by
        // the caller's promise.
        unsafe {
            block(self.s, [rows, k], a, b.as_ptr(), width, c, ldc, accumulate);
        }
        match self.b {
            F32Panels::F32(_) => {}
            F32Panels::Bf16(_, cell) => cell.set(widened),
            F32Panels::Blocks(b) => b.give_back(wide),
        }
    }
}

struct F32Task<'a> {
    a: &'a [f32],
    b: F32Panels<'a>,
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
            b: &self.b,
            left,
            right,
        });
    }
}
