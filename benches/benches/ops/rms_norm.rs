//! Root-mean-square normalization.

use llada_benches::Shape;
use llada_tensor::backend::{RmsNormArgs, RmsNormBackwardArgs};
use llada_tensor::ops::rms_norm::{backward_cost, cost};

use crate::Bench;

pub(crate) fn bench(b: &mut Bench<'_>, shape: &Shape) {
    let [t, d] = [shape.tokens(), shape.d_model];
    let (x, weight, dy) = (
        b.random(&[t, d], 1),
        b.random(&[d], 2),
        b.random(&[t, d], 3),
    );
    let (mut y, mut rstd) = (b.empty(&[t, d]), b.empty(&[t]));
    let device = b.device.clone();
    let mut forward = || {
        let args = RmsNormArgs {
            x: &x,
            weight: &weight,
            eps: 1e-5,
            y: &mut y,
            rstd: &mut rstd,
        };
        device.backend().rms_norm(args).expect("fits");
    };
    // A filter may leave out the benchmark, and the backward pass needs its output.
    forward();
    b.run("fwd/f32", shape, cost(t, d), forward);
    let (mut dx, mut dweight) = (b.empty(&[t, d]), b.random(&[d], 4));
    b.run("bwd/f32", shape, backward_cost(t, d), || {
        let args = RmsNormBackwardArgs {
            x: &x,
            weight: &weight,
            rstd: &rstd,
            dy: &dy,
            dx: &mut dx,
            dweight: &mut dweight,
        };
        device.backend().rms_norm_backward(args).expect("fits");
    });
}
