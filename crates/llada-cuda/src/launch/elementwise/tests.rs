//! Tests of the plans that several kernels share.

use super::*;

#[test]
fn flat_grids_cover_the_elements_and_stay_small() {
    let blocks = |n| flat("add", n, VECTOR).unwrap().grid;
    assert_eq!(blocks(0), [0, 1, 1]);
    assert_eq!(blocks(1), [1, 1, 1]);
    assert_eq!(blocks(1024), [1, 1, 1]);
    assert_eq!(blocks(1025), [2, 1, 1]);
    assert_eq!(blocks(1 << 33), [8192, 1, 1]);
}

#[track_caller]
fn check(rows: usize, d: usize, grid: [u32; 3], lanes_log2: i32) {
    let tiles = row_tiles("embedding", rows, d, VECTOR).unwrap();
    assert_eq!((tiles.plan.grid, tiles.lanes_log2), (grid, lanes_log2));
    assert_eq!(tiles.plan.block, THREADS);
}

#[test]
fn short_rows_share_a_block_and_long_ones_take_several() {
    check(5, 1, [1, 1, 1], 0);
    // Five runs of four: eight lanes, so that 32 rows fit a block.
    check(33, 17, [2, 1, 1], 3);
    check(7, 1024, [7, 1, 1], 8);
    check(7, 4096, [7, 4, 1], 8);
    check(100_000, 4097, [8192, 5, 1], 8);
}

#[test]
fn nothing_is_launched_for_no_elements() {
    check(0, 8, [0, 1, 1], 1);
    check(8, 0, [1, 0, 1], 0);
}

#[test]
fn the_widest_rows_make_threads_loop() {
    check(1, 1 << 40, [1, 65_535, 1], 8);
}
