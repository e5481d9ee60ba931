//! Tests of the plans.

use super::*;

#[test]
fn there_are_tiles_for_every_way_in_which_rows_can_lie() {
    // 32 tokens with 8 of 256 experts: each row can have an expert of its own.
    assert_eq!(most_tiles(256, 256, 64), 260);
    // Of two experts, one row of the one and all others of the other.
    for pairs in 0..300_usize {
        for first in 0..=pairs {
            let tiles = first.div_ceil(64) + (pairs - first).div_ceil(64);
            assert!(tiles <= most_tiles(pairs, 2, 64), "{first} of {pairs}");
        }
    }
}

#[test]
fn a_choice_has_16_bytes_for_each_expert() {
    let plan = route(3, 256).unwrap();
    assert_eq!((plan.grid, plan.shared_bytes), ([3, 1, 1], 4096));
    assert!(route(1, 6336).is_ok());
    assert!(route(1, 6337).is_err());
}

#[test]
fn columns_of_a_product_lie_along_x() {
    let (_, plan) = gemm(DType::F32, 65, 7).unwrap();
    assert_eq!((plan.grid, plan.block), ([2, 7, 1], 128));
    let (_, plan) = gemm(DType::Bf16, 512, 260).unwrap();
    assert_eq!((plan.grid, plan.block), ([8, 260, 1], 128));
    let (_, plan) = quantized(Bits::Four, 512, 260).unwrap();
    assert_eq!((plan.grid, plan.block), ([16, 260, 1], 256));
    let (_, plan) = gradient(DType::Bf16, [64, 129, 65]).unwrap();
    assert_eq!(plan.grid, [4, 1, 64]);
}
