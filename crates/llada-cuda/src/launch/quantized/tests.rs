//! Plans of products with integers.

use super::{Bits, dequantize, dequantized_rows, matmul, pack_codes, rotate};

#[test]
fn a_block_takes_32_rows_of_the_weight() {
    for (n, blocks) in [(0, 0), (1, 1), (32, 1), (33, 2), (126_464, 3952)] {
        for bits in [Bits::Eight, Bits::Four] {
            let (_, plan) = matmul(bits, n).unwrap();
            assert_eq!(plan.grid, [blocks, 1, 1]);
            // What consumer cards have.
            assert!(plan.shared_bytes <= 99 << 10);
        }
    }
}

#[test]
fn loops_cover_every_word() {
    assert_eq!(pack_codes(Bits::Eight, 3, 5).unwrap().1.grid, [2, 1, 1]);
    assert_eq!(pack_codes(Bits::Four, 3, 5).unwrap().1.grid, [1, 1, 1]);
    assert_eq!(dequantize(Bits::Eight, 0, 5).unwrap().1.grid, [0, 1, 1]);
    assert_eq!(rotate(9, 64).unwrap().grid, [2, 1, 1]);
}

#[test]
fn scratch_is_bounded() {
    assert_eq!(dequantized_rows(0), 33_554_432);
    assert_eq!(dequantized_rows(32), 4096);
    assert_eq!(dequantized_rows(96), 1280);
    assert_eq!(dequantized_rows(1 << 20), 128);
}
