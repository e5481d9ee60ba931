//! The most that the register block can do: the roof over the matrix products.

use super::context::Context;
use super::panels::{Kind, Layout, Matrix, Operand, Side, Values, pack_panels};
use super::quantized;
#[cfg(target_arch = "x86_64")]
use super::simd::{int8::Ahead, tiles::Products};
use super::tasks::{Output, Part, Source, Task};
use crate::Precision;
use crate::storage::Scratch;

/// See [`crate::backend::Backend::gemm_peak`].
pub(crate) fn gemm_peak(cx: Context<'_>, precision: Precision, rounds: usize) -> u64 {
    if precision.is_integer() {
        return quantized::gemm_peak(cx, rounds);
    }
    let kind = Kind::of(cx.level, precision);
    // Left panels and values of k that fit the first-level cache with a right panel. It is larger where
    // there are tiles, whose sums take as long to store as several products.
    let (left_panels, k) = match kind {
        #[cfg(target_arch = "x86_64")]
        Kind::Tiles { amx: true } => (1, 320),
        _ => (2, 128),
    };
    let (m, n) = (left_panels * kind.rows(), kind.columns());
    // Neither zeros nor ones: processors may be faster on those.
    let values: Vec<f32> = (0..m.max(n) * k).map(|i| (i % 13) as f32 - 6.5).collect();
    let (mut panels, mut operands) = (Vec::new(), Vec::new());
    for (side, size, width) in [(Side::Left, m, kind.rows()), (Side::Right, n, n)] {
        let layout = Layout::new(kind, size, width, k);
        let matrix = Matrix {
            data: Values::F32(&values),
            row_stride: k,
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
        let mut c = Scratch::new(m * n);
        #[cfg(target_arch = "x86_64")]
        if let Kind::Tiles { amx: true } = kind {
            let [a, b] = [0, 1].map(|i| bytemuck::cast_slice(panels[i].bytes()));
            // SAFETY: the kind is only made where AMX was detected; the block is all of `c`.
            #[expect(unsafe_code, reason = "AMX tiles")]
            unsafe {
                let products = Products::new(true);
                for _ in 0..rounds {
                    products.block(a, b, m, c.as_mut_ptr(), n, (false, Ahead::NONE));
                }
            }
            std::hint::black_box(&c[..]);
            return;
        }
        for _ in 0..rounds {
            let task = Task {
                kind,
                left: operands[0].layout,
                right: operands[1].layout,
                part: Part::of_all(m, 0),
                a_range: 0..left_panels,
                b_range: 0..1,
                n,
                c: Output::sums(&mut c, false),
            };
            task.run(cx.level, &panels[0], Source::Panels(&panels[1]));
        }
        std::hint::black_box(&c);
    });
    (threads * rounds * 2 * m * n * k) as u64
}
