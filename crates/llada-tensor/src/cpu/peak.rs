//! The most that the register block can do: the roof over the matrix products.

use super::context::Context;
use super::panels::{Kind, Layout, Matrix, Operand, Side, pack_panels};
use super::quantized;
use super::tasks::{Part, Source, Task};
use super::workers::Shared;
use crate::Precision;

/// Values of k: two left panels and a right one fit the first-level cache.
const K: usize = 128;

/// See [`crate::backend::Backend::gemm_peak`].
pub(crate) fn gemm_peak(cx: Context<'_>, precision: Precision, rounds: usize) -> u64 {
    if precision.is_integer() {
        return quantized::gemm_peak(cx, rounds);
    }
    let kind = Kind::of(cx.level, precision);
    let (m, n) = (2 * kind.rows(), kind.columns());
    // Neither zeros nor ones: processors may be faster on those.
    let values: Vec<f32> = (0..m.max(n) * K).map(|i| (i % 13) as f32 - 6.5).collect();
    let (mut panels, mut operands) = (Vec::new(), Vec::new());
    for (side, size, width) in [(Side::Left, m, kind.rows()), (Side::Right, n, n)] {
        let layout = Layout::new(kind, size, width, K);
        let matrix = Matrix {
            data: &values,
            row_stride: K,
            column_stride: 1,
        };
        operands.push(Operand {
            matrix,
            side,
            layout,
        });
        panels.push(cx.pool.take(layout.elements() * kind.element_bytes()));
    }
    let [a, b] = &mut panels[..] else {
        unreachable!("two sides")
    };
    pack_panels(cx, kind, &operands, &mut [a, b]);
    let threads = cx.workers.threads();
    cx.workers.for_each(threads, |_| {
        let mut c = vec![0.0; m * n];
        for _ in 0..rounds {
            let task = Task {
                kind,
                left: operands[0].layout,
                right: operands[1].layout,
                part: Part::of_all(m, 0),
                a_range: 0..2,
                b_range: 0..1,
                n,
                accumulate: false,
                c: Shared::new(&mut c),
            };
            task.run(cx.level, &panels[0], Source::Panels(&panels[1]));
        }
        std::hint::black_box(&c);
    });
    (threads * rounds * 2 * m * n * K) as u64
}
