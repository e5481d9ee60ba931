//! Matrix products.

use llada_tensor::backend::{MatmulArgs, PackedWeight, Rhs};
use llada_tensor::ops::matmul::{linear_each, matmul, pack};
use llada_tensor::{DType, Device, Error, Precision, Tensor, bf16};
use std::sync::Arc;

use crate::support::{cpu, cuda, values};

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// `a b` in `f64`, `a: [m, k]`, `b: [k, n]`, of operands rounded as `precision` says.
fn exact(a: &[f32], b: &[f32], [m, n, k]: [usize; 3], precision: Precision) -> Vec<f64> {
    let round = |x: &f32| match precision {
        Precision::Bf16 => bf16::from_f32(*x).to_f64(),
        _ => f64::from(*x),
    };
    let (a, b): (Vec<_>, Vec<_>) = (a.iter().map(round).collect(), b.iter().map(round).collect());
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for l in 0..k {
            let row = &b[l * n..][..n];
            for (c, b) in c[i * n..][..n].iter_mut().zip(row) {
                *c += a[i * k + l] * b;
            }
        }
    }
    c
}

/// That of a sum of `k` products, each with a relative error of at most 2^-23, of magnitude about
/// one: the bound of the CPU's test.
fn bound(k: usize) -> f64 {
    2e-7 * (k as f64 + 1.0) + 1e-6
}

#[track_caller]
fn assert_near(what: &str, got: &[f32], exact: &[f64], bound: f64) {
    assert_eq!(got.len(), exact.len(), "{what}: lengths");
    for (at, (&got, &exact)) in got.iter().zip(exact).enumerate() {
        let error = (f64::from(got) - exact).abs();
        // False for NaN as well.
        assert!(
            error <= bound,
            "{what} element {at}: {got} is {error:e} off {exact}"
        );
    }
}

fn tensor(device: &Device, shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_f32(device, shape, values).unwrap()
}

/// `a b` or `c + a b` on the device, from the values of `c`.
pub(crate) fn multiply(
    a: &Tensor,
    b: Rhs<'_>,
    c: Option<&[f32]>,
    precision: Precision,
) -> Result<Vec<f32>, Error> {
    let n = b.k_n().unwrap().1;
    let mut shape = a.shape().to_vec();
    *shape.last_mut().unwrap() = n;
    let numel = shape.iter().product();
    // What is replaced must not be read.
    let before = c.map_or(vec![f32::NAN; numel], <[f32]>::to_vec);
    let mut out = tensor(a.device(), &shape, &before);
    matmul(MatmulArgs {
        a,
        b,
        c: &mut out,
        accumulate: c.is_some(),
        precision,
    })?;
    out.to_vec_f32()
}

/// `[rows, columns]` to `[columns, rows]`.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    let rows = values.len().checked_div(columns).unwrap_or(0);
    let at = |i: usize| values[i % rows * columns + i / rows];
    (0..values.len()).map(at).collect()
}

/// Every layout of the operands, with and without `c`.
#[track_caller]
fn check([m, n, k]: [usize; 3]) {
    let Some(device) = cuda() else { return };
    let (a, b) = (values(1, m * k), values(2, k * n));
    let before = values(3, m * n);
    let lefts = [
        tensor(&device, &[m, k], &a),
        tensor(&device, &[k, m], &transposed(&a, k))
            .transpose(0, 1)
            .unwrap(),
    ];
    let matrix = tensor(&device, &[k, n], &b);
    let weight = tensor(&device, &[n, k], &transposed(&b, n));
    let turned = weight.transpose(0, 1).unwrap();
    for precision in PRECISIONS {
        let exact = exact(&a, &b, [m, n, k], precision);
        let added: Vec<f64> = exact
            .iter()
            .zip(&before)
            .map(|(x, &y)| x + f64::from(y))
            .collect();
        let packed = pack(&weight, precision).unwrap();
        let rights = [
            ("matrix", Rhs::Matrix(&matrix)),
            ("transposed matrix", Rhs::Matrix(&turned)),
            ("weight", Rhs::Weight(&weight)),
            ("packed weight", Rhs::Packed(&packed)),
        ];
        for (at, a) in lefts.iter().enumerate() {
            for (name, b) in rights {
                let what = format!("{m}x{n}x{k} {precision:?} {name}, left operand {at}");
                let got = multiply(a, b, None, precision).unwrap();
                assert_near(&what, &got, &exact, bound(k));
                let got = multiply(a, b, Some(&before), precision).unwrap();
                assert_near(&what, &got, &added, bound(k));
            }
        }
    }
}

