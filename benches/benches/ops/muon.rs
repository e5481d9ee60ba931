//! One update of a feed-forward matrix.

use llada_benches::Shape;
use llada_tensor::Precision;
use llada_tensor::ops::muon::{MuonArgs, cost, muon};

use crate::Bench;

pub(crate) fn bench(b: &mut Bench<'_>, shape: &Shape) {
    let (n, k) = (shape.mlp_hidden_size, shape.d_model);
    let [mut parameter, gradient, mut momentum] = [1, 2, 3].map(|seed| b.random(&[n, k], seed));
    for (precision, dtype) in [(Precision::F32, "f32"), (Precision::Bf16, "bf16")] {
        b.run(&format!("fwd/{dtype}"), shape, cost(n, k), || {
            muon(MuonArgs {
                parameter: &mut parameter,
                gradient: &gradient,
                momentum: &mut momentum,
                learning_rate: 1e-4,
                beta: 0.95,
                weight_decay: 0.1,
                gradient_scale: 1.0,
                precision,
            })
            .expect("fits");
        });
    }
}
