//! Products with weights of integers.

use llada_tensor::backend::Rhs;
use llada_tensor::ops::matmul::pack;
use llada_tensor::quantize::{
    INT4_GROUP, ROTATION, RowCodes, dequantize_row, int4_row, int8_row, pack_codes, padded,
    quantize_rows, rotate,
};
use llada_tensor::{CpuConfig, Device, Error, Precision, Tensor};
use proptest::prelude::*;

use crate::matmul::product;
use crate::support::{devices, levels, max_error, normal, of};

/// What the codes of a row stand for, rotated.
fn rounded(row: &[f32], precision: Precision) -> Vec<f64> {
    let mut row = row.to_vec();
    row.resize(row.len().next_multiple_of(ROTATION), 0.0);
    rotate(&mut row);
    let row = &row[..];
    let mut codes = vec![0; row.len()];
    let mut multipliers = vec![1; row.len().div_ceil(INT4_GROUP)];
    let scale = match precision {
        Precision::Int4 => int4_row(row, &mut codes, &mut multipliers),
        _ => int8_row(row, &mut codes),
    };
    let value = |(k, &code): (usize, &i8)| {
        f64::from(code) * f64::from(multipliers[k / INT4_GROUP]) * f64::from(scale)
    };
    codes.iter().enumerate().map(value).collect()
}

fn exact(a: &[f32], w: &[f32], [m, n, k]: [usize; 3], precision: Precision) -> Vec<f64> {
    let rows = |x: &[f32], precision| -> Vec<Vec<f64>> {
        x.chunks(k).map(|row| rounded(row, precision)).collect()
    };
    let (a, w) = (rows(a, Precision::Int8), rows(w, precision));
    let dot = |i: usize, j: usize| a[i].iter().zip(&w[j]).map(|(x, y)| x * y).sum();
    (0..m * n).map(|at| dot(at / n, at % n)).collect()
}

/// The sums are exact, so that only the scales and the last rounding differ from `f64`; every
/// level gives the same bits.
#[track_caller]
fn check([m, n, k]: [usize; 3]) {
    let (a, w) = (normal(1, m * k), normal(2, n * k));
    for precision in [Precision::Int8, Precision::Int4] {
        let exact = exact(&a, &w, [m, n, k], precision);
        let bound = 4e-7 * exact.iter().fold(1.0, |max, x| x.abs().max(max));
        let mut first: Option<Vec<f32>> = None;
        for (name, device) in devices() {
            let packed = pack(&of(device, &[n, k], &w), precision).expect("a matrix");
            let a = of(device, &[m, k], &a);
            let y = product(&a, Rhs::Packed(&packed), n, precision);
            let error = max_error(&y, &exact);
            assert!(
                error <= bound,
                "{name} {m}x{n}x{k} {precision:?}: {error:e}"
            );
            let first = first.get_or_insert_with(|| y.clone());
            assert_eq!(*first, y, "{name} {m}x{n}x{k} {precision:?}");
        }
    }
}

#[test]
fn sums_are_exact_and_the_same_at_every_level() {
    for shape in [
        [1, 1, 1],
        [2, 3, 5],
        [3, 33, 64],
        [7, 32, 65],
        [13, 40, 130],
        [23, 64, 511],
        [31, 31, 513],
        [33, 100, 1100],
        [70, 17, 96],
        [257, 33, 40],
    ] {
        check(shape);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn odd_shapes(m in 1_usize..70, n in 1_usize..70, k in 1_usize..200) {
        check([m, n, k]);
    }
}

#[test]
fn the_largest_values_do_not_overflow() {
    let k = 1 << 16;
    for (name, device) in devices() {
        let packed = pack(&of(device, &[1, k], &vec![1.0; k]), Precision::Int8).expect("fits");
        let y = product(
            &of(device, &[1, k], &vec![2.0; k]),
            Rhs::Packed(&packed),
            1,
            Precision::Int8,
        );
        let expected = 2.0 * k as f32;
        assert!(
            (y[0] - expected).abs() <= 1e-6 * expected,
            "{name}: {}",
            y[0]
        );
    }
}

/// Rows that are rotated to the largest codes, against the codes that are furthest from zero.
#[test]
fn the_largest_codes_do_not_overflow() {
    let (n, k) = (33, 640);
    for (precision, codes, multiplier) in [
        (Precision::Int8, [-127, 127], 1),
        (Precision::Int4, [-8, 7], 15),
        (Precision::Int4, [-8, 7], -15),
    ] {
        for code in codes {
            let fill = |_: std::ops::Range<usize>, out: RowCodes<'_>| {
                out.codes.fill(code);
                out.multipliers.fill(multiplier);
                out.scales.fill(0.5);
            };
            for (name, device) in devices() {
                let packed = pack_codes(device, [n, k], precision, &fill).expect("fits");
                for sign in [1.0, -1.0] {
                    // The rotation of 8 and zeros is a row of ones.
                    let row: Vec<f32> = (0..k)
                        .map(|at| if at % ROTATION == 0 { 8.0 * sign } else { 0.0 })
                        .collect();
                    let a = of(device, &[5, k], &row.repeat(5));
                    let y = product(&a, Rhs::Packed(&packed), n, precision);
                    let expected = sign * 0.5 * k as f32 * f32::from(code) * f32::from(multiplier);
                    for y in y {
                        let error = (y - expected).abs();
                        let limit = 1e-6 * expected.abs();
                        assert!(error <= limit, "{name} {precision:?} {code}: {y}");
                    }
                }
            }
        }
    }
}

