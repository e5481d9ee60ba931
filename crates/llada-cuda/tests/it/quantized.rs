//! Products with weights of integers.

use std::ops::Range;

use llada_tensor::backend::Rhs;
use llada_tensor::ops::matmul::{linear_each, pack};
use llada_tensor::quantize::{RowCodes, groups, pack_codes, padded, quantize_rows, rotate};
use llada_tensor::{Device, Error, Precision, Tensor, bf16};

use crate::matmul::multiply;
use crate::support::{cpu, cuda, values};

const PRECISIONS: [Precision; 2] = [Precision::Int8, Precision::Int4];

/// A weight's codes.
struct Codes {
    k: usize,
    precision: Precision,
    codes: Vec<i8>,
    multipliers: Vec<i8>,
    scales: Vec<f32>,
}

impl Codes {
    fn of(device: &Device, values: &[f32], [n, k]: [usize; 2], precision: Precision) -> Self {
        let mut codes = Self {
            k,
            precision,
            codes: vec![0; n * padded(k)],
            multipliers: vec![0; n * groups(precision, k)],
            scales: vec![0.0; n],
        };
        let out = RowCodes {
            codes: &mut codes.codes,
            multipliers: &mut codes.multipliers,
            scales: &mut codes.scales,
        };
        quantize_rows(device, precision, values, k, out).unwrap();
        codes
    }

    /// What the codes of a row stand for, rotated.
    fn row(&self, row: usize) -> Vec<f64> {
        let (width, groups) = (padded(self.k), groups(self.precision, self.k));
        let multiplier = |k: usize| match groups {
            0 => 1.0,
            _ => f64::from(self.multipliers[row * groups + k / 32]),
        };
        let scale = f64::from(self.scales[row]);
        let codes = &self.codes[row * width..][..width];
        let value = |(k, &code): (usize, &i8)| f64::from(code) * multiplier(k) * scale;
        codes.iter().enumerate().map(value).collect()
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "outputs come by mutable reference inside"
    )]
    fn fill(&self, rows: Range<usize>, out: RowCodes<'_>) {
        let of = |width: usize| rows.start * width..rows.end * width;
        out.codes.copy_from_slice(&self.codes[of(padded(self.k))]);
        let multipliers = &self.multipliers[of(groups(self.precision, self.k))];
        out.multipliers.copy_from_slice(multipliers);
        out.scales.copy_from_slice(&self.scales[of(1)]);
    }
}

fn tensor(device: &Device, shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_f32(device, shape, values).unwrap()
}

fn rotated(row: &[f32]) -> Vec<f32> {
    let mut row = row.to_vec();
    row.resize(padded(row.len()), 0.0);
    rotate(&mut row);
    row
}

#[track_caller]
fn assert_within(what: &str, got: f32, exact: f64, limit: f64) {
    let error = (f64::from(got) - exact).abs();
    // False for NaN as well.
    assert!(
        error <= limit,
        "{what}: {got} is {error:e} off {exact}, limit {limit:e}"
    );
}

/// Against the product of what the codes stand for and the rotated operand, rounded to bf16, in
/// `f64`; and against the CPU.
///
/// - Products are exact, as 8 and 8 bits: only sums are rounded, at least every 16 of them, to
///   2^-23 of the sum of the magnitudes, and four more times with the scale.
/// - The CPU rounds the operand to 8 bits: at most 1/254 of the row's largest value off; here the
///   8 bits of bf16 are at most 2^-9 off. The sums of both errors over all magnitudes of the weight
///   are the limit.
#[track_caller]
fn check([m, n, k]: [usize; 3]) {
    let Some(device) = cuda() else { return };
    let (a, w, before) = (values(1, m * k), values(2, n * k), values(3, m * n));
    for precision in PRECISIONS {
        let run = |device: &Device| {
            let packed = pack(&tensor(device, &[n, k], &w), precision).unwrap();
            let a = tensor(device, &[m, k], &a);
            multiply(&a, Rhs::Packed(&packed), Some(&before), precision).unwrap()
        };
        let (got, of_cpu) = (run(&device), run(&cpu()));
        let codes = Codes::of(&cpu(), &w, [n, k], precision);
        for i in 0..m {
            let x = rotated(&a[i * k..][..k]);
            let largest = x.iter().fold(0.0_f32, |max, x| x.abs().max(max));
            let rounded: Vec<f64> = x.iter().map(|&x| bf16::from_f32(x).to_f64()).collect();
            for j in 0..n {
                let (at, w) = (i * n + j, codes.row(j));
                let start = f64::from(before[at]);
                let exact: f64 = w.iter().zip(&rounded).map(|(w, x)| w * x).sum();
                let magnitudes: f64 = w.iter().zip(&rounded).map(|(w, x)| (w * x).abs()).sum();
                let what = format!("{m}x{n}x{k} {precision:?} [{i}, {j}]");
                let roundings = (padded(k) / 16 + 8) as f64;
                let limit = roundings * (magnitudes + start.abs()) / f64::from(1 << 23);
                assert_within(&what, got[at], exact + start, limit);
                let off = |(w, x): (&f64, &f32)| {
                    w.abs() * (f64::from(largest) / 254.0 + f64::from(x.abs()) / 512.0)
                };
                let limit_of_cpu = limit + w.iter().zip(&x).map(off).sum::<f64>();
                assert_within(&what, got[at], f64::from(of_cpu[at]), limit_of_cpu);
            }
        }
    }
}

