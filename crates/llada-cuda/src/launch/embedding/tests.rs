//! Tests of the plans.

use super::*;

#[test]
fn a_bf16_table_is_read_eight_elements_at_a_time() {
    let lanes = |dtype| embedding(3, 64, dtype).unwrap().lanes_log2;
    assert_eq!((lanes(DType::F32), lanes(DType::Bf16)), (4, 3));
    assert_eq!(segment_sums(3, 64).unwrap().plan.grid, [1, 1, 1]);
}

#[test]
fn rows_of_equal_ids_stay_in_order() {
    let gathering = gather(&[7, 2, 7, 0, 2, 7]).unwrap();
    assert_eq!(gathering.order, [3, 1, 4, 0, 2, 5]);
    assert_eq!(gathering.direct.starts, [0, 1, 3, 6]);
    assert_eq!(gathering.direct.targets, [0, 2, 7]);
    assert_eq!(gathering.n_direct, 6);
    assert_eq!(gathering.split, Segments::new());
    assert_eq!(gathering.joined, Segments::new());
}

#[test]
fn sums_of_frequent_ids_are_split() {
    let mut ids = vec![5; 600];
    ids[1] = 9;
    ids.extend([1; 257]);
    let gathering = gather(&ids).unwrap();
    assert_eq!(gathering.n_direct, 1);
    assert_eq!(gathering.order[..3], [1, 600, 601]);
    assert_eq!(gathering.direct.targets, [9]);
    // 257 rows of id 1, 599 of id 5.
    assert_eq!(gathering.split.starts, [0, 256, 257, 513, 769, 856]);
    assert_eq!(gathering.split.targets, [0, 1, 2, 3, 4]);
    assert_eq!(gathering.joined.starts, [0, 2, 5]);
    assert_eq!(gathering.joined.targets, [1, 5]);
}

#[test]
fn nothing_is_gathered_of_nothing() {
    let gathering = gather(&[]).unwrap();
    assert!(gathering.order.is_empty() && gathering.direct.targets.is_empty());
}
