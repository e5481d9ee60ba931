//! The choice of a token per row against the CPU's.

use llada_tensor::backend::{CandidateArgs, Rhs};
use llada_tensor::ops::candidates::{
    Candidate, CandidateRule, Noise, candidates, guide, reduce_logits,
};
use llada_tensor::{Device, Philox, Precision, Stream, Tensor};

use crate::support::{cpu, cuda, product, values};

/// Hidden states with and without a condition, and a head.
struct Inputs {
    rows: usize,
    vocab_size: usize,
    d: usize,
    hidden: Vec<f32>,
    unconditional: Vec<f32>,
    head: Vec<f32>,
    bias: Vec<f32>,
}

impl Inputs {
    fn new([rows, vocab_size, d]: [usize; 3]) -> Self {
        Self {
            rows,
            vocab_size,
            d,
            hidden: values(1, rows * d),
            unconditional: values(2, rows * d),
            head: values(3, vocab_size * d),
            bias: values(4, vocab_size),
        }
    }

    /// One row alone.
    fn only(&self, row: usize) -> Self {
        let of = |states: &[f32]| states[row * self.d..(row + 1) * self.d].to_vec();
        Self {
            rows: 1,
            hidden: of(&self.hidden),
            unconditional: of(&self.unconditional),
            head: self.head.clone(),
            bias: self.bias.clone(),
            ..*self
        }
    }

