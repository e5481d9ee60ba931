//! Products with weights that stay in the blocks of a file.

use llada_tensor::backend::{
    BlockFormat, BlockIntegers, Codes, FillBytes, GroupCodes, PackedWeight, Rhs,
};
use llada_tensor::ops::matmul::{linear_each, pack};
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
        integers: None,
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

/// `16 * N` bytes after scale and minimum of each of `N` groups of 16: any codes.
fn format_of_integers((codes, offset): (Codes, u8), group: usize) -> BlockFormat {
    fn scale(byte: u8) -> f32 {
        (f32::from(byte) - 100.0) / 997.0
    }
    fn read<const MASK: u8, const IS_SIGNED: bool, const OFFSET: u8>(
        bytes: &[u8],
        out: &mut GroupCodes<'_>,
    ) {
        let in_block = out.scales.len() * 64 / out.codes.len();
        let blocks = bytes.chunks_exact(2 * in_block + 64).enumerate();
        for (at, (heads, codes)) in blocks.map(|(at, block)| (at, block.split_at(2 * in_block))) {
            for (group, head) in heads.as_chunks::<2>().0.iter().enumerate() {
                out.scales[at * in_block + group] = scale(head[0]);
                if !IS_SIGNED && OFFSET == 0 {
                    out.minimums[at * in_block + group] = scale(head[1]);
                }
            }
            for (out, code) in out.codes[at * 64..].iter_mut().zip(codes) {
                *out = code & MASK;
            }
        }
    }
    fn widen<const MASK: u8, const IS_SIGNED: bool, const OFFSET: u8, const GROUP: usize>(
        block: &[u8],
        out: &mut [f32],
    ) {
        let groups = out.len() / GROUP;
        let (mut codes, mut scales) = (vec![0; out.len()], vec![0.0; groups]);
        let mut minimums = vec![0.0; groups];
        let mut of_block = GroupCodes {
            codes: &mut codes,
            scales: &mut scales,
            minimums: &mut minimums,
        };
        read::<MASK, IS_SIGNED, OFFSET>(block, &mut of_block);
        for (at, (out, code)) in out.iter_mut().zip(codes).enumerate() {
            let code = match IS_SIGNED {
                true => f32::from(code.cast_signed()),
                false => f32::from(code) - f32::from(OFFSET),
            };
            *out = scales[at / GROUP] * code + minimums[at / GROUP];
        }
    }
    type Widen = fn(&[u8], &mut [f32]);
    type Read = fn(&[u8], &mut GroupCodes<'_>);
    let (read, [of_16, of_32]): (Read, [Widen; 2]) = match (codes, offset) {
        (Codes::UpTo15, 0) => (
            read::<15, false, 0>,
            [widen::<15, false, 0, 16>, widen::<15, false, 0, 32>],
        ),
        (Codes::UpTo15, 8) => (
            read::<15, false, 8>,
            [widen::<15, false, 8, 16>, widen::<15, false, 8, 32>],
        ),
        (Codes::UpTo31, 0) => (
            read::<31, false, 0>,
            [widen::<31, false, 0, 16>, widen::<31, false, 0, 32>],
        ),
        (Codes::UpTo63, 32) => (
            read::<63, false, 32>,
            [widen::<63, false, 32, 16>, widen::<63, false, 32, 32>],
        ),
        (Codes::Signed, 0) => (
            read::<255, true, 0>,
            [widen::<255, true, 0, 16>, widen::<255, true, 0, 32>],
        ),
        _ => unreachable!("no test has such codes"),
    };
    BlockFormat {
        length: 64,
        bytes: 64 + 128 / group,
        widen: if group == 16 { of_16 } else { of_32 },
        integers: Some(BlockIntegers {
            group,
            codes,
            offset,
            read,
        }),
    }
}

/// What a row is rounded to: 8 bits with a scale for each 32 values.
fn rounded(a: &[f32]) -> Vec<f64> {
    let of_group = |group: &[f32]| {
        let largest = group.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        let step = f64::from(largest) / 127.0;
        let round = move |&x: &f32| (f64::from(x) / step).round_ties_even() * step;
        group.iter().map(round).collect::<Vec<_>>()
    };
    a.chunks(32).flat_map(of_group).collect()
}

/// The product of the rounded operand, by `f64`; the same bits at every level and for other rows.
#[track_caller]
fn check_integers(codes: (Codes, u8), group: usize, [m, n, k]: [usize; 3]) {
    let format = format_of_integers(codes, group);
    let (values, bytes) = (normal(1, m * k), blocks(format, n * k));
    let mut w = vec![0.0; n * k];
    format.values(&bytes, &mut w);
    let rounded = rounded(&values);
    let mut first: Option<Vec<f32>> = None;
    for (name, device) in devices() {
        let a = of(device, &[m, k], &values);
        let precision = Precision::Blocks;
        let kept = pack_blocks(device, [1, n, k], precision, (format, &bytes)).unwrap();
        assert_eq!((kept.bytes(), kept.n(), kept.k()), (bytes.len(), n, k));
        let got = product(&a, Rhs::Packed(&kept), n, precision);
        for (row, got) in got.chunks_exact(n).enumerate() {
            for (column, &got) in got.iter().enumerate() {
                let a = &rounded[row * k..][..k];
                let w = &w[column * k..][..k];
                let terms = a.iter().zip(w).map(|(a, w)| a * f64::from(*w));
                let size: f64 = terms.clone().map(f64::abs).sum();
                let (expected, got) = (terms.sum::<f64>(), f64::from(got));
                let error = (got - expected).abs();
                assert!(
                    error <= 2e-6 * size,
                    "{name} {codes:?} {group}: {got} {expected}"
                );
            }
        }
        let last = of(device, &[1, k], &values[(m - 1) * k..]);
        let of_last = product(&last, Rhs::Packed(&kept), n, precision);
        assert!(of_last == got[(m - 1) * n..], "{name}: the last row alone");
        let first = first.get_or_insert_with(|| got.clone());
        assert!(*first == got, "{name} {codes:?} {group}");
    }
}

#[test]
fn integers_are_multiplied_as_they_are() {
    for codes in [
        (Codes::UpTo15, 0),
        (Codes::UpTo15, 8),
        (Codes::UpTo31, 0),
        (Codes::UpTo63, 32),
        (Codes::Signed, 0),
    ] {
        for group in [16, 32] {
            check_integers(codes, group, [1, 1, 64]);
            check_integers(codes, group, [5, 37, 192]);
            check_integers(codes, group, [70, 70, 1152]);
        }
    }
}

#[test]
fn blocks_without_integers_have_the_bits_of_bf16() {
    let (format, bytes) = (format::<32>(), blocks(format::<32>(), 40 * 96));
    for (name, device) in devices() {
        let a = of(device, &[7, 96], &normal(3, 7 * 96));
        let product_of = |precision| {
            let kept = pack_blocks(device, [1, 40, 96], precision, (format, &bytes)).unwrap();
            product(&a, Rhs::Packed(&kept), 40, precision)
        };
        let is_same = product_of(Precision::Blocks) == product_of(Precision::Bf16);
        assert!(is_same, "{name}");
    }
}

#[test]
fn left_operands_are_made_for_each_kind_of_weight() {
    let format = format_of_integers((Codes::UpTo15, 0), 32);
    let bytes = blocks(format, 40 * 64);
    for (name, device) in devices() {
        let a = of(device, &[3, 64], &normal(4, 3 * 64));
        let precision = Precision::Blocks;
        let kept = pack_blocks(device, [1, 40, 64], precision, (format, &bytes)).unwrap();
        let other = pack(&of(device, &[24, 64], &normal(5, 24 * 64)), precision).unwrap();
        let outputs = linear_each(&a, [&kept, &other], precision).unwrap();
        let each = [(&kept, 40), (&other, 24)];
        for ((weight, n), output) in each.into_iter().zip(outputs) {
            let alone = product(&a, Rhs::Packed(weight), n, precision);
            assert!(output.to_vec_f32().unwrap() == alone, "{name}");
        }
        // Of another precision there is no operand for it.
        let refused = linear_each(&a, [&kept], Precision::Bf16);
        assert!(refused.is_err(), "{name}");
    }
}
