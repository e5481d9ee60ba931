//! Hand-computed bounds.

use super::{LENGTHS, OPS, attention};
use crate::kernels::gpu::Gpu;

#[test]
fn long_attention_is_bound_by_compute_and_a_cached_block_by_memory() {
    let a100 = Gpu::of("80").unwrap();
    // 4 * 4096 * 4096^2 = 275 GFLOP at 312 TFLOP/s.
    let whole = attention(4096.0, 4096.0).bound(a100);
    assert!(!whole.is_memory);
    assert!((whole.microseconds - 881.0).abs() < 1.0, "{whole:?}");
    let block = attention(32.0, 4096.0).bound(a100);
    assert!(block.is_memory);
    assert!((block.microseconds - 66.3).abs() < 0.5, "{block:?}");
}

#[test]
fn no_bound_falls_with_the_length() {
    let h100 = Gpu::of("90a").unwrap();
    for (name, work) in OPS {
        let times: Vec<f64> = LENGTHS
            .iter()
            .map(|&length| work(f64::from(length)).bound(h100).microseconds)
            .collect();
        assert!(times.is_sorted(), "{name}: {times:?}");
    }
}