    /// Calls `with` with the arguments on a device.
    fn with<T>(
        &self,
        device: &Device,
        (rule, noise): (&CandidateRule<'_>, &Noise<'_>),
        precision: Precision,
        with: impl FnOnce(CandidateArgs<'_>) -> T,
    ) -> T {
        let of = |shape: &[usize], values: &[f32]| Tensor::from_f32(device, shape, values).unwrap();
        let states = [self.rows, self.d];
        let unconditional = of(&states, &self.unconditional);
        with(CandidateArgs {
            hidden: &of(&states, &self.hidden),
            unconditional: (rule.cfg_scale > 0.0).then_some(&unconditional),
            head: Rhs::Weight(&of(&[self.vocab_size, self.d], &self.head)),
            bias: Some(&of(&[self.vocab_size], &self.bias)),
            rule,
            noise,
            precision,
        })
    }

    fn run(
        &self,
        device: &Device,
        how: (&CandidateRule<'_>, &Noise<'_>),
        precision: Precision,
    ) -> Vec<Candidate> {
        self.with(device, how, precision, |args| candidates(args).unwrap())
    }
}

/// Bits of the numbers, which NaN does not hide from.
fn bits(candidates: &[Candidate]) -> Vec<[u32; 4]> {
    let words = |c: &Candidate| {
        let [confidence, margin, entropy] = [c.confidence, c.margin, c.entropy].map(f32::to_bits);
        [c.token, confidence, margin, entropy]
    };
    candidates.iter().map(words).collect()
}

/// The same tokens, and numbers that differ by what two roundings of the logits do to them: a
/// logit is a sum of `D` products of at most one in `f32`, three of which make a guided one.
#[track_caller]
fn check(shape: [usize; 3], rule: &CandidateRule<'_>) {
    let Some(device) = cuda() else { return };
    let (cpu, inputs) = (cpu(), Inputs::new(shape));
    let [rows, vocab_size, d] = shape;
    let seeds: Vec<u64> = (0..rows as u64).map(|i| i << 40 | 7).collect();
    let keys: Vec<[u32; 3]> = (0..rows as u32).map(|i| [i, 3 * i, 5]).collect();
    let rng = Philox::new(7, Stream::Test);
    let draws: Vec<f64> = (0..(rows * vocab_size) as u32)
        .map(|i| rng.uniform_f64([i, 0, 0]))
        .collect();
    let (seeds, keys) = (&seeds[..], &keys[..]);
    let noises: &[Noise<'_>] = match rule.temperature > 0.0 {
        true => &[Noise::Philox { seeds, keys }, Noise::Recorded(&draws)],
        false => &[Noise::None],
    };
    let bound = 3.0 * (d as f32 + 8.0) * f32::EPSILON * 8.0;
    for (noise, precision) in noises
        .iter()
        .flat_map(|noise| [Precision::F32, Precision::Bf16].map(|precision| (noise, precision)))
    {
        let got = inputs.run(&device, (rule, noise), precision);
        let expected = inputs.run(&cpu, (rule, noise), precision);
        assert_eq!(got.len(), rows);
        for (row, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let what = format!("{shape:?} {rule:?} {precision:?} row {row}");
            assert_eq!(got.token, expected.token, "{what}");
            let numbers = |c: &Candidate| [c.confidence, c.margin, c.entropy];
            for (got, expected) in numbers(got).into_iter().zip(numbers(expected)) {
                assert!((got - expected).abs() <= bound, "{what}: {got} {expected}");
            }
        }
    }
}

#[test]
fn candidates_are_those_of_the_cpu() {
    let plain = CandidateRule::default();
    check([0, 5, 8], &plain);
    check([1, 1, 24], &plain);
    check([5, 300, 64], &plain);
    check([17, 129, 200], &plain);
    check([33, 128, 72], &plain);
    // More rows than the largest tile has.
    check([130, 40, 16], &plain);
    // Rows that do not start at 16 bytes.
    check([3, 130, 7], &plain);
}

#[test]
fn noise_guidance_and_hidden_ids_are_those_of_the_cpu() {
    let plain = CandidateRule::default();
    let noisy = CandidateRule {
        temperature: 0.8,
        ..plain
    };
    check([20, 301, 40], &noisy);
    let guided = CandidateRule {
        cfg_scale: 1.5,
        ..plain
    };
    check([9, 150, 40], &guided);
    let all = CandidateRule {
        temperature: 1.0,
        cfg_scale: 0.5,
        suppress: &[0, 7, 149],
        suppress_confidence: &[1, 2, 148],
    };
    check([9, 150, 40], &all);
    check([70, 150, 33], &all);
}

/// Heads in the device's own layout: values, and integers, whose logits are products of their own,
/// against the reduction of the device's own products.
#[test]
fn candidates_of_packed_heads_are_those_of_their_products() {
    let Some(device) = cuda() else { return };
    let inputs = Inputs::new([19, 300, 64]);
    let rule = CandidateRule {
        temperature: 0.7,
        cfg_scale: 1.0,
        suppress: &[3],
        suppress_confidence: &[5],
    };
    let (seeds, keys) = (&[7; 19], &[[1, 2, 3]; 19]);
    let noise = Noise::Philox { seeds, keys };
    for precision in [
        Precision::F32,
        Precision::Bf16,
        Precision::Int8,
        Precision::Int4,
    ] {
        let fill = |rows: std::ops::Range<usize>, out: &mut [f32]| {
            out.copy_from_slice(&inputs.head[rows.start * 64..rows.end * 64]);
        };
        let head = device.backend().pack([300, 64], precision, &fill).unwrap();
        let head = Rhs::Packed(&head);
        let logits = |states: &[f32]| {
            let a = Tensor::from_f32(&device, &[19, 64], states).unwrap();
            let mut logits = product(&a, head, precision);
            for row in logits.chunks_exact_mut(300) {
                row.iter_mut().zip(&inputs.bias).for_each(|(x, b)| *x += b);
            }
            logits
        };
        let (cond, un) = (logits(&inputs.hidden), logits(&inputs.unconditional));
        let guided = |(&cond, &un): (&f32, &f32)| guide(1.0, cond, un);
        let logits: Vec<f32> = cond.iter().zip(&un).map(guided).collect();

        let run = |args: CandidateArgs<'_>| candidates(CandidateArgs { head, ..args }).unwrap();
        let got = inputs.with(&device, (&rule, &noise), precision, run);
        // The guided logits may differ by the roundings of two sums of 64 products.
        let bound = 3.0 * 72.0 * f32::EPSILON * 8.0;
        for (row, (got, logits)) in got.iter().zip(logits.chunks_exact(300)).enumerate() {
            let expected = reduce_logits(logits, row, &rule, &noise);
            assert_eq!(got.token, expected.token, "{precision:?}");
            let numbers = |c: &Candidate| [c.confidence, c.margin, c.entropy];
            for (got, expected) in numbers(got).into_iter().zip(numbers(&expected)) {
                assert!(
                    (got - expected).abs() <= bound,
                    "{precision:?}: {got} {expected}"
                );
            }
        }
    }
}

/// With a head that is multiplied in several parts, whose borders change nothing.
#[test]
fn a_large_vocabulary_is_read_in_parts() {
    check([2, 8192 + 130, 8], &CandidateRule::default());
}

#[test]
fn a_row_does_not_depend_on_the_other_rows() {
    let Some(device) = cuda() else { return };
    let inputs = Inputs::new([70, 300, 72]);
    let rule = CandidateRule {
        temperature: 1.0,
        cfg_scale: 0.5,
        ..CandidateRule::default()
    };
    let keys: Vec<[u32; 3]> = (0..70).map(|i| [i, 3 * i, 5]).collect();
    let seeds: Vec<u64> = (0..70).collect();
    let noise = |rows: std::ops::Range<usize>| Noise::Philox {
        seeds: &seeds[rows.clone()],
        keys: &keys[rows],
    };
    for precision in [Precision::F32, Precision::Bf16] {
        let all = inputs.run(&device, (&rule, &noise(0..70)), precision);
        assert_eq!(
            bits(&all),
            bits(&inputs.run(&device, (&rule, &noise(0..70)), precision)),
            "twice"
        );
        for row in [0, 33, 69] {
            let one = inputs
                .only(row)
                .run(&device, (&rule, &noise(row..row + 1)), precision);
            assert_eq!(bits(&one), bits(&all[row..=row]), "{precision:?} row {row}");
        }
    }
}

/// Entries that repeat every 50 have equal logits, in one lane, one tile and in others.
#[test]
fn the_first_of_equals_is_chosen() {
    let Some(device) = cuda() else { return };
    let mut inputs = Inputs::new([40, 300, 16]);
    inputs.head = inputs.head[..50 * 16].repeat(6);
    inputs.bias = inputs.bias[..50].repeat(6);
    let draws = vec![0.5; 40 * 300];
    for (temperature, noise) in [(0.0, Noise::None), (1.0, Noise::Recorded(&draws))] {
        let rule = CandidateRule {
            temperature,
            ..CandidateRule::default()
        };
        for precision in [Precision::F32, Precision::Bf16] {
            let got = inputs.run(&device, (&rule, &noise), precision);
            assert!(got.iter().all(|c| c.token < 50), "{got:?}");
            // Two equal probabilities are the largest.
            assert!(got.iter().all(|c| c.margin == 0.0), "{got:?}");
        }
    }
}

#[test]
fn nothing_to_choose_from_is_nan() {
    let Some(device) = cuda() else { return };
    let mut inputs = Inputs::new([2, 200, 8]);
    let all: Vec<u32> = (0..200).collect();
    let rule = CandidateRule {
        suppress: &all,
        ..CandidateRule::default()
    };
    let how = (&rule, &Noise::None);
    for candidate in inputs.run(&device, how, Precision::F32) {
        assert_eq!(candidate.token, 0);
        assert!(candidate.confidence.is_nan() && candidate.margin.is_nan());
    }
    inputs.bias[150] = f32::NAN;
    for temperature in [0.0, 1.0] {
        let rule = CandidateRule {
            temperature,
            ..CandidateRule::default()
        };
        let (seeds, keys) = (&[1, 2], &[[0; 3]; 2]);
        let how = (&rule, &Noise::Philox { seeds, keys });
        for candidate in inputs.run(&device, how, Precision::F32) {
            assert!(candidate.confidence.is_nan() && candidate.entropy.is_nan());
            assert_ne!(candidate.token, 150);
        }
    }
}
