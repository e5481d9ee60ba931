//! Ops of `llada-tensor`, one module per op.

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use llada_benches::{SHAPES, Shape};
use llada_tensor::ops::Cost;
use llada_tensor::{DType, Device, Tensor};

mod adamw;
mod add;
mod attention;
mod candidates;
mod cross_entropy;
mod embedding;
mod limit;
mod matmul;
mod moe;
mod muon;
mod rms_norm;
mod rope;
mod swiglu;

/// Where and on what a benchmark runs.
struct Bench<'a> {
    group: BenchmarkGroup<'a, WallTime>,
    device: Device,
    device_name: String,
}

impl Bench<'_> {
    /// Times one call; `kind` is `<fwd|bwd>/<dtype>`.
    fn run(&mut self, kind: &str, shape: &Shape, cost: Cost, mut call: impl FnMut()) {
        self.group.throughput(Throughput::ElementsAndBytes {
            elements: cost.flops,
            bytes: cost.bytes,
        });
        let id = format!("{kind}/{}/{}", shape.name, self.device_name);
        self.group.bench_function(id, |b| b.iter(&mut call));
    }

    fn random(&self, shape: &[usize], seed: u64) -> Tensor {
        llada_benches::random(&self.device, shape, seed)
    }

    fn empty(&self, shape: &[usize]) -> Tensor {
        Tensor::empty(&self.device, DType::F32, shape).expect("host memory")
    }
}

type BenchFn = fn(&mut Bench<'_>, &Shape);

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let ops: [(&str, BenchFn); 12] = [
        ("adamw", adamw::bench),
        ("add", add::bench),
        ("attention", attention::bench),
        ("candidates", candidates::bench),
        ("cross_entropy", cross_entropy::bench),
        ("embedding", embedding::bench),
        ("matmul", matmul::bench),
        ("moe", moe::bench),
        ("muon", muon::bench),
        ("rms_norm", rms_norm::bench),
        ("rope", rope::bench),
        ("swiglu", swiglu::bench),
    ];
    let only = std::env::var("LLADA_BENCH_SHAPES").ok();
    let (device, device_name) = llada_benches::device();
    limit::bench(&mut criterion, &device, &device_name);
    for (op, bench) in ops {
        let mut run = Bench {
            group: criterion.benchmark_group(op),
            device: device.clone(),
            device_name: device_name.clone(),
        };
        for shape in SHAPES {
            // Inputs of LLaDA-8B take seconds to draw: only when asked for.
            let asked = only.as_deref().unwrap_or("tiny,ci");
            if asked.split(',').any(|name| name == shape.name) {
                bench(&mut run, &shape);
            }
        }
        run.group.finish();
    }
    criterion.final_summary();
}
