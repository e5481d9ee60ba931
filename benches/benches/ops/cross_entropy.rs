//! The loss of half of the batch's tokens, as with an average masking ratio.

use llada_benches::{Shape, ids};
use llada_tensor::Precision;
use llada_tensor::backend::{CrossEntropyBackwardArgs, Rhs};
use llada_tensor::ops::cross_entropy::{backward_cost, cost, cross_entropy};

use crate::Bench;

pub(crate) fn bench(b: &mut Bench<'_>, shape: &Shape) {
    let (n, v, d) = (shape.tokens() / 2, shape.vocab_size, shape.d_model);
    let (hidden, head) = (b.random(&[n, d], 1), b.random(&[v, d], 2));
    let (targets, dlosses) = (ids(n, v, 3), vec![1.0 / n as f32; n]);
    let (mut dhidden, mut dhead) = (b.empty(&[n, d]), b.random(&[v, d], 4));
    let device = b.device.clone();
    for (precision, dtype) in [(Precision::F32, "f32"), (Precision::Bf16, "bf16")] {
        let forward =
            || cross_entropy(&hidden, Rhs::Weight(&head), None, &targets, precision).expect("fits");
        let (_, lse) = forward();
        b.run(&format!("fwd/{dtype}"), shape, cost(n, v, d), || {
            std::hint::black_box(forward());
        });
        b.run(
            &format!("bwd/{dtype}"),
            shape,
            backward_cost(n, v, d),
            || {
                let args = CrossEntropyBackwardArgs {
                    hidden: &hidden,
                    head: &head,
                    bias: None,
                    targets: &targets,
                    dlosses: &dlosses,
                    lse: &lse,
                    precision,
                    dhidden: &mut dhidden,
                    dhead: Some(&mut dhead),
                    dbias: None,
                };
                device.backend().cross_entropy_backward(args).expect("fits");
            },
        );
    }
}
