//! A residual connection, and the gradient of a bias.

use llada_benches::Shape;
use llada_tensor::ops::Cost;
use llada_tensor::ops::add::cost;

use crate::Bench;

pub(crate) fn bench(b: &mut Bench<'_>, shape: &Shape) {
    let [t, d] = [shape.tokens(), shape.d_model];
    let (x, z, mut y) = (b.random(&[t, d], 1), b.random(&[t, d], 2), b.empty(&[t, d]));
    let device = b.device.clone();
    b.run("fwd/f32", shape, cost(t * d), || {
        device.backend().add(&x, &z, &mut y).expect("fits");
    });
    let mut sum = b.random(&[d], 3);
    let numel = (t * d) as u64;
    let cost = Cost {
        flops: numel,
        bytes: 4 * numel,
    };
    b.run("bwd/f32", shape, cost, || {
        device.backend().column_sum(&x, &mut sum).expect("fits");
    });
}
