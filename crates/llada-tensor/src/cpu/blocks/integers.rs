//! Products with the integers of the blocks of a file, see [`crate::backend::BlockIntegers`].
//!
//! A weight stays as the file has it; the codes and scales of 32 rows over a block of k are read when
//! they are multiplied, once for all rows of the other operand, each of which is rounded to 8 bits
//! with a scale for each 32 values. Sums are exact inside a group of k, and the results are the same at
//! every level, for any number of threads, and for any other rows.

use std::ops::Range;

use super::Blocks;
use super::left::Left;
use crate::backend::{BlockFormat, BlockIntegers, Codes, GroupCodes, PackedWeight};
use crate::cpu::context::Context;
use crate::cpu::simd::int8::blocks::{BlockKernel, BlockProducts, LEFT_GROUP, Operands, lay_out};
use crate::cpu::simd::int8::{BLOCK, WIDTH};
use crate::cpu::simd::prefetch;
use crate::cpu::tasks::{Part, TaskGrid};
use crate::cpu::workers::Shared;
use crate::storage::{Buffer, Scratch};

/// Columns of a panel of the weight, rows that are multiplied at once.
pub(in crate::cpu) const PANEL: usize = WIDTH;
/// Values of k whose codes are read at once: 16 KiB, half of a first-level cache.
const K_BLOCK: usize = 512;
/// Groups of 32 rows of a task.
const LEFT_PANELS: usize = 8;
/// The smallest group of a weight.
pub(super) const SMALLEST_GROUP: usize = 16;

/// Whether integers are of blocks that can be read here.
pub(super) fn are_read(format: &BlockFormat, integers: &BlockIntegers) -> bool {
    let is_whole = K_BLOCK.is_multiple_of(format.length) && format.length >= LEFT_GROUP;
    is_whole && matches!(integers.group, SMALLEST_GROUP | LEFT_GROUP)
}

/// A weight in the blocks of a file, or the weights of several experts.
#[derive(Debug)]
pub(in crate::cpu) struct IntegerBlocks {
    pub(in crate::cpu) experts: usize,
    pub(in crate::cpu) k: usize,
    pub(super) blocks: Blocks,
    pub(super) integers: BlockIntegers,
}

impl PackedWeight for IntegerBlocks {
    fn n(&self) -> usize {
        self.experts * self.blocks.n
    }
    fn k(&self) -> usize {
        self.k
    }
    fn bytes(&self) -> usize {
        self.blocks.bytes()
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// `c (+)= a wᵀ` for each part of the product; `n` columns. Row `i` of the output is that of row `i` of
/// the left operand.
pub(in crate::cpu) fn gemm(
    cx: Context<'_>,
    left: &Left,
    weight: &IntegerBlocks,
    (parts, n): (&[Part], usize),
    c: &mut [f32],
    accumulate: bool,
) {
    let chunks = [LEFT_PANELS, 512 / PANEL];
    let grid = TaskGrid::new(cx.workers.threads(), parts, n, [PANEL; 2], chunks);
    let kernel = BlockKernel::of(cx.level);
    let c = Shared::new(c);
    cx.workers.for_each(grid.n_tasks(), |at| {
        let (part, a_range, b_range) = grid.task(at);
        let task = Task {
            cx,
            kernel,
            left,
            weight,
            part,
            a_range,
            b_range,
            n,
            accumulate,
            c,
        };
        task.run();
    });
}

/// One task: some groups of 32 rows by some panels of the weight, over all of k.
struct Task<'a> {
    cx: Context<'a>,
    kernel: BlockKernel,
    left: &'a Left,
    weight: &'a IntegerBlocks,
    part: Part,
    /// Groups of rows, counted from those of the part on.
    a_range: Range<usize>,
    /// Panels of the weight, likewise.
    b_range: Range<usize>,
    /// Columns of the output.
    n: usize,
    accumulate: bool,
    c: Shared<'a, f32>,
}

impl Task<'_> {
    fn run(self) {
        let mut sums = Scratch::<[f32; BLOCK]>::new(self.a_range.len());
        let mut panel = Panel::new(self.cx, self.weight, self.kernel);
        let products = BlockProducts::new(self.kernel, self.weight.integers.group);
        for j in self.b_range.clone() {
            sums.fill([0.0; BLOCK]);
            for start in (0..self.weight.k).step_by(K_BLOCK) {
                let end = (start + K_BLOCK).min(self.weight.k);
                panel.read(self.part.right_panel + j, start..end);
                for (i, sums) in self.a_range.clone().zip(sums.iter_mut()) {
                    let rows = self.rows(i);
                    let operands = panel.operands(self.left, rows.start, start);
                    products.block(&operands, rows.len(), sums);
                }
            }
            for (i, sums) in self.a_range.clone().zip(sums.iter()) {
                self.write(self.rows(i), j, sums);
            }
        }
    }

    /// The rows of a group, of both operand and output.
    fn rows(&self, i: usize) -> Range<usize> {
        let first = self.part.first_row + i * PANEL;
        first..first + (self.part.m - i * PANEL).min(PANEL)
    }

