//! Tests of the plans.

use super::*;

#[test]
fn additions_take_four_elements_per_thread() {
    assert_eq!(add("add", 1025).unwrap().grid, [2, 1, 1]);
    let tiles = add_row(64, 512).unwrap();
    assert_eq!((tiles.plan.grid, tiles.lanes_log2), ([32, 1, 1], 7));
}

#[track_caller]
fn check(rows: usize, d: usize, chunks: usize, chunk_rows: usize, grid: [u32; 3]) {
    let stage = column_sum_chunks(rows, d).unwrap();
    assert_eq!((stage.chunks, stage.chunk_rows), (chunks, chunk_rows));
    assert_eq!(stage.plan.grid, grid);
}

#[test]
fn column_sums_cut_rows_into_chunks() {
    check(0, 8, 0, 128, [1, 0, 1]);
    check(1, 1, 1, 128, [1, 1, 1]);
    check(129, 4096, 2, 128, [128, 2, 1]);
    // Never more chunks than the second stage adds up at once.
    check(65_536, 33, 256, 256, [2, 256, 1]);
    check(65_537, 33, 256, 257, [2, 256, 1]);
}

#[test]
fn the_second_stage_has_one_chunk() {
    let stage = column_sum_total(256, 4096).unwrap();
    assert_eq!((stage.chunks, stage.chunk_rows), (1, 256));
    assert_eq!((stage.plan.grid, stage.lanes_log2), ([128, 1, 1], 3));
}
