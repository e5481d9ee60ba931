//! Row lookup and its gradient.

use llada_tensor::ops::embedding::write_rows;
use llada_tensor::{DType, Tape, Tensor, Var, bf16};
use proptest::prelude::*;

use crate::reference;
use crate::support::{check_levels, devices, ids, normal, of, tensor, widen};

#[track_caller]
fn check(rows: usize, d: usize, n: usize) {
    let (table, ids, dy) = (normal(1, rows * d), ids(2, n, rows), normal(3, n * d));
    let exact = reference::embedding(&widen(&table), d, &ids);
    check_levels(&format!("embedding {rows}x{d}"), 0, &[exact], |device| {
        let mut y = Tensor::empty(device, DType::F32, &[n, d]).unwrap();
        let table = of(device, &[rows, d], &table);
        let backend = device.backend();
        backend.embedding(&table, &ids, &mut y).expect("fits");
        vec![y.to_vec_f32().unwrap()]
    });
    // The gradient is added to what is there.
    let mut exact = widen(&table);
    for (&id, dy) in ids.iter().zip(widen(&dy).chunks_exact(d.max(1))) {
        for (sum, x) in exact[id as usize * d..][..d].iter_mut().zip(dy) {
            *sum += x;
        }
    }
    check_levels(
        &format!("embedding {rows}x{d} backward"),
        n,
        &[exact],
        |device| {
            let mut dtable = of(device, &[rows, d], &table);
            let dy = of(device, &[n, d], &dy);
            let backend = device.backend();
            backend
                .embedding_backward(&dy, &ids, &mut dtable)
                .expect("fits");
            vec![dtable.to_vec_f32().unwrap()]
        },
    );
}

#[test]
fn agrees_with_f64() {
    check(1, 1, 1);
    check(5, 0, 3);
    check(5, 7, 0);
    check(3, 40, 200);
    check(300, 64, 1300);
}

#[test]
fn a_bf16_table_is_widened() {
    for (_, device) in devices() {
        let values: Vec<bf16> = normal(1, 12).into_iter().map(bf16::from_f32).collect();
        let table = Tensor::from_bf16(device, &[4, 3], &values).expect("fits");
        let expected = tensor(device, &[4, 3], 1).to_dtype(DType::Bf16).unwrap();
        let mut tape = Tape::inference(device, llada_tensor::Precision::F32);
        let y = tape.embedding(&Var::constant(table), &[3, 0]);
        let y = y.expect("ids are in range").value().to_vec_f32().unwrap();
        let expected = expected.to_vec_f32().unwrap();
        assert_eq!(y, [&expected[9..], &expected[..3]].concat());
    }
}

#[test]
fn rows_are_written_where_they_belong() {
    for (_, device) in devices() {
        let (mut table, rows) = (tensor(device, &[5, 3], 1), tensor(device, &[2, 3], 2));
        let before = table.to_vec_f32().unwrap();
        write_rows(&mut table, 2, &rows).expect("fits");
        let expected = [&before[..6], &rows.to_vec_f32().unwrap(), &before[12..]].concat();
        assert_eq!(table.to_vec_f32().unwrap(), expected);
        assert!(write_rows(&mut table, 4, &rows).is_err(), "past the end");
        let wide = tensor(device, &[2, 4], 2);
        assert!(write_rows(&mut table, 0, &wide).is_err(), "another width");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn odd_shapes(rows in 1usize..40, d in 0usize..70, n in 0usize..70) {
        check(rows, d, n);
    }
}