#[test]
fn rows_do_not_depend_on_threads_or_on_other_rows() {
    let (m, n, k) = (75, 200, 300);
    let (a, w) = (normal(3, m * k), normal(4, n * k));
    for &level in levels() {
        let on = |threads: usize, rows: std::ops::Range<usize>| {
            let device = Device::cpu(CpuConfig {
                threads,
                level: Some(level),
            })
            .expect("a level");
            let packed = pack(&of(&device, &[n, k], &w), Precision::Int4).expect("a matrix");
            let a = of(&device, &[rows.len(), k], &a[rows.start * k..rows.end * k]);
            product(&a, Rhs::Packed(&packed), n, Precision::Int4)
        };
        let all = on(1, 0..m);
        assert_eq!(all, on(2, 0..m), "{}", level.name());
        assert_eq!(all[20 * n..29 * n], on(2, 20..29), "{}", level.name());
    }
}

#[test]
fn a_row_with_a_nan_gives_nan_and_no_other_row_does() {
    for (name, device) in devices() {
        let packed = pack(&of(device, &[5, 40], &normal(1, 200)), Precision::Int8).expect("fits");
        let mut a = normal(2, 120);
        a[50] = f32::INFINITY;
        let y = product(
            &of(device, &[3, 40], &a),
            Rhs::Packed(&packed),
            5,
            Precision::Int8,
        );
        let is_nan: Vec<bool> = y
            .chunks(5)
            .map(|row| row.iter().all(|x| x.is_nan()))
            .collect();
        assert_eq!(is_nan, [false, true, false], "{name}");
    }
}

#[test]
fn integers_need_a_packed_weight_of_their_kind() {
    let device = crate::support::scalar();
    let (a, w) = (
        of(device, &[2, 8], &normal(1, 16)),
        of(device, &[3, 8], &normal(2, 24)),
    );
    let of_f32 = pack(&w, Precision::F32).expect("a matrix");
    let of_int8 = pack(&w, Precision::Int8).expect("a matrix");
    for (b, precision) in [
        (Rhs::Weight(&w), Precision::Int8),
        (Rhs::Packed(&of_f32), Precision::Int8),
        (Rhs::Packed(&of_int8), Precision::F32),
    ] {
        let mut c = Tensor::zeros(device, llada_tensor::DType::F32, &[2, 3]).unwrap();
        let (a, c, accumulate) = (&a, &mut c, false);
        let args = llada_tensor::backend::MatmulArgs {
            a,
            b,
            c,
            accumulate,
            precision,
        };
        let result = llada_tensor::ops::matmul::matmul(args);
        assert!(
            matches!(result, Err(Error::InvalidArgument { .. })),
            "{result:?}"
        );
    }
}

/// Codes that were kept give the same weight, and values close to those that were quantised.
#[test]
fn the_code_without_a_magnitude_counts_as_the_next_one() {
    let (n, k) = (3, 64);
    let a = normal(1, 2 * k);
    for (name, device) in devices() {
        let a = of(device, &[2, k], &a);
        let product_with = |least: i8| {
            let fill = |_: std::ops::Range<usize>, out: RowCodes<'_>| {
                for (at, code) in out.codes.iter_mut().enumerate() {
                    *code = if at % 5 == 0 { least } else { at as i8 };
                }
                out.scales.fill(0.1);
            };
            let w = pack_codes(device, [n, k], Precision::Int8, &fill).expect("fits");
            product(&a, Rhs::Packed(&w), n, Precision::Int8)
        };
        assert_eq!(product_with(-128), product_with(-127), "{name}");
    }
}

#[test]
fn codes_can_be_kept() {
    let (n, k) = (37, 100);
    let (w, a) = (normal(1, n * k), normal(2, 3 * k));
    for (precision, groups, steps) in [(Precision::Int8, 0, 1.0), (Precision::Int4, 4, 15.0)] {
        for (name, device) in devices() {
            let padded = padded(k);
            let (mut codes, mut scales) = (vec![0; n * padded], vec![0.0; n]);
            let mut multipliers = vec![0; n * groups];
            let out = RowCodes {
                codes: &mut codes,
                multipliers: &mut multipliers,
                scales: &mut scales,
            };
            quantize_rows(device, precision, &w, k, out).expect("fits");
            let fill = |rows: std::ops::Range<usize>, out: RowCodes<'_>| {
                let of = |width: usize| rows.start * width..rows.end * width;
                out.codes.copy_from_slice(&codes[of(padded)]);
                out.multipliers.copy_from_slice(&multipliers[of(groups)]);
                out.scales.copy_from_slice(&scales[of(1)]);
            };
            let kept = pack_codes(device, [n, k], precision, &fill).expect("fits");
            let packed = pack(&of(device, &[n, k], &w), precision).expect("a matrix");
            let a = of(device, &[3, k], &a);
            let [y, expected] = [&kept, &packed].map(|w| product(&a, Rhs::Packed(w), n, precision));
            assert_eq!(y, expected, "{name}");
            let mut row = vec![0.0; k];
            for at in 0..n {
                let multipliers = &multipliers[at * groups..][..groups];
                dequantize_row(&codes[at * padded..], multipliers, scales[at], &mut row);
                // A rotation keeps lengths: half a step at most, on average.
                let squares = row.iter().zip(&w[at * k..]).map(|(x, w)| (x - w).powi(2));
                let error = (squares.sum::<f32>() / padded as f32).sqrt();
                let half = 0.5 * steps * scales[at];
                assert!(error < half, "{name} {precision:?}: {error} > {half}");
            }
        }
    }
}