    fn write(&self, rows: Range<usize>, j: usize, sums: &[f32; BLOCK]) {
        let columns = (self.n - j * PANEL).min(PANEL);
        for (row, sums) in rows.zip(sums.as_chunks::<WIDTH>().0) {
            // SAFETY: blocks of different tasks share no element, and rows of one neither.
            #[expect(unsafe_code, reason = "disjoint blocks of the output")]
            let c = unsafe { self.c.range(row * self.n + j * PANEL, columns) };
            match self.accumulate {
                false => c.copy_from_slice(&sums[..columns]),
                true => {
                    for (c, sum) in c.iter_mut().zip(sums) {
                        *c += sum;
                    }
                }
            }
        }
    }
}

/// The integers of 32 rows of a weight over a block of k, in memory that is aligned for tiles.
struct Panel<'a> {
    weight: &'a IntegerBlocks,
    kernel: BlockKernel,
    /// `[row][k]`, as they are read.
    codes_of_rows: Buffer,
    /// `[row][group]`
    scales_of_rows: Buffer,
    minimums_of_rows: Buffer,
    /// `[k / 4][row]`, four codes each.
    codes: Buffer,
    /// `[group][row]`
    scales: Buffer,
    minimums: Buffer,
    /// Groups that were read.
    groups: usize,
}

impl<'a> Panel<'a> {
    fn new(cx: Context<'_>, weight: &'a IntegerBlocks, kernel: BlockKernel) -> Self {
        let of_codes = || cx.pool.take(PANEL * K_BLOCK);
        let of_groups = || cx.pool.take(PANEL * K_BLOCK / SMALLEST_GROUP * 4);
        Self {
            weight,
            kernel,
            codes_of_rows: of_codes(),
            scales_of_rows: of_groups(),
            minimums_of_rows: of_groups(),
            codes: of_codes(),
            scales: of_groups(),
            minimums: of_groups(),
            groups: 0,
        }
    }

    /// Whether an offset of the codes is off.
    fn is_made_signed(&self) -> bool {
        self.weight.integers.offset > 0 && self.kernel.takes_signed()
    }

    /// `k` is whole blocks.
    fn read(&mut self, panel: usize, k: Range<usize>) {
        let weight = self.weight;
        let (Blocks { format, n, .. }, integers) = (&weight.blocks, weight.integers);
        let per_expert = n.div_ceil(PANEL).max(1);
        let first = panel % per_expert * PANEL;
        let n_rows = n.saturating_sub(first).min(PANEL);
        let (len, groups) = (k.len(), k.len() / integers.group);
        self.groups = groups;
        let rows = panel / per_expert * n + first;
        let of_rows = &mut self.codes_of_rows.bytes_mut()[..n_rows * len];
        let scales = self.scales_of_rows.f32s_mut().chunks_exact_mut(groups);
        let minimums = self.minimums_of_rows.f32s_mut().chunks_exact_mut(groups);
        let codes = of_rows.chunks_exact_mut(len);
        for (row, (codes, (scales, minimums))) in (rows..).zip(codes.zip(scales.zip(minimums))) {
            let bytes = &weight.blocks.data.bytes()[row * weight.blocks.row_bytes..];
            let [from, len] = [k.start, len].map(|k| k / format.length * format.bytes);
            // What is read next: more of the row, or the start of that of the next panel.
            prefetch(match k.end < weight.k {
                true => &bytes[from + len..][..len.min(weight.blocks.row_bytes - from - len)],
                false => {
                    let next = bytes.get(PANEL * weight.blocks.row_bytes..).unwrap_or(&[]);
                    &next[..len.min(next.len())]
                }
            });
            let mut out = GroupCodes {
                codes,
                scales,
                minimums,
            };
            (integers.read)(&bytes[from..][..len], &mut out);
        }
        if self.is_made_signed() {
            for code in self.codes_of_rows.bytes_mut()[..n_rows * len].iter_mut() {
                *code = code.wrapping_sub(integers.offset);
            }
        }
        let lay_out_panel = |of_rows: &Buffer, width: usize, out: &mut Buffer| {
            let rows = &of_rows.f32s()[..n_rows * width];
            lay_out(self.kernel, rows, width, out.f32s_mut());
        };
        // Four bytes are moved as one number, whatever it is.
        lay_out_panel(&self.codes_of_rows, len / 4, &mut self.codes);
        lay_out_panel(&self.scales_of_rows, groups, &mut self.scales);
        if integers.has_minimums() {
            lay_out_panel(&self.minimums_of_rows, groups, &mut self.minimums);
        }
    }

    /// This and some rows of a left operand, from `row` and `start` on.
    fn operands<'b>(&'b self, left: &'b Left, row: usize, start: usize) -> Operands<'b> {
        let integers = &self.weight.integers;
        let (codes, offset) = match self.is_made_signed() {
            true => (Codes::Signed, 0),
            false => (integers.codes, integers.offset.into()),
        };
        let n = self.groups * PANEL;
        let of_left = left.rows([row, start], integers.group);
        Operands {
            codes,
            offset,
            group: integers.group,
            left: of_left.codes,
            left_scales: of_left.scales,
            left_sums: of_left.sums,
            left_integers: of_left.integers,
            right: &self.codes.bytes()[..n * integers.group],
            scales: &self.scales.f32s()[..n],
            minimums: &self.minimums.f32s()[..n],
        }
    }
}
