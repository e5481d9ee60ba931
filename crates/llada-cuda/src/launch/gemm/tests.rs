//! Plans of products.

use super::{cast_rows, cast_tile, gemm, scale_columns};
use llada_tensor::DType;

#[track_caller]
fn check(dtype: DType, [m, n, batch]: [usize; 3], entry: &str, grid: [u32; 3]) {
    let (got, plan) = gemm(dtype, m, n, batch).unwrap();
    assert_eq!((got, plan.grid), (entry, grid));
}

#[test]
fn tiles_cover_the_output() {
    check(DType::F32, [1, 1, 1], "llada_gemm_fwd_f32", [1, 1, 1]);
    check(DType::F32, [129, 65, 3], "llada_gemm_fwd_f32", [4, 1, 3]);
    check(DType::F32, [0, 65, 3], "llada_gemm_fwd_f32", [0, 1, 3]);
}

#[test]
fn small_products_take_small_tiles() {
    let (small, large) = ("llada_gemm_small_fwd_bf16", "llada_gemm_fwd_bf16");
    check(DType::Bf16, [65, 64, 1], small, [2, 1, 1]);
    check(DType::Bf16, [1024, 4096, 1], large, [256, 1, 1]);
    check(DType::Bf16, [128, 128, 200], large, [1, 1, 200]);
}

#[test]
fn what_does_not_fit_a_launch_is_an_error() {
    assert!(gemm(DType::F32, usize::MAX, usize::MAX, 1).is_err());
    assert!(gemm(DType::F32, 1, 1, 65_536).is_err());
    assert!(cast_tile(1, 8, 65_536).is_err());
}

#[test]
fn loops_have_a_bounded_grid() {
    assert_eq!(cast_rows(8 * 256 + 8).unwrap().grid, [2, 1, 1]);
    assert_eq!(cast_rows(1 << 40).unwrap().grid, [8192, 1, 1]);
    assert_eq!(scale_columns(257).unwrap().grid, [2, 1, 1]);
    assert_eq!(cast_tile(33, 40, 7).unwrap().grid, [4, 1, 7]);
}
