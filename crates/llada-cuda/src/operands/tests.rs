//! Batches of strided matrices.

use llada_tensor::DType;

use super::Matrices;

fn matrices(batch: &[(usize, usize)], rows: (usize, usize)) -> Matrices {
    Matrices {
        dtype: DType::F32,
        pointer: 1024,
        batch: batch.to_vec(),
        rows: rows.0,
        columns: 5,
        row_stride: rows.1,
        column_stride: 1,
    }
}

#[test]
fn batches_of_equal_steps_are_one() {
    assert_eq!(matrices(&[], (2, 5)).batch_stride(), Some(0));
    assert_eq!(
        matrices(&[(3, 20), (2, 10)], (2, 5)).batch_stride(),
        Some(10)
    );
    assert_eq!(
        matrices(&[(3, 20), (1, 7)], (2, 5)).batch_stride(),
        Some(20)
    );
    assert_eq!(matrices(&[(3, 10), (2, 30)], (2, 5)).batch_stride(), None);
}

#[test]
fn rows_are_stacked_if_they_are_equally_far_apart() {
    let stacked = matrices(&[(3, 20), (2, 10)], (2, 5)).stacked().unwrap();
    assert_eq!(
        (stacked.rows, stacked.row_stride, stacked.count()),
        (12, 5, 1)
    );
    assert!(matrices(&[(3, 40)], (2, 5)).stacked().is_none());
    // One row each.
    let stacked = matrices(&[(3, 40)], (1, 5)).stacked().unwrap();
    assert_eq!((stacked.rows, stacked.row_stride), (3, 40));
}

#[test]
fn one_of_a_batch_is_found_by_its_index() {
    let all = matrices(&[(3, 10), (2, 30)], (2, 5));
    assert_eq!(all.count(), 6);
    assert_eq!(all.at(0).pointer, 1024);
    assert_eq!(all.at(1).pointer, 1024 + 4 * 30);
    assert_eq!(all.at(4).pointer, 1024 + 4 * 20);
}
