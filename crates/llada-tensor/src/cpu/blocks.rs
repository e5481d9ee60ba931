//! Weights that stay in the blocks of a file: a panel is widened when it is multiplied, or its integers
//! are read.

pub(super) mod integers;
pub(super) mod left;

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;

use self::integers::IntegerBlocks;
use super::context::Context;
use super::matmul::CpuPacked;
use super::panels::{Kind, Layout, Matrix, Operand, Panels, Side, Values, pack_panel, panel_rows};
use super::workers::Shared;
use crate::Precision;
use crate::backend::{BlockFormat, FillBytes, PackedWeight};
use crate::storage::Buffer;

/// The rows of the weights of some experts, one behind the other, as the file has them.
#[derive(Debug)]
pub(super) struct Blocks {
    format: BlockFormat,
    data: Buffer,
    row_bytes: usize,
    /// Rows of an expert.
    n: usize,
}

/// See [`crate::backend::Backend::pack_blocks`].
pub(super) fn pack_blocks(
    cx: Context<'_>,
    [experts, n, k]: [usize; 3],
    precision: Precision,
    format: BlockFormat,
    fill: FillBytes<'_>,
) -> Arc<dyn PackedWeight> {
    let row_bytes = k / format.length * format.bytes;
    let integers = (format.integers)
        .filter(|integers| precision == Precision::Blocks && integers::are_read(&format, integers));
    let kind = Kind::of(cx.level, precision);
    let width = match integers {
        Some(_) => integers::PANEL,
        None => kind.columns(),
    };
    let panels = panel_rows(width, (0..experts).map(|_| n));
    let mut data = cx.pool.take(experts * n * row_bytes);
    let out = Shared::new(data.bytes_mut());
    cx.workers.for_each(panels.len(), |panel| {
        let rows = panels[panel].clone();
        // SAFETY: rows of different panels do not overlap.
        #[expect(unsafe_code, reason = "rows are written in parallel")]
        let bytes = unsafe { out.range(rows.start * row_bytes, rows.len() * row_bytes) };
        fill(rows, bytes);
    });
    let blocks = Blocks {
        format,
        data,
        row_bytes,
        n,
    };
    if let Some(integers) = integers {
        return Arc::new(IntegerBlocks {
            experts,
            k,
            blocks,
            integers,
        });
    }
    Arc::new(CpuPacked {
        kind,
        experts,
        layout: Layout::new(kind, panels.len() * width, width, k),
        panels: Panels::Blocks(blocks),
        n,
    })
}

impl Blocks {
    pub(super) fn bytes(&self) -> usize {
        self.data.bytes().len()
    }
}

/// One panel over one block of k, as it is multiplied, for a task that visits panels in order.
pub(super) struct WidePanel<'a, T> {
    blocks: &'a Blocks,
    kind: Kind,
    layout: Layout,
    last: Cell<Wide<T>>,
}

/// A panel that is wide.
#[derive(Debug, Default)]
pub(super) struct Wide<T> {
    /// Its start in the layout.
    start: Option<usize>,
    /// Its rows.
    values: Vec<f32>,
    pub(super) panel: Vec<T>,
}

impl<'a, T: bytemuck::Pod + Default> WidePanel<'a, T> {
    pub(super) fn new(blocks: &'a Blocks, kind: Kind, layout: Layout) -> Self {
        Self {
            blocks,
            kind,
            layout,
            last: Cell::default(),
        }
    }

    /// A panel over a block of k, to be given back.
    pub(super) fn take(&self, [k_block, panel]: [usize; 2]) -> Wide<T> {
        let start = self.layout.offset(k_block, panel);
        let mut wide = self.last.take();
        if wide.start != Some(start) {
            wide.start = Some(start);
            let elements = self.layout.panel_elements(k_block);
            wide.panel.resize(elements, T::zeroed());
            self.widen([k_block, panel], &mut wide.values, &mut wide.panel);
        }
        wide
    }

    pub(super) fn give_back(&self, wide: Wide<T>) {
        self.last.set(wide);
    }

    fn widen(&self, [k_block, panel]: [usize; 2], values: &mut Vec<f32>, out: &mut [T]) {
        let Blocks { format, n, .. } = *self.blocks;
        let (width, len) = (self.layout.width, self.layout.block_len(k_block));
        let per_expert = n.div_ceil(width).max(1);
        let first = panel % per_expert * width;
        let n_rows = n.saturating_sub(first).min(width);
        // Whole blocks around the values of k.
        let k0 = k_block * self.layout.k_block;
        let from = k0 / format.length * format.length;
        let wide = (k0 + len).next_multiple_of(format.length) - from;
        let [at, n_bytes] = [from, wide].map(|x| x / format.length * format.bytes);
        values.resize(n_rows * wide, 0.0);
        let rows = panel / per_expert * n + first;
        for (row, values) in (rows..).zip(values.chunks_exact_mut(wide)) {
            let bytes = &self.blocks.data.bytes()[row * self.blocks.row_bytes + at..][..n_bytes];
            format.values(bytes, values);
        }
        let operand = Operand {
            matrix: Matrix {
                data: Values::F32(&values[k0 - from..]),
                row_stride: wide,
                column_stride: 1,
            },
            side: Side::Right,
            layout: Layout {
                size: n_rows,
                k: len,
                ..self.layout
            },
        };
        pack_panel(self.kind, &operand, 0, 0, bytemuck::cast_slice_mut(out));
    }
}

impl PackedWeight for CpuPacked {
    fn n(&self) -> usize {
        self.experts * self.n
    }
    fn k(&self) -> usize {
        self.layout.k
    }
    fn bytes(&self) -> usize {
        match &self.panels {
            Panels::Packed(buffer) => buffer.bytes().len(),
            Panels::Blocks(blocks) => blocks.bytes(),
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
