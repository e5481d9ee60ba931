//! Rotary position embedding, its inverse, and its fusion with the split of projections.

use llada_cuda::{RopeQkvArgs, rope_qkv};
use llada_tensor::backend::RopeArgs;
use llada_tensor::ops::rope::RopeTable;
use llada_tensor::{DType, Device, Error, Philox, Stream, Tensor};

use crate::bounds::{misaligned, output, rounded, same_bits};
use crate::support::{cpu, cuda, values};

const POSITIONS: usize = 50;

fn positions(n: usize) -> Vec<u32> {
    let philox = Philox::new(3, Stream::Test);
    let at = |i: usize| philox.below(POSITIONS as u64, [u32::try_from(i).unwrap(), 0, 0]);
    (0..n).map(|i| u32::try_from(at(i)).unwrap()).collect()
}

fn table(device: &Device, half: usize) -> RopeTable {
    RopeTable::new(device, POSITIONS, 2 * half, 10_000.0).unwrap()
}

fn rotate(x: &Tensor, half: usize, inverse: bool) -> Vec<f32> {
    let device = x.device();
    let mut y = output(device, DType::F32, x.shape());
    let args = RopeArgs {
        x,
        table: &table(device, half),
        positions: &positions(x.shape()[0]),
        inverse,
        y: &mut y,
    };
    device.backend().rope(args).unwrap();
    y.to_vec_f32().unwrap()
}

#[track_caller]
fn check(rows: usize, heads: usize, half: usize) {
    let Some(cuda) = cuda() else { return };
    let width = 2 * half * heads;
    let x = values(1, rows * width);
    for inverse in [false, true] {
        let [got, expected] = [&cuda, &cpu()].map(|device| {
            let x = Tensor::from_f32(device, &[rows, width], &x).unwrap();
            rotate(&x, half, inverse)
        });
        let name = format!("{rows}x{heads}x{half}, inverse: {inverse}");
        same_bits(&name, &got, &expected);
    }
}

#[test]
fn rotations_are_those_of_the_scalar_code() {
    check(0, 1, 1);
    check(3, 0, 2);
    check(1, 1, 1);
    check(13, 3, 16);
    check(20, 5, 36);
    check(7, 2, 33);
    // More pairs than a block has threads side by side, more heads than rows of threads.
    check(2, 1, 1100);
    check(2, 40, 64);
    check(1, 300, 2);
}

#[test]
fn rows_need_not_be_aligned() {
    let Some(cuda) = cuda() else { return };
    let x = values(1, 5 * 64);
    let misaligned = misaligned(&cuda, &x).reshape(&[5, 64]).unwrap();
    let expected = rotate(&Tensor::from_f32(&cpu(), &[5, 64], &x).unwrap(), 16, false);
    same_bits("misaligned", &rotate(&misaligned, 16, false), &expected);
}

/// The columns `first..first + n` of every row.
fn columns(x: &[f32], width: usize, first: usize, n: usize) -> Vec<f32> {
    let rows = x.chunks_exact(width);
    rows.flat_map(|row| &row[first..first + n])
        .copied()
        .collect()
}

#[test]
fn projections_are_split_rotated_and_rounded() {
    let Some(cuda) = cuda() else { return };
    for (rows, heads, kv_heads, half) in [(0, 1, 1, 8), (1, 1, 1, 1), (5, 3, 1, 6), (9, 4, 2, 16)] {
        let (q_width, k_width) = (2 * half * heads, 2 * half * kv_heads);
        let width = q_width + 2 * k_width;
        let x = values(1, rows * width);
        let [mut q, mut k, mut v] =
            [q_width, k_width, k_width].map(|width| output(&cuda, DType::Bf16, &[rows, width]));
        rope_qkv(RopeQkvArgs {
            qkv: &Tensor::from_f32(&cuda, &[rows, width], &x).unwrap(),
            table: &table(&cuda, half),
            positions: &positions(rows),
            q: &mut q,
            k: &mut k,
            v: &mut v,
        })
        .unwrap();
        let rotated = |first, n| {
            let part = columns(&x, width, first, n);
            let part = Tensor::from_f32(&cpu(), &[rows, n], &part).unwrap();
            rounded(&rotate(&part, half, false))
        };
        let expected = [
            rotated(0, q_width),
            rotated(q_width, k_width),
            rounded(&columns(&x, width, q_width + k_width, k_width)),
        ];
        for (i, (got, expected)) in [q, k, v].iter().zip(&expected).enumerate() {
            let name = format!("{rows}x{heads}x{kv_heads}x{half} output {i}");
            same_bits(&name, &got.to_vec_f32().unwrap(), expected);
        }
    }
}

#[test]
fn a_split_that_does_not_fit_is_refused() {
    let Some(cuda) = cuda() else { return };
    let run = |width, q_width, positions: &[u32], dtype| {
        let [mut q, mut k, mut v] = [q_width, 4, 4].map(|width| output(&cuda, dtype, &[2, width]));
        rope_qkv(RopeQkvArgs {
            qkv: &output(&cuda, DType::F32, &[2, width]),
            table: &table(&cuda, 2),
            positions,
            q: &mut q,
            k: &mut k,
            v: &mut v,
        })
    };
    assert!(run(16, 8, &[0, 49], DType::Bf16).is_ok());
    let mismatch = |result| matches!(result, Err(Error::ShapeMismatch { .. }));
    assert!(mismatch(run(15, 8, &[0, 49], DType::Bf16)));
    assert!(mismatch(run(14, 6, &[0, 49], DType::Bf16)));
    assert!(mismatch(run(16, 8, &[0], DType::Bf16)));
    let past = run(16, 8, &[0, 50], DType::Bf16);
    assert!(matches!(
        past,
        Err(Error::IndexOutOfRange { index: 50, .. })
    ));
    let wide = run(16, 8, &[0, 49], DType::F32);
    assert!(matches!(wide, Err(Error::DTypeMismatch { .. })));
}
