//! Rate of matrix products in each precision, and its share of the GEMM peak that the same run
//! measures: `matmul -- M N K [threads]`, such as
//! `cargo run --release -p llada-tensor --example matmul -- 2048 1536 384 1`.

#![expect(
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "an example that prints its timings"
)]

use std::time::Instant;

use llada_tensor::backend::{MatmulArgs, Rhs};
use llada_tensor::ops::matmul::{cost, matmul, operand, pack};
use llada_tensor::{CpuConfig, DType, Device, Philox, Precision, Result, Stream, Tensor};

fn main() -> Result<()> {
    let args: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|x| x.parse().ok())
        .collect();
    let [m, n, k] = [0, 1, 2].map(|i| args.get(i).copied().unwrap_or([256, 256, 256][i]));
    let threads = args.get(3).copied().unwrap_or(1);
    let device = Device::cpu(CpuConfig {
        threads,
        level: None,
    })?;
    let rng = Philox::new(1, Stream::Test);
    let random = |rows: usize, columns: usize, seed: u32| {
        let draw = |i| rng.normal_pair([i as u32, seed, 0])[0] as f32;
        let values: Vec<f32> = (0..rows * columns).map(draw).collect();
        Tensor::from_f32(&device, &[rows, columns], &values)
    };
    let (x, w, dy) = (random(m, k, 1)?, random(n, k, 2)?, random(m, n, 3)?);
    let all = [
        Precision::Int4,
        Precision::Int8,
        Precision::Bf16,
        Precision::F32,
    ];
    for precision in all {
        let peak = peak(&device, precision)?;
        let start = Instant::now();
        let packed = pack(&w, precision)?;
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{:4} pack w             {:8.3} ms {:7.0} M values/s",
            precision.name(),
            seconds * 1e3,
            (n * k) as f64 / seconds / 1e6
        );
        let dtype = device.backend().operand_dtype(precision);
        let [x_in, w_in, dy_in] = [&x, &w, &dy].map(|x| operand(x, precision));
        let (x_in, w_in, dy_in) = (x_in?, w_in?, dy_in?);
        let (dy_t, dy_in_t) = (dy.transpose(0, 1)?, dy_in.transpose(0, 1)?);
        let (y, dx, dw) = ([m, n], [m, k], [n, k]);
        for (name, a, b, shape, to) in [
            ("y = x w^T, packed", &x, Rhs::Packed(&packed), y, DType::F32),
            ("y = x w^T", &x, Rhs::Weight(&w), y, DType::F32),
            ("dx = dy w", &dy, Rhs::Matrix(&w), dx, DType::F32),
            ("dw = dy^T x", &dy_t, Rhs::Matrix(&x), dw, DType::F32),
            ("y = x w^T, stored", &x_in, Rhs::Weight(&w_in), y, dtype),
            ("dx = dy w, stored", &dy_in, Rhs::Matrix(&w_in), dx, dtype),
            (
                "dw = dy^T x, stored",
                &dy_in_t,
                Rhs::Matrix(&x_in),
                dw,
                DType::F32,
            ),
        ] {
            let is_stored = name.ends_with("stored");
            if precision.is_integer() && !matches!(b, Rhs::Packed(_))
                || is_stored && dtype == DType::F32
            {
                continue;
            }
            let mut c = Tensor::zeros(&device, to, &shape)?;
            let mut best = f64::INFINITY;
            for _ in 0..20 {
                let start = Instant::now();
                matmul(MatmulArgs {
                    a,
                    b,
                    c: &mut c,
                    accumulate: false,
                    precision,
                })?;
                best = best.min(start.elapsed().as_secs_f64());
            }
            let gops = cost(1, m, n, k, 4).flops as f64 / best / 1e9;
            println!(
                "{:4} {name:20} {:8.3} ms {gops:7.0} Gop/s {:4.0} %",
                precision.name(),
                best * 1e3,
                100.0 * gops / peak
            );
        }
    }
    Ok(())
}

/// Gop/s of products in the nearest memory.
fn peak(device: &Device, precision: Precision) -> Result<f64> {
    let mut best = 0.0_f64;
    for _ in 0..20 {
        let start = Instant::now();
        let flops = device.backend().gemm_peak(precision, 500)?;
        best = best.max(flops as f64 / start.elapsed().as_secs_f64() / 1e9);
    }
    Ok(best)
}
