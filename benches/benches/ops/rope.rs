//! Rotary position embedding of the queries.

use llada_benches::Shape;
use llada_tensor::backend::RopeArgs;
use llada_tensor::ops::rope::{RopeTable, cost};

use crate::Bench;

pub(crate) fn bench(b: &mut Bench<'_>, shape: &Shape) {
    let [t, d] = [shape.tokens(), shape.d_model];
    let (x, mut y) = (b.random(&[t, d], 1), b.empty(&[t, d]));
    let device = b.device.clone();
    let table = RopeTable::new(&device, shape.seq_len, shape.head_dim(), 10_000.0).expect("even");
    let positions: Vec<u32> = (0..t).map(|i| (i % shape.seq_len) as u32).collect();
    for (kind, inverse) in [("fwd/f32", false), ("bwd/f32", true)] {
        b.run(kind, shape, cost(t, d), || {
            let args = RopeArgs {
                x: &x,
                table: &table,
                positions: &positions,
                inverse,
                y: &mut y,
            };
            device.backend().rope(args).expect("fits");
        });
    }
}
