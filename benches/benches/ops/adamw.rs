//! One update of a feed-forward matrix.

use llada_benches::Shape;
use llada_tensor::backend::AdamWArgs;
use llada_tensor::ops::adamw::{adamw, cost};

use crate::Bench;

pub(crate) fn bench(b: &mut Bench<'_>, shape: &Shape) {
    let n = shape.d_model * shape.mlp_hidden_size;
    let [mut parameter, gradient, mut first, mut second] =
        [1, 2, 3, 4].map(|seed| b.random(&[n], seed));
    // A second moment is never negative.
    for x in second.f32s_mut().expect("contiguous") {
        *x *= *x;
    }
    b.run("fwd/f32", shape, cost(n), || {
        adamw(AdamWArgs {
            parameter: &mut parameter,
            gradient: &gradient,
            first_moment: &mut first,
            second_moment: &mut second,
            learning_rate: 1e-4,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            gradient_scale: 1.0,
            step: 100,
        })
        .expect("fits");
    });
}
