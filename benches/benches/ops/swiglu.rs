//! SwiGLU activation.

use llada_benches::Shape;
use llada_tensor::backend::{SwigluArgs, SwigluBackwardArgs};
use llada_tensor::ops::swiglu::{backward_cost, cost};

use crate::Bench;

pub(crate) fn bench(b: &mut Bench<'_>, shape: &Shape) {
    let size = [shape.tokens(), shape.mlp_hidden_size];
    let numel = size[0] * size[1];
    let [gate, up, dy] = [1, 2, 3].map(|seed| b.random(&size, seed));
    let mut y = b.empty(&size);
    let device = b.device.clone();
    b.run("fwd/f32", shape, cost(numel), || {
        let args = SwigluArgs {
            gate: &gate,
            up: &up,
            y: &mut y,
        };
        device.backend().swiglu(args).expect("fits");
    });
    let [mut dgate, mut dup] = [(); 2].map(|()| b.empty(&size));
    b.run("bwd/f32", shape, backward_cost(numel), || {
        let args = SwigluBackwardArgs {
            gate: &gate,
            up: &up,
            dy: &dy,
            dgate: &mut dgate,
            dup: &mut dup,
        };
        device.backend().swiglu_backward(args).expect("fits");
    });
}
