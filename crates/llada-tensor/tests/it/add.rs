//! Addition, of one shape and of a row, and column sums.

use llada_tensor::ops::add::add_into;
use llada_tensor::{DType, Tensor};
use proptest::prelude::*;

use crate::reference;
use crate::support::{check_levels, normal, of, widen};

#[track_caller]
fn check(rows: usize, d: usize) {
    let (x, z, row) = (normal(1, rows * d), normal(2, rows * d), normal(3, d));
    let exact = [
        reference::add(&widen(&x), &widen(&z)),
        reference::add(&widen(&x), &widen(&row)),
        reference::add(&widen(&x), &widen(&z)),
    ];
    let shape = [rows, d];
    check_levels(&format!("add {rows}x{d}"), 0, &exact, |device| {
        let (x, mut z) = (of(device, &shape, &x), of(device, &shape, &z));
        let row = of(device, &[d], &row);
        let mut y = Tensor::empty(device, DType::F32, &shape).unwrap();
        let mut of_row = Tensor::empty(device, DType::F32, &shape).unwrap();
        device.backend().add(&x, &z, &mut y).expect("fits");
        device.backend().add(&x, &row, &mut of_row).expect("fits");
        add_into(&mut z, &x).expect("fits");
        [y, of_row, z].map(|y| y.to_vec_f32().unwrap()).to_vec()
    });
    let mut exact = widen(&row);
    for x in widen(&x).chunks_exact(d.max(1)) {
        exact = reference::add(&exact, x);
    }
    check_levels(
        &format!("column_sum {rows}x{d}"),
        rows,
        &[exact],
        |device| {
            let (x, mut y) = (of(device, &shape, &x), of(device, &[d], &row));
            device.backend().column_sum(&x, &mut y).expect("fits");
            vec![y.to_vec_f32().unwrap()]
        },
    );
}

#[test]
fn agrees_with_f64() {
    check(0, 5);
    check(5, 0);
    check(1, 1);
    check(1, 40);
    check(700, 1);
    check(37, 300);
    // Several tasks, the last one shorter.
    check(260, 257);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn odd_shapes(rows in 0usize..40, d in 0usize..140) {
        check(rows, d);
    }
}
