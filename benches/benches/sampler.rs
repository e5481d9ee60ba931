//! One sampling step: a forward pass of a canvas of masks, the choice of tokens, remasking.

use std::hint::black_box;
use std::ops::ControlFlow;

use criterion::{Criterion, Throughput};
use llada_benches::{SHAPES, forward_flops};
use llada_model::LladaModel;
use llada_sample::{Request, SampleConfig, StepEvent, sample};
use llada_tensor::Precision;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let (device, device_name) = llada_benches::device();
    let mut group = criterion.benchmark_group("sampler");
    for shape in SHAPES.iter().filter(|shape| shape.name != "8b") {
        for (precision, dtype) in [(Precision::F32, "f32"), (Precision::Bf16, "bf16")] {
            let model = LladaModel::random(shape.config(), &device, precision, 1).expect("fits");
            let config = SampleConfig {
                // The observer ends every request after its first step.
                steps: 8,
                gen_length: shape.seq_len / 2,
                temperature: 1.0,
                seed: 1,
                ..SampleConfig::default()
            };
            let prompt = |seed| {
                let ids = llada_benches::ids(shape.seq_len / 2, shape.vocab_size - 2, seed);
                ids.into_iter().map(|id| id + 2).collect()
            };
            let requests: Vec<Request> = (0..shape.batch as u64)
                .map(|seed| Request::generate(prompt(seed), config.clone()))
                .collect();
            let rows = shape.batch * config.gen_length;
            group.throughput(Throughput::Elements(forward_flops(shape, rows)));
            group.bench_function(format!("fwd/{dtype}/{}/{device_name}", shape.name), |b| {
                b.iter(|| {
                    let stop = &mut |_: &StepEvent<'_>| ControlFlow::Break(());
                    black_box(sample(&model, &requests, stop).expect("can run"))
                });
            });
        }
    }
    group.finish();
    criterion.final_summary();
}