#[test]
fn agrees_with_f64_in_every_layout() {
    for shape in [
        [1, 1, 1],
        [2, 3, 5],
        [3, 2, 16],
        [17, 33, 65],
        [64, 64, 64],
        [65, 63, 100],
        [129, 66, 33],
        [1, 300, 40],
        [300, 1, 40],
        [70, 40, 500],
    ] {
        check(shape);
    }
}

#[test]
fn agrees_with_the_cpu() {
    let Some(device) = cuda() else { return };
    let [m, n, k] = [37, 45, 130];
    let (a, w) = (values(1, m * k), values(2, n * k));
    for precision in PRECISIONS {
        let [got, expected] = [device.clone(), cpu()].map(|device| {
            let (a, w) = (tensor(&device, &[m, k], &a), tensor(&device, &[n, k], &w));
            multiply(
                &a,
                Rhs::Packed(&pack(&w, precision).unwrap()),
                None,
                precision,
            )
            .unwrap()
        });
        let expected: Vec<f64> = expected.iter().map(|&x| f64::from(x)).collect();
        assert_near("cpu", &got, &expected, 2.0 * bound(k));
    }
}

#[test]
fn large_tiles_give_the_same_bits_as_small_ones() {
    let Some(device) = cuda() else { return };
    // 9 x 15 tiles of 128 x 128; a row alone has small ones.
    let [m, n, k] = [1100, 1800, 40];
    let (a, w) = (values(1, m * k), values(2, n * k));
    let (a_tensor, w_tensor) = (tensor(&device, &[m, k], &a), tensor(&device, &[n, k], &w));
    let packed = pack(&w_tensor, Precision::Bf16).unwrap();
    let all = multiply(&a_tensor, Rhs::Packed(&packed), None, Precision::Bf16).unwrap();
    let exact = exact(&a, &transposed(&w, k), [m, n, k], Precision::Bf16);
    assert_near("large", &all, &exact, bound(k));
    if cfg!(real_gpu) {
        // cuBLASLt chooses its order of sums by shape.
        return;
    }
    for row in [0, 127, 128, 1099] {
        let one = a_tensor.narrow(0, row, 1).unwrap();
        let one = multiply(&one, Rhs::Packed(&packed), None, Precision::Bf16).unwrap();
        assert_eq!(one, all[row * n..][..n], "row {row}");
    }
}

#[test]
fn a_row_does_not_depend_on_other_rows() {
    let Some(device) = cuda() else { return };
    if cfg!(real_gpu) {
        return;
    }
    let [m, n, k] = [150, 70, 90];
    let a = tensor(&device, &[m, k], &values(1, m * k));
    let w = tensor(&device, &[n, k], &values(2, n * k));
    for precision in PRECISIONS {
        let all = multiply(&a, Rhs::Weight(&w), None, precision).unwrap();
        for row in [0, 63, 64, 149] {
            let one = a.narrow(0, row, 1).unwrap();
            let one = multiply(&one, Rhs::Weight(&w), None, precision).unwrap();
            assert_eq!(one, all[row * n..][..n], "{precision:?} row {row}");
        }
    }
}