#[test]
fn only_the_left_operand_is_rounded() {
    for shape in [
        [1, 1, 1],
        [2, 3, 5],
        [8, 33, 64],
        [16, 32, 65],
        [17, 40, 128],
        [33, 31, 200],
        [64, 70, 130],
        [1, 65, 1700],
    ] {
        check(shape);
    }
}

#[test]
fn more_rows_than_the_kernel_of_few_takes() {
    for shape in [[65, 33, 70], [130, 65, 129]] {
        check(shape);
    }
}

#[test]
fn a_row_does_not_depend_on_other_rows() {
    let Some(device) = cuda() else { return };
    let [m, n, k] = [64, 50, 300];
    let w = tensor(&device, &[n, k], &values(1, n * k));
    let a = tensor(&device, &[m, k], &values(2, m * k));
    for precision in PRECISIONS {
        let packed = pack(&w, precision).unwrap();
        let all = multiply(&a, Rhs::Packed(&packed), None, precision).unwrap();
        for row in [0, 15, 16, 63] {
            let one = a.narrow(0, row, 1).unwrap();
            let one = multiply(&one, Rhs::Packed(&packed), None, precision).unwrap();
            assert_eq!(one, all[row * n..][..n], "{precision:?} row {row}");
        }
    }
}

#[test]
fn codes_are_those_of_the_cpu_and_can_be_kept() {
    let Some(device) = cuda() else { return };
    let [n, k] = [37, 100];
    let (w, a) = (values(1, n * k), values(2, 3 * k));
    let a = tensor(&device, &[3, k], &a);
    for precision in PRECISIONS {
        let [codes, of_cpu] =
            [&device, &cpu()].map(|device| Codes::of(device, &w, [n, k], precision));
        assert_eq!(codes.codes, of_cpu.codes);
        assert_eq!(codes.multipliers, of_cpu.multipliers);
        assert_eq!(codes.scales, of_cpu.scales);
        let fill = |rows: Range<usize>, out: RowCodes<'_>| codes.fill(rows, out);
        let kept = pack_codes(&device, [n, k], precision, &fill).unwrap();
        let packed = pack(&tensor(&device, &[n, k], &w), precision).unwrap();
        let [y, expected] =
            [&kept, &packed].map(|w| multiply(&a, Rhs::Packed(w), None, precision).unwrap());
        assert_eq!(y, expected, "{precision:?}");
        assert_eq!(kept.bytes(), packed.bytes());
        // A step of 128 codes per row, and little else.
        let codes = n * 128 * if precision == Precision::Int4 { 1 } else { 2 } / 2;
        assert!(
            (codes..codes + 64 * 8).contains(&kept.bytes()),
            "{}",
            kept.bytes()
        );
    }
}

