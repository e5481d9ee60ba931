//! Tests of the plans.

use super::*;

#[track_caller]
fn check(heads: usize, half: usize, dtype: DType, block: u32, lanes_log2: i32) {
    let tiles = rope(5, heads, half, dtype).unwrap();
    assert_eq!((tiles.plan.block, tiles.lanes_log2), (block, lanes_log2));
    assert_eq!(tiles.plan.grid, [5, 1, 1]);
}

#[test]
fn threads_cover_the_pairs_of_a_row() {
    check(1, 1, DType::F32, 32, 0);
    check(32, 64, DType::F32, 256, 4);
    check(96, 64, DType::Bf16, 256, 3);
    check(3, 36, DType::F32, 64, 4);
    check(2, 5000, DType::F32, 256, 8);
}

#[test]
fn nothing_is_launched_for_no_heads() {
    assert_eq!(rope(3, 0, 2, DType::F32).unwrap().plan.grid, [0, 1, 1]);
    assert_eq!(rope(0, 3, 2, DType::F32).unwrap().plan.grid, [0, 1, 1]);
}
