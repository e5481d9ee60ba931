//! Attention in f16, which no precision of the runtime asks for, and gradients in bf16.

use std::num::NonZeroUsize;

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

/// Seventy queries of three query heads and one of keys, behind a sequence of nine; returns `dq`,
/// `dk` and `dv`.
fn gradient(
    device: &Device,
    head_dim: usize,
    block_size: Option<NonZeroUsize>,
    precision: Precision,
) -> [Vec<f32>; 3] {
    let of = |key: u32, heads: usize| {
        let shape = [79, heads * head_dim];
        Tensor::from_f32(device, &shape, &values(key, 79 * heads * head_dim)).unwrap()
    };
    let (q, k, v, dy) = (of(1, 3), of(2, 1), of(3, 1), of(4, 3));
    let empty = |shape: &[usize]| Tensor::empty(device, DType::F32, shape).unwrap();
    let (mut y, mut lse) = (empty(q.shape()), empty(&[79, 3]));
    let shape = AttentionShape {
        offsets: &[0, 9, 9, 79],
        key_offsets: None,
        n_heads: 3,
        n_kv_heads: 1,
        block_size,
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
    device.backend().attention(args).unwrap();
    let (mut dq, mut dk, mut dv) = (empty(q.shape()), empty(k.shape()), empty(k.shape()));
    let args = AttentionBackwardArgs {
        q: &q,
        k: &k,
        v: &v,
        shape,
        precision,
        y: &y,
        lse: &lse,
        dy: &dy,
        dq: &mut dq,
        dk: &mut dk,
        dv: &mut dv,
    };
    device.backend().attention_backward(args).unwrap();
    [dq, dk, dv].map(|x| x.to_vec_f32().unwrap())
}

/// Five roundings stand between an input and a gradient: of two operands for each of two products,
/// and of what is multiplied in the third. In the norm of a whole gradient each costs at most a
/// unit of bf16.
#[test]
fn a_gradient_in_bf16_is_off_by_its_roundings() {
    const ROUNDING: f64 = 1.0 / 256.0;
    if !cfg!(feature = "nvcc") {
        return;
    }
    let cuda = crate::device(0).unwrap();
    let level = Some(CpuLevel::Scalar);
    let cpu = Device::cpu(CpuConfig { threads: 1, level }).unwrap();
    let cases = [
        (64, None),
        (64, NonZeroUsize::new(1)),
        (64, NonZeroUsize::new(20)),
        (128, None),
        (128, NonZeroUsize::new(7)),
    ];
    for (head_dim, block_size) in cases {
        let run = |device, precision| gradient(device, head_dim, block_size, precision);
        let (got, exact) = (run(&cuda, Precision::Bf16), run(&cpu, Precision::F32));
        for (i, (got, exact)) in got.iter().zip(&exact).enumerate() {
            let norm = |x: &mut dyn Iterator<Item = f32>| {
                x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
            };
            let error = norm(&mut got.iter().zip(exact).map(|(x, y)| x - y));
            let bound = 5.0 * ROUNDING * norm(&mut exact.iter().copied());
            let case = (head_dim, block_size);
            assert!(error <= bound, "{case:?} output {i}: {error:e} > {bound:e}");
        }
    }
}
