//! The products of a feed-forward layer: with a weight as it is, with a packed one, and the
//! gradient of the weight.

use llada_benches::Shape;
use llada_tensor::Precision;
use llada_tensor::backend::{MatmulArgs, Rhs};
use llada_tensor::ops::matmul::{cost, matmul, pack};

use crate::Bench;

pub(crate) fn bench(b: &mut Bench<'_>, shape: &Shape) {
    let (t, n, k) = (shape.tokens(), shape.mlp_hidden_size, shape.d_model);
    let (x, w, dy) = (
        b.random(&[t, k], 1),
        b.random(&[n, k], 2),
        b.random(&[t, n], 3),
    );
    let dy_t = dy.transpose(0, 1).expect("two axes");
    let (mut y, mut dw) = (b.empty(&[t, n]), b.random(&[n, k], 4));
    let precisions = [
        Precision::F32,
        Precision::Bf16,
        Precision::Int8,
        Precision::Int4,
    ];
    for precision in precisions {
        let dtype = precision.name();
        let packed = pack(&w, precision).expect("a matrix");
        // Operands are f32 in memory, whatever the precision of the products.
        let work = cost(1, t, n, k, 4);
        for (name, rhs) in [
            ("fwd", Rhs::Weight(&w)),
            ("fwd-packed", Rhs::Packed(&packed)),
        ] {
            if precision.is_integer() && !matches!(rhs, Rhs::Packed(_)) {
                continue;
            }
            b.run(&format!("{name}/{dtype}"), shape, work, || {
                let args = MatmulArgs {
                    a: &x,
                    b: rhs,
                    c: &mut y,
                    accumulate: false,
                    precision,
                };
                matmul(args).expect("fits");
            });
        }
        if precision.is_integer() {
            continue;
        }
        b.run(&format!("bwd/{dtype}"), shape, work, || {
            let args = MatmulArgs {
                a: &dy_t,
                b: Rhs::Matrix(&x),
                c: &mut dw,
                accumulate: true,
                precision,
            };
            matmul(args).expect("fits");
        });
    }
}
