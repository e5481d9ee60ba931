//! Products with weights that stay in the blocks of a file.

use llada_tensor::backend::{BlockFormat, FillBytes, PackedWeight, Rhs};
use llada_tensor::ops::matmul::pack;
use llada_tensor::{Device, Precision};
use std::sync::Arc;

use crate::matmul::product;
use crate::support::{devices, normal, of};

/// `N` values of a byte each, and the step between them as the first byte.
fn format<const N: usize>() -> BlockFormat {
    BlockFormat {
        length: N,
        bytes: N + 1,
        widen: |block, out| {
            for (out, &code) in out.iter_mut().zip(&block[1..]) {
                *out = f32::from(code.cast_signed()) * f32::from(block[0]) / 997.0;
            }
        },
    }
}

fn blocks(format: BlockFormat, n_values: usize) -> Vec<u8> {
    let n = n_values / format.length * format.bytes;
    (0..n).map(|i| (i * i % 251 + i % 7) as u8).collect()
}

fn pack_blocks(
    device: &Device,
    shape: [usize; 3],
    precision: Precision,
    (format, bytes): (BlockFormat, &[u8]),
) -> Option<Arc<dyn PackedWeight>> {
    let row = shape[2] / format.length * format.bytes;
    let fill: FillBytes<'_> = &|rows, out| {
        out.copy_from_slice(&bytes[rows.start * row..rows.end * row]);
    };
    (device.backend()).pack_blocks(shape, precision, format, fill)
}

/// The same bits as of the values, packed.
#[track_caller]
fn check(format: BlockFormat, [m, n, k]: [usize; 3]) {
    let (a, bytes) = (normal(1, m * k), blocks(format, n * k));
    let mut w = vec![0.0; n * k];
    format.values(&bytes, &mut w);
    for precision in [Precision::F32, Precision::Bf16] {
        for (name, device) in devices() {
            let a = of(device, &[m, k], &a);
            let kept = pack_blocks(device, [1, n, k], precision, (format, &bytes));
            let kept = kept.expect("a processor keeps blocks");
            assert_eq!(kept.bytes(), bytes.len());
            let wide = pack(&of(device, &[n, k], &w), precision).unwrap();
            let of_blocks = product(&a, Rhs::Packed(&kept), n, precision);
            let of_values = product(&a, Rhs::Packed(&wide), n, precision);
            let is_same = of_blocks == of_values;
            assert!(is_same, "{name} {m}x{n}x{k} {precision:?}");
        }
    }
}

#[test]
fn products_have_the_bits_of_the_values() {
    check(format::<32>(), [1, 1, 32]);
    check(format::<32>(), [5, 37, 96]);
    check(format::<32>(), [40, 70, 576]);
    check(format::<256>(), [33, 130, 768]);
}

#[test]
fn blocks_may_lie_across_blocks_of_k() {
    // 320 values of k are multiplied in two halves, 2,816 in elevenths or sixths.
    check(format::<64>(), [7, 40, 320]);
    check(format::<256>(), [3, 18, 2816]);
}

#[test]
fn integers_have_codes_of_their_own() {
    let (format, bytes) = (format::<32>(), blocks(format::<32>(), 64));
    for (_, device) in devices() {
        for precision in [Precision::Int8, Precision::Int4] {
            assert!(pack_blocks(device, [1, 2, 32], precision, (format, &bytes)).is_none());
        }
    }
}
