//! Rotary position embedding, its inverse and its tables.

use llada_tensor::backend::RopeArgs;
use llada_tensor::ops::rope::RopeTable;
use llada_tensor::{DType, Precision, Tape, Tensor, Var, bf16};
use proptest::prelude::*;

use crate::reference;
use crate::support::{check_levels, devices, ids, normal, of, same_bits, scalar, widen};

const POSITIONS: usize = 50;
const THETA: f32 = 10_000.0;

#[track_caller]
fn check(rows: usize, heads: usize, half: usize) {
    let width = 2 * half * heads;
    let (x, positions) = (normal(1, rows * width), ids(2, rows, POSITIONS));
    let table = RopeTable::new(scalar(), POSITIONS, 2 * half, THETA).expect("even");
    let [cos, sin] = [table.cos, table.sin].map(|x| widen(&x.to_vec_f32().unwrap()));
    let exact = [1.0, -1.0]
        .map(|sign| reference::rope(&widen(&x), width, (&cos, &sin, half), &positions, sign));
    check_levels(
        &format!("rope {rows}x{heads}x{half}"),
        2,
        &exact,
        |device| {
            let rotate = |inverse| {
                let mut y = Tensor::empty(device, DType::F32, &[rows, width]).unwrap();
                let args = RopeArgs {
                    x: &of(device, &[rows, width], &x),
                    table: &RopeTable::new(device, POSITIONS, 2 * half, THETA).expect("even"),
                    positions: &positions,
                    inverse,
                    y: &mut y,
                };
                device.backend().rope(args).expect("fits");
                y.to_vec_f32().unwrap()
            };
            vec![rotate(false), rotate(true)]
        },
    );
}

#[test]
fn agrees_with_f64() {
    check(0, 1, 1);
    check(3, 0, 2);
    check(1, 1, 1);
    check(13, 3, 16);
    check(200, 5, 36);
}

/// Angles are `f32`, as in the reference, so that their error grows with the position: two
/// roundings of the frequency (its power is good to one unit) and one of the product.
#[test]
fn tables_are_cosines_and_sines_of_the_angles() {
    let (n, half) = (600, 9);
    let table = RopeTable::new(scalar(), n, 2 * half, THETA).expect("even");
    let (cos, sin) = (
        table.cos.to_vec_f32().unwrap(),
        table.sin.to_vec_f32().unwrap(),
    );
    for at in 0..n * half {
        let exponent = (at % half) as f64 / half as f64;
        let angle = (at / half) as f64 * f64::from(THETA).powf(-exponent);
        // The exponent's own rounding moves the frequency by ln(theta) = 9.2 units.
        let bound = f64::from(f32::EPSILON) * (angle * (3.0 + 9.3) + 1.0);
        for (value, exact) in [(cos[at], angle.cos()), (sin[at], angle.sin())] {
            assert!((f64::from(value) - exact).abs() <= bound, "entry {at}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn odd_shapes(rows in 0usize..40, heads in 1usize..5, half in 1usize..37) {
        check(rows, heads, half);
    }
}

/// The first dimensions of a head turn as a head of their own; the others stay.
#[test]
fn what_is_not_rotated_passes() {
    let (heads, rotary, head_dim, positions) = (3, 6, 17, [4_u32, 0, 9]);
    for (_, device) in crate::support::devices() {
        let x: Vec<f32> = (0..3 * heads * head_dim)
            .map(|at| (at as f32).sin())
            .collect();
        let rotate = |table: &RopeTable, width: usize, x: &[f32]| {
            let x = Tensor::from_f32(device, &[3, width], x).unwrap();
            let mut tape = Tape::inference(device, Precision::F32);
            let y = tape.rope(&Var::constant(x), table, &positions).unwrap();
            y.value().to_vec_f32().unwrap()
        };
        let partial = RopeTable::partial(device, 10, [rotary, head_dim], 1e4).unwrap();
        let got = rotate(&partial, heads * head_dim, &x);
        let alone = RopeTable::new(device, 10, rotary, 1e4).unwrap();
        let first: Vec<f32> = x
            .chunks(head_dim)
            .flat_map(|head| head[..rotary].to_vec())
            .collect();
        let turned = rotate(&alone, heads * rotary, &first);
        let heads = x.chunks(head_dim).zip(turned.chunks(rotary));
        let expected: Vec<f32> = heads
            .flat_map(|(x, y)| [y, &x[rotary..]].concat())
            .collect();
        assert_eq!(got, expected);
    }
    assert!(RopeTable::partial(scalar(), 10, [8, 6], 1e4).is_err());
    assert!(RopeTable::partial(scalar(), 10, [5, 6], 1e4).is_err());
}

#[test]
fn bf16_has_the_rounded_bits_of_f32() {
    // Heads of 44 dimensions, of which 36 are rotated.
    let (rows, shape) = (30, [30, 3 * 44]);
    let positions = ids(2, rows, POSITIONS);
    for (name, device) in devices() {
        let x = of(device, &shape, &normal(1, rows * shape[1]));
        let table = RopeTable::partial(device, POSITIONS, [36, 44], THETA).expect("even");
        let [y, rounded] = [DType::F32, DType::Bf16].map(|dtype| {
            let mut y = Tensor::empty(device, dtype, &shape).unwrap();
            let args = RopeArgs {
                x: &x,
                table: &table,
                positions: &positions,
                inverse: true,
                y: &mut y,
            };
            device.backend().rope(args).expect("fits");
            y.to_vec_f32().unwrap()
        });
        let expected: Vec<f32> = y.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
        same_bits(name, &rounded, &expected);
    }
}