#[test]
fn a_weight_of_several_pieces_is_packed_whole() {
    let Some(device) = cuda() else { return };
    let [n, k] = [2100, 1003];
    let w = values(1, n * k);
    let a = values(2, k);
    let a_tensor = tensor(&device, &[1, k], &a);
    let x: Vec<f64> = rotated(&a)
        .iter()
        .map(|&x| bf16::from_f32(x).to_f64())
        .collect();
    for precision in PRECISIONS {
        let packed = pack(&tensor(&device, &[n, k], &w), precision).unwrap();
        let y = multiply(&a_tensor, Rhs::Packed(&packed), None, precision).unwrap();
        let codes = Codes::of(&device, &w, [n, k], precision);
        for row in [0, 1022, 1023, 1024, 2047, 2048, 2099] {
            let w = codes.row(row);
            let exact: f64 = w.iter().zip(&x).map(|(w, x)| w * x).sum();
            let magnitudes: f64 = w.iter().zip(&x).map(|(w, x)| (w * x).abs()).sum();
            let limit = (padded(k) / 16 + 8) as f64 * magnitudes / f64::from(1 << 23);
            assert_within(&format!("{precision:?} {row}"), y[row], exact, limit);
        }
    }
}

#[test]
fn a_row_with_a_value_that_is_not_finite_is_nan_and_no_other_row_is() {
    let Some(device) = cuda() else { return };
    let [n, k] = [5, 200];
    let w = tensor(&device, &[n, k], &values(1, n * k));
    for (m, precision) in [
        (3, Precision::Int8),
        (3, Precision::Int4),
        (70, Precision::Int8),
    ] {
        let packed = pack(&w, precision).unwrap();
        let mut a = values(2, m * k);
        a[k + 70] = f32::INFINITY;
        let y = multiply(
            &tensor(&device, &[m, k], &a),
            Rhs::Packed(&packed),
            None,
            precision,
        );
        for (row, y) in y.unwrap().chunks(n).enumerate() {
            assert!(
                y.iter().all(|x| x.is_nan() == (row == 1)),
                "{precision:?} {row}: {y:?}"
            );
        }
    }
}

#[test]
fn a_weight_row_with_a_value_that_is_not_finite_is_nan_and_no_other_is() {
    let Some(device) = cuda() else { return };
    let [m, n, k] = [2, 4, 70];
    let mut w = values(1, n * k);
    w[2 * k + 3] = f32::NAN;
    let a = tensor(&device, &[m, k], &values(2, m * k));
    for precision in PRECISIONS {
        let packed = pack(&tensor(&device, &[n, k], &w), precision).unwrap();
        let y = multiply(&a, Rhs::Packed(&packed), None, precision).unwrap();
        let is_nan: Vec<bool> = y.iter().map(|x| x.is_nan()).collect();
        assert_eq!(
            is_nan,
            [false, false, true, false].repeat(m),
            "{precision:?}"
        );
    }
}

#[test]
fn empty_operands() {
    let Some(device) = cuda() else { return };
    for precision in PRECISIONS {
        for [m, n, k] in [[0, 3, 4], [2, 0, 4], [2, 3, 0]] {
            let packed = pack(&tensor(&device, &[n, k], &values(1, n * k)), precision).unwrap();
            let a = tensor(&device, &[m, k], &values(2, m * k));
            let y = multiply(&a, Rhs::Packed(&packed), None, precision).unwrap();
            assert_eq!(y, vec![0.0; m * n], "{precision:?} {m}x{n}x{k}");
        }
    }
}

#[test]
fn several_weights_share_a_left_operand_of_any_strides() {
    let Some(device) = cuda() else { return };
    let [m, k] = [6, 90];
    let a = tensor(&device, &[k, m], &values(1, m * k))
        .transpose(0, 1)
        .unwrap();
    let packed = |n: usize, precision| {
        pack(&tensor(&device, &[n, k], &values(2, n * k)), precision).unwrap()
    };
    for precision in PRECISIONS {
        let weights = [packed(33, precision), packed(64, precision)];
        let together = linear_each(&a, [&weights[0], &weights[1]], precision).unwrap();
        let contiguous = tensor(&device, &[m, k], &a.to_vec_f32().unwrap());
        for (weight, y) in weights.iter().zip(together) {
            let alone = multiply(&contiguous, Rhs::Packed(weight), None, precision).unwrap();
            assert_eq!(alone, y.to_vec_f32().unwrap());
        }
    }
}

#[test]
fn integers_need_a_packed_weight_of_integers() {
    let Some(device) = cuda() else { return };
    let a = tensor(&device, &[2, 8], &values(1, 16));
    let w = tensor(&device, &[3, 8], &values(2, 24));
    for precision in PRECISIONS {
        let result = multiply(
            &a,
            Rhs::Matrix(&w.transpose(0, 1).unwrap()),
            None,
            precision,
        );
        assert!(
            matches!(result, Err(Error::InvalidArgument { .. })),
            "{result:?}"
        );
    }
}
