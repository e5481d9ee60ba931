//! The limits of the machine, against which everything else is held: the GEMM peak of each
//! precision, and reading memory.

use criterion::{Criterion, Throughput};
use llada_tensor::ops::adamw::global_norm;
use llada_tensor::{Device, Precision};

/// Rounds of one run, some hundred microseconds.
const ROUNDS: usize = 200;
/// Bytes that no cache holds.
const BYTES: usize = 1 << 28;

pub(crate) fn bench(criterion: &mut Criterion, device: &Device, device_name: &str) {
    let mut group = criterion.benchmark_group("limit");
    let precisions = [
        Precision::F32,
        Precision::Bf16,
        Precision::Int8,
        Precision::Int4,
    ];
    for precision in precisions {
        let dtype = precision.name();
        let peak = || device.backend().gemm_peak(precision, ROUNDS).expect("runs");
        group.throughput(Throughput::Elements(peak()));
        group.bench_function(format!("gemm/{dtype}/{device_name}"), |b| b.iter(peak));
    }
    let x = [llada_benches::random(device, &[BYTES / 4], 1)];
    group.throughput(Throughput::Bytes(BYTES as u64));
    group.bench_function(format!("read/{device_name}"), |b| {
        b.iter(|| global_norm(&x).expect("contiguous"));
    });
    group.finish();
}
