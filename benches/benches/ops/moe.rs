//! The experts of the published mixtures, with one block of tokens and with many.
//!
//! Their weights take seconds to draw: only with the shape `8b`, a model of which they are as large
//! a part. Other shapes have experts of a quarter of their feed-forward layer.

use std::ops::Range;

use llada_benches::Shape;
use llada_tensor::layers::Weight;
use llada_tensor::ops::moe::{Router, RouterRule, experts_cost, pack_experts};
use llada_tensor::{Precision, Tape, Var};

use crate::Bench;

/// A mixture, and how many tokens it gets.
struct Mixture {
    name: &'static str,
    n_experts: usize,
    k: usize,
    d: usize,
    f: usize,
    tokens: &'static [usize],
}

const PUBLISHED: [Mixture; 2] = [
    Mixture {
        name: "llada2-mini",
        n_experts: 256,
        k: 8,
        d: 2048,
        f: 512,
        tokens: &[32, 1024],
    },
    Mixture {
        name: "llada-moe",
        n_experts: 64,
        k: 8,
        d: 2048,
        f: 1024,
        tokens: &[32, 256],
    },
];

pub(crate) fn bench(b: &mut Bench<'_>, shape: &Shape) {
    if shape.name == "8b" {
        for mixture in &PUBLISHED {
            run(b, shape, mixture);
        }
        return;
    }
    let mixture = Mixture {
        name: shape.name,
        n_experts: 8,
        k: 2,
        d: shape.d_model,
        f: shape.mlp_hidden_size / 4,
        tokens: &[32, 256],
    };
    run(b, shape, &mixture);
}

fn run(b: &mut Bench<'_>, shape: &Shape, mixture: &Mixture) {
    let &Mixture {
        n_experts, k, d, f, ..
    } = mixture;
    let rule = RouterRule::Softmax;
    let router = Router { n_experts, k, rule };
    for precision in [
        Precision::F32,
        Precision::Bf16,
        Precision::Int8,
        Precision::Int4,
    ] {
        let pack = |[n, k]: [usize; 2], seed: u32| {
            let fill = |rows: Range<usize>, out: &mut [f32]| {
                // Philox would take a minute: an expert has a hundred thousand rows.
                let mut state = (rows.start as u32).wrapping_mul(2_654_435_761) ^ seed | 1;
                for x in out {
                    state ^= state << 13;
                    state ^= state >> 17;
                    state ^= state << 5;
                    *x = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
                }
            };
            pack_experts(&b.device, [n_experts, n, k], precision, &fill).expect("host memory")
        };
        let packed = [pack([f, d], 1), pack([f, d], 2), pack([d, f], 3)];
        let weights = packed.each_ref().map(Weight::Packed);
        for &tokens in mixture.tokens {
            let mut tape = Tape::inference(&b.device, precision);
            let x = Var::constant(b.random(&[tokens, d], 4));
            let logits = Var::constant(b.random(&[tokens, n_experts], 5));
            let routes = tape.route(&logits, None, &router, &[]).expect("fits");
            let ids = routes.ids().expect("on the host");
            let n_read = (0..n_experts as u32).filter(|e| ids.contains(e)).count();
            let bytes: usize = packed.iter().map(|w| w.bytes()).sum();
            let cost = experts_cost([tokens, k], [d, f], bytes / n_experts * n_read);
            let kind = format!("fwd/{}/{tokens}", precision.name());
            let name = mixture.name;
            b.run(&kind, &Shape { name, ..*shape }, cost, || {
                let y = tape.experts(&x, &routes, weights.each_ref());
                y.expect("fits");
            });
        }
    }
}
