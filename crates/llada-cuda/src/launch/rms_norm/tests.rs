//! Tests of the plans.

use super::*;

#[test]
fn blocks_have_as_many_warps_as_keep_a_row() {
    let block = |d| rms_norm(3, d).unwrap().block;
    assert_eq!([1, 512, 513, 4096].map(block), [32, 32, 64, 256]);
    assert_eq!([8192, 8193, 1 << 40].map(block), [512; 3]);
    let block = |d| rms_norm_backward(3, d).unwrap().plan.block;
    assert_eq!([1, 4096, 8193].map(block), [32, 256, 512]);
}

#[test]
fn rows_without_columns_are_not_launched() {
    assert_eq!(rms_norm(3, 0).unwrap().grid, [0, 1, 1]);
    assert_eq!(rms_norm_backward(3, 0).unwrap().chunks, 0);
}

#[track_caller]
fn check([rows, d]: [usize; 2], chunks: usize, chunk_rows: usize) {
    let backward = rms_norm_backward(rows, d).unwrap();
    assert_eq!((backward.chunks, backward.chunk_rows), (chunks, chunk_rows));
    assert_eq!(backward.plan.grid[0] as usize, chunks);
}

#[test]
fn chunks_cover_the_rows() {
    check([0, 64], 0, 8);
    check([1, 64], 1, 8);
    check([9, 64], 2, 8);
    check([32_768, 64], 4096, 8);
    check([32_769, 64], 3641, 9);
    // Eight warps each.
    check([4096, 4096], 512, 8);
    check([4097, 4096], 456, 9);
}
