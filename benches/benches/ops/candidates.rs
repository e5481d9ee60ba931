//! The choice of a token for a block of 32 positions, with Gumbel noise.

use llada_benches::Shape;
use llada_tensor::Precision;
use llada_tensor::backend::{CandidateArgs, Noise, Rhs};
use llada_tensor::ops::candidates::{CandidateRule, candidates, cost};
use llada_tensor::ops::matmul::pack;

use crate::Bench;

const ROWS: usize = 32;

pub(crate) fn bench(b: &mut Bench<'_>, shape: &Shape) {
    let (v, d) = (shape.vocab_size, shape.d_model);
    let (hidden, head) = (b.random(&[ROWS, d], 1), b.random(&[v, d], 2));
    let keys: Vec<[u32; 3]> = (0..ROWS as u32).map(|i| [0, i, 0]).collect();
    let noise = Noise::Philox {
        seeds: &[1; ROWS],
        keys: &keys,
    };
    let rule = CandidateRule {
        temperature: 1.0,
        ..CandidateRule::default()
    };
    for (precision, name, bytes) in [
        (Precision::F32, "fwd/f32", 4),
        (Precision::Bf16, "fwd/bf16", 2),
    ] {
        let packed = pack(&head, precision).expect("a matrix");
        b.run(name, shape, cost(ROWS, v, d, bytes), || {
            let args = CandidateArgs {
                hidden: &hidden,
                unconditional: None,
                head: Rhs::Packed(&packed),
                bias: None,
                rule: &rule,
                noise: &noise,
                precision,
            };
            std::hint::black_box(candidates(args).expect("fits"));
        });
    }
}
