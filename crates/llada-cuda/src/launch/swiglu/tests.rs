//! Tests of the plan.

use super::*;

#[test]
fn a_thread_writes_128_bits() {
    assert_eq!(swiglu(2048, DType::F32).unwrap().grid, [2, 1, 1]);
    assert_eq!(swiglu(2048, DType::Bf16).unwrap().grid, [1, 1, 1]);
}
