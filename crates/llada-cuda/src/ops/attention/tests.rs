//! What no precision of the runtime asks for yet.

use llada_tensor::{CpuConfig, CpuLevel, DType, Device, Philox, Stream};

use super::*;
use crate::backend::context_of;

/// Uniform in (-1, 1).
fn values(key: u32, n: usize) -> Vec<f32> {
    let philox = Philox::new(1, Stream::Test);
    let at = |i: usize| 2.0 * philox.uniform_f32([u32::try_from(i).unwrap(), key, 0]) - 1.0;
    (0..n).map(at).collect()
}

/// Two query heads and one of keys, 70 queries; returns `y` and the log-sum-exp.
fn run(device: &Device, head_dim: usize, element: Option<Element>) -> [Vec<f32>; 2] {
    let of = |key: u32, heads: usize| {
        let shape = [70, heads * head_dim];
        Tensor::from_f32(device, &shape, &values(key, 70 * heads * head_dim)).unwrap()
    };
    let (q, k, v) = (of(1, 2), of(2, 1), of(3, 1));
    let mut y = Tensor::empty(device, DType::F32, q.shape()).unwrap();
    let mut lse = Tensor::empty(device, DType::F32, &[70, 2]).unwrap();
    let shape = AttentionShape {
        offsets: &[0, 70],
        key_offsets: None,
        n_heads: 2,
        n_kv_heads: 1,
        block_size: None,
        key_bias: None,
    };
    let args = AttentionArgs {
        q: &q,
        k: &k,
        v: &v,
        shape,
        precision: Precision::F32,
        y: &mut y,
        lse: &mut lse,
    };
    match element {
        Some(_) => forward(context_of("attention", device).unwrap(), args, element).unwrap(),
        None => device.backend().attention(args).unwrap(),
    }
    [y, lse].map(|x| x.to_vec_f32().unwrap())
}

/// A score is off by at most twice the rounding of its terms, which are below 1, a probability by
/// twice the largest such error and its own rounding.
#[test]
fn half_precision_is_off_by_its_rounding() {
    const ROUNDING: f32 = 1.0 / 2048.0;
    if !cfg!(feature = "nvcc") {
        return;
    }
    let cuda = crate::device(0).unwrap();
    let level = Some(CpuLevel::Scalar);
    let cpu = Device::cpu(CpuConfig { threads: 1, level }).unwrap();
    for head_dim in [64, 128] {
        let got = run(&cuda, head_dim, Some(Element::F16));
        let exact = run(&cpu, head_dim, None);
        #[expect(clippy::cast_precision_loss, reason = "a head dimension fits")]
        let score = ROUNDING * (head_dim as f32).sqrt();
        let bounds = [(2.0 * score + ROUNDING) * 2.0, 2.0 * score];
        for ((got, exact), bound) in got.iter().zip(&exact).zip(bounds) {
            for (got, exact) in got.iter().zip(exact) {
                let error = (got - exact).abs();
                assert!(error <= bound, "{head_dim}: {error:e} > {bound:e}");
            }
        }
    }
}
