//! One forward pass and one training step of a small LLaDA.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use llada_benches::{SHAPES, Shape, forward_flops, ids};
use llada_diffusion::{Choice, MaskPredictor as _, Query, TokenBatch, Trainable as _};
use llada_model::LladaModel;
use llada_tensor::backend::AdamWArgs;
use llada_tensor::ops::adamw::{adamw, global_norm};
use llada_tensor::{DType, Device, Gradients, Precision, Tape, Tensor};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let (device, device_name) = llada_benches::device();
    for shape in SHAPES.iter().filter(|shape| shape.name != "8b") {
        for (precision, dtype) in [(Precision::F32, "f32"), (Precision::Bf16, "bf16")] {
            let id = format!("{dtype}/{}/{device_name}", shape.name);
            bench(&mut criterion, &id, shape, &device, precision);
        }
    }
    criterion.final_summary();
}

fn bench(c: &mut Criterion, id: &str, shape: &Shape, device: &Device, precision: Precision) {
    let mut group = c.benchmark_group("model");
    let mut model = LladaModel::random(shape.config(), device, precision, 1).expect("fits");
    // Every second token is a mask, as with an average masking ratio.
    let mut tokens = ids(shape.tokens(), shape.vocab_size, 2);
    let positions: Vec<usize> = (0..tokens.len()).step_by(2).collect();
    let targets: Vec<u32> = positions.iter().map(|&at| tokens[at]).collect();
    for &at in &positions {
        tokens[at] = 0;
    }
    let sequences: Vec<&[u32]> = tokens.chunks(shape.seq_len).collect();
    let batch = TokenBatch::new(&sequences).expect("not empty");
    let flops = forward_flops(shape, positions.len());

    group.throughput(Throughput::Elements(flops));
    group.bench_function(format!("fwd/{id}"), |b| {
        b.iter(|| {
            let query = Query::new(&batch, &positions);
            black_box(model.candidates(query, &Choice::GREEDY))
        });
    });

    let mut state = State::new(&model, device);
    let weights = vec![1.0 / targets.len() as f32; targets.len()];
    group.throughput(Throughput::Elements(3 * flops));
    group.bench_function(format!("bwd/{id}"), |b| {
        b.iter(|| {
            let mut tape = Tape::recording(device, precision);
            let loss = model
                .weighted_cross_entropy(&mut tape, &batch, &positions, &targets, &weights)
                .expect("fits");
            state.gradients.zero().expect("not shared");
            tape.backward(&loss, &mut state.gradients).expect("a loss");
            state.update(&mut model);
        });
    });
    group.finish();
}

/// Gradients and moments of AdamW.
struct State {
    gradients: Gradients,
    first: Vec<Tensor>,
    second: Vec<Tensor>,
    step: u64,
}

impl State {
    fn new(model: &LladaModel, device: &Device) -> Self {
        let values = || model.parameters().iter().map(|p| &p.value);
        let zeros = || {
            let zeros = |value: &Tensor| {
                Tensor::zeros(device, DType::F32, value.shape()).expect("host memory")
            };
            values().map(zeros).collect()
        };
        Self {
            gradients: Gradients::zeros_like(values()).expect("host memory"),
            first: zeros(),
            second: zeros(),
            step: 0,
        }
    }

    /// Clips to a norm of one and updates every parameter.
    fn update(&mut self, model: &mut LladaModel) {
        self.step += 1;
        let norm = global_norm(self.gradients.tensors()).expect("contiguous");
        for (i, parameter) in model.parameters_mut().iter_mut().enumerate() {
            adamw(AdamWArgs {
                parameter: &mut parameter.value,
                gradient: &self.gradients.tensors()[i],
                first_moment: &mut self.first[i],
                second_moment: &mut self.second[i],
                learning_rate: 1e-4,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.1,
                gradient_scale: (1.0 / norm).min(1.0) as f32,
                step: self.step,
            })
            .expect("fits");
        }
    }
}
