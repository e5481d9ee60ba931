//! Attention over a batch of equal lengths.

use llada_benches::Shape;
use llada_tensor::Precision;
use llada_tensor::backend::{AttentionArgs, AttentionBackwardArgs, AttentionShape};
use llada_tensor::ops::attention::{backward_cost, cost};

use crate::Bench;

pub(crate) fn bench(b: &mut Bench<'_>, shape: &Shape) {
    let (heads, dim, offsets) = (shape.n_heads, shape.head_dim(), shape.offsets());
    let size = [shape.tokens(), shape.d_model];
    let [q, k, v, dy] = [1, 2, 3, 4].map(|seed| b.random(&size, seed));
    let (mut y, mut lse) = (b.empty(&size), b.empty(&[size[0], heads]));
    let device = b.device.clone();
    let place = AttentionShape {
        offsets: &offsets,
        key_offsets: None,
        n_heads: heads,
        n_kv_heads: heads,
        block_size: None,
    };
    let work = cost(&offsets, None, heads, heads, dim);
    let mut forward = |precision| {
        let args = AttentionArgs {
            q: &q,
            k: &k,
            v: &v,
            shape: place,
            precision,
            y: &mut y,
            lse: &mut lse,
        };
        device.backend().attention(args).expect("fits");
    };
    // A filter may leave out the benchmark, and the backward pass needs its outputs.
    forward(Precision::F32);
    b.run("fwd/f32", shape, work, || forward(Precision::F32));
    b.run("fwd/bf16", shape, work, || forward(Precision::Bf16));
    forward(Precision::F32);
    let [mut dq, mut dk, mut dv] = [(); 3].map(|()| b.empty(&size));
    let work = backward_cost(&offsets, None, heads, heads, dim);
    b.run("bwd/f32", shape, work, || {
        let args = AttentionBackwardArgs {
            q: &q,
            k: &k,
            v: &v,
            shape: place,
            precision: Precision::F32,
            y: &y,
            lse: &lse,
            dy: &dy,
            dq: &mut dq,
            dk: &mut dk,
            dv: &mut dv,
        };
        device.backend().attention_backward(args).expect("fits");
    });
}
