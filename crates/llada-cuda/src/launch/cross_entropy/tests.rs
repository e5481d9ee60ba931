//! Parts are whole tiles and bounded.

use super::*;
use crate::launch::candidates::TILE;

#[test]
fn parts_are_whole_tiles_and_bounded() {
    for rows in [0, 1, 300, 8192, 20_000, 1 << 20] {
        let entries = backward_entries(rows);
        assert_eq!(entries % TILE, 0, "{rows}");
        let fits = entries * rows * 4 <= SLOPE_BYTES;
        assert!(fits || entries == FEWEST_ENTRIES, "{rows}");
    }
    assert_eq!(backward_entries(1), 8192);
    assert_eq!(backward_entries(20_000), 3072);
}

#[test]
fn tiles_are_those_that_have_a_kernel() {
    let rows = |dtype, rows| tile_rows(dtype, rows).rows();
    let bf16 = [1, 16, 17, 64, 65].map(|n| rows(DType::Bf16, n));
    assert_eq!(bf16, [16, 16, 64, 64, 128]);
    let f32 = [1, 16, 17, 64, 65].map(|n| rows(DType::F32, n));
    assert_eq!(f32, [16, 16, 64, 64, 64]);
    assert_eq!(bias("cross_entropy", 33).unwrap().grid, [2, 1, 1]);
    assert_eq!(row_passes(40_000, 126_464).next(), Some(0..33_920));
}
