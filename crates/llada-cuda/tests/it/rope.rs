//! Rotary position embedding and its inverse.

use llada_tensor::backend::RopeArgs;
use llada_tensor::ops::rope::RopeTable;
use llada_tensor::{DType, Philox, Stream, Tensor};

use crate::bounds::{misaligned, output, same_bits};
use crate::support::{cpu, cuda, values};

const POSITIONS: usize = 50;

fn positions(n: usize) -> Vec<u32> {
    let philox = Philox::new(3, Stream::Test);
    let at = |i: usize| philox.below(POSITIONS as u64, [u32::try_from(i).unwrap(), 0, 0]);
    (0..n).map(|i| u32::try_from(at(i)).unwrap()).collect()
}

fn rotate(x: &Tensor, half: usize, inverse: bool) -> Vec<f32> {
    rotate_first(x, [2 * half, 2 * half], inverse)
}

fn rotate_first(x: &Tensor, rotary_and_head_dim: [usize; 2], inverse: bool) -> Vec<f32> {
    let device = x.device();
    let mut y = output(device, DType::F32, x.shape());
    let table = RopeTable::partial(device, POSITIONS, rotary_and_head_dim, 10_000.0).unwrap();
    let args = RopeArgs {
        x,
        table: &table,
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
fn what_is_not_rotated_passes() {
    let Some(cuda) = cuda() else { return };
    for (rows, heads, sizes) in [
        (5, 3, [16, 32]),
        (2, 40, [64, 128]),
        (3, 2, [6, 9]),
        (1, 1, [2, 70]),
    ] {
        let width = heads * sizes[1];
        let x = values(1, rows * width);
        for inverse in [false, true] {
            let [got, expected] = [&cuda, &cpu()].map(|device| {
                let x = Tensor::from_f32(device, &[rows, width], &x).unwrap();
                rotate_first(&x, sizes, inverse)
            });
            same_bits(&format!("{rows}x{heads}x{sizes:?}"), &got, &expected);
        }
    }
}

#[test]
fn rows_need_not_be_aligned() {
    let Some(cuda) = cuda() else { return };
    let x = values(1, 5 * 64);
    let misaligned = misaligned(&cuda, &x).reshape(&[5, 64]).unwrap();
    let expected = rotate(&Tensor::from_f32(&cpu(), &[5, 64], &x).unwrap(), 16, false);
    same_bits("misaligned", &rotate(&misaligned, 16, false), &expected);
}