#[test]
fn batches_of_any_strides() {
    let Some(device) = cuda() else { return };
    let [outer, inner, m, n, k] = [2, 3, 5, 9, 7];
    let count = outer * inner;
    let (a, b) = (values(1, count * m * k), values(2, count * k * n));
    let before = values(3, count * m * n);
    // The two axes of the batch lie in the other order in memory.
    let exchanged = |values: &[f32], rows: usize, columns: usize| {
        let size = rows * columns;
        let matrix = |at: usize| &values[(at % outer * inner + at / outer) * size..][..size];
        let memory: Vec<f32> = (0..count).flat_map(matrix).copied().collect();
        let shape = [inner, outer, rows, columns];
        tensor(&device, &shape, &memory).transpose(0, 1).unwrap()
    };
    let straight =
        |values: &[f32], rows, columns| tensor(&device, &[outer, inner, rows, columns], values);
    let w = tensor(&device, &[n, k], &values(4, n * k));
    for precision in PRECISIONS {
        let packed = pack(&w, precision).unwrap();
        for (name, a_tensor, b_tensor) in [
            ("straight", straight(&a, m, k), straight(&b, k, n)),
            ("exchanged", exchanged(&a, m, k), exchanged(&b, k, n)),
            ("mixed", straight(&a, m, k), exchanged(&b, k, n)),
        ] {
            let of_matrix = multiply(&a_tensor, Rhs::Matrix(&b_tensor), Some(&before), precision);
            let of_weight = multiply(&a_tensor, Rhs::Weight(&w), Some(&before), precision);
            let of_packed = multiply(&a_tensor, Rhs::Packed(&packed), Some(&before), precision);
            let [of_matrix, of_weight, of_packed] =
                [of_matrix, of_weight, of_packed].map(Result::unwrap);
            assert_eq!(of_weight, of_packed, "{name} {precision:?}");
            for at in 0..count {
                let a = &a[at * m * k..][..m * k];
                let rights = [
                    (&of_matrix, b[at * k * n..][..k * n].to_vec()),
                    (&of_weight, transposed(&values(4, n * k), k)),
                ];
                for (got, b) in rights {
                    let range = at * m * n..(at + 1) * m * n;
                    let exact: Vec<f64> = exact(a, &b, [m, n, k], precision)
                        .iter()
                        .zip(&before[range.clone()])
                        .map(|(x, &y)| x + f64::from(y))
                        .collect();
                    assert_near(
                        &format!("{name} {precision:?}"),
                        &got[range],
                        &exact,
                        bound(k),
                    );
                }
            }
        }
    }
}

#[test]
fn parts_of_tensors_are_multiplied_in_place() {
    let Some(device) = cuda() else { return };
    let [m, n, k] = [20, 30, 40];
    // Columns 3.. of wider rows: nothing starts on 16 bytes.
    let (a, w) = (values(1, m * 50), values(2, n * 45));
    let part = |values: &[f32], width: usize| -> Vec<f32> {
        values
            .chunks(width)
            .flat_map(|row| &row[3..3 + k])
            .copied()
            .collect()
    };
    let exact_of = |precision| {
        let (a, w) = (part(&a, 50), part(&w, 45));
        exact(&a, &transposed(&w, k), [m, n, k], precision)
    };
    let a = tensor(&device, &[m, 50], &a).narrow(1, 3, k).unwrap();
    let w = tensor(&device, &[n, 45], &w).narrow(1, 3, k).unwrap();
    for precision in PRECISIONS {
        let got = multiply(&a, Rhs::Weight(&w), None, precision).unwrap();
        assert_near("part", &got, &exact_of(precision), bound(k));
    }
}

#[test]
fn empty_operands() {
    let Some(device) = cuda() else { return };
    for precision in PRECISIONS {
        let none = |shape: &[usize]| Tensor::zeros(&device, DType::F32, shape).unwrap();
        let of = |m: usize, n: usize, k: usize, before: Option<&[f32]>| {
            let (a, w) = (none(&[m, k]), none(&[n, k]));
            let packed = pack(&w, precision).unwrap();
            let by_weight = multiply(&a, Rhs::Weight(&w), before, precision).unwrap();
            let by_packed = multiply(&a, Rhs::Packed(&packed), before, precision).unwrap();
            assert_eq!(by_weight, by_packed);
            by_weight
        };
        assert_eq!(of(2, 3, 0, None), [0.0; 6]);
        assert_eq!(of(2, 1, 0, Some(&[5.0, 6.0])), [5.0, 6.0]);
        assert!(of(0, 3, 4, None).is_empty());
        assert!(of(2, 0, 4, None).is_empty());
    }
}

