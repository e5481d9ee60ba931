//! Parts are whole tiles and bounded.

use llada_tensor::DType;

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
    let tile = |rows| head_tile(Operands::Values(DType::Bf16), rows);
    assert_eq!(
        [16, 17, 65].map(tile),
        [HeadTile::Bf16R16, HeadTile::Bf16R64, HeadTile::Bf16R128]
    );
    let tile = |rows| head_tile(Operands::Values(DType::F32), rows);
    assert_eq!(
        [16, 17, 65].map(tile),
        [HeadTile::F32R16, HeadTile::F32R64, HeadTile::F32R64]
    );
    assert_eq!(row_passes(40_000, 126_464).next(), Some(0..33_920));
}
