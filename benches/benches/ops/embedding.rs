//! The embedding of a batch of random tokens.

use llada_benches::{Shape, ids};
use llada_tensor::ops::embedding::cost;

use crate::Bench;

pub(crate) fn bench(b: &mut Bench<'_>, shape: &Shape) {
    let (t, v, d) = (shape.tokens(), shape.vocab_size, shape.d_model);
    let (mut table, ids, mut y) = (b.random(&[v, d], 1), ids(t, v, 2), b.random(&[t, d], 3));
    let device = b.device.clone();
    b.run("fwd/f32", shape, cost(t, d), || {
        device
            .backend()
            .embedding(&table, &ids, &mut y)
            .expect("fits");
    });
    // Rows of the gradient are read and written, those of the output's are read.
    let mut work = cost(t, d);
    work.flops = (t * d) as u64;
    work.bytes = 12 * work.flops;
    b.run("bwd/f32", shape, work, || {
        let backend = device.backend();
        backend
            .embedding_backward(&y, &ids, &mut table)
            .expect("fits");
    });
}