#[test]
fn several_weights_share_a_left_operand() {
    let Some(device) = cuda() else { return };
    let [m, k] = [19, 70];
    let a = tensor(&device, &[m, k], &values(1, m * k));
    for precision in PRECISIONS {
        let weights: [Arc<dyn PackedWeight>; 2] = [33, 70].map(|n| {
            let w = tensor(&device, &[n, k], &values(2, n * k));
            pack(&w, precision).unwrap()
        });
        let together = linear_each(&a, [&weights[0], &weights[1]], precision).unwrap();
        for (weight, y) in weights.iter().zip(together) {
            let alone = multiply(&a, Rhs::Packed(weight), None, precision).unwrap();
            assert_eq!(alone, y.to_vec_f32().unwrap());
        }
    }
}

#[test]
fn a_weight_of_several_pieces_is_packed_whole() {
    let Some(device) = cuda() else { return };
    // Two pieces of 4 MiB and a rest.
    let [n, k] = [2100, 1003];
    let values = values(1, n * k);
    let w = tensor(&device, &[n, k], &values);
    let rows = [0, 1044, 1045, 1046, 2089, 2091, 2099];
    // Rows of the identity choose columns of the weight.
    let mut a = vec![0.0; 2 * k];
    (a[0], a[k + 1002]) = (1.0, 1.0);
    let a = tensor(&device, &[2, k], &a);
    for precision in PRECISIONS {
        let packed = pack(&w, precision).unwrap();
        let y = multiply(&a, Rhs::Packed(&packed), None, precision).unwrap();
        for row in rows {
            for (at, column) in [0, 1002].into_iter().enumerate() {
                let value = values[row * k + column];
                let expected = match precision {
                    Precision::Bf16 => bf16::from_f32(value).to_f32(),
                    _ => value,
                };
                let got = y[at * n + row];
                assert_eq!(got.to_bits(), expected.to_bits(), "{precision:?} {row}");
            }
        }
    }
}

#[test]
fn values_that_are_not_finite_stay_in_their_row() {
    let Some(device) = cuda() else { return };
    let [m, n, k] = [3, 5, 40];
    let mut a = values(1, m * k);
    (a[k + 7], a[2 * k]) = (f32::NAN, f32::INFINITY);
    let a = tensor(&device, &[m, k], &a);
    let w = tensor(&device, &[n, k], &vec![1.0; n * k]);
    for precision in PRECISIONS {
        let y = multiply(&a, Rhs::Weight(&w), None, precision).unwrap();
        assert!(y[..n].iter().all(|x| x.is_finite()), "{y:?}");
        assert!(y[n..2 * n].iter().all(|x| x.is_nan()), "{y:?}");
        assert!(y[2 * n..].iter().all(|&x| x == f32::INFINITY), "{y:?}");
    }
}

#[test]
fn a_weight_fits_its_precision_and_device_alone() {
    let Some(device) = cuda() else { return };
    let a = tensor(&device, &[2, 8], &values(1, 16));
    let w = tensor(&device, &[3, 8], &values(2, 24));
    let packed = |precision| pack(&w, precision).unwrap();
    let on_cpu = pack(&tensor(&cpu(), &[3, 8], &values(2, 24)), Precision::F32).unwrap();
    for (b, precision) in [
        (Rhs::Packed(&packed(Precision::F32)), Precision::Bf16),
        (Rhs::Packed(&packed(Precision::Bf16)), Precision::F32),
        (Rhs::Packed(&packed(Precision::Int8)), Precision::F32),
        (Rhs::Packed(&packed(Precision::F32)), Precision::Int8),
        (Rhs::Weight(&w), Precision::Int8),
        (Rhs::Packed(&on_cpu), Precision::F32),
    ] {
        let result = multiply(&a, b, None, precision);
        assert!(
            matches!(result, Err(Error::InvalidArgument { .. })),
            "{precision:?}: {result:?}"
        );
    }
}

#[test]
fn a_device_says_what_multiplies() {
    let Some(device) = cuda() else { return };
    let name = device.backend().name();
    assert!(name.starts_with("cuda:0"), "{name}");
    if !cfg!(real_gpu) {
        let says = name.contains("own products") && name.contains("libcublasLt is not installed");
        assert!(says, "{name}");
    }
}
