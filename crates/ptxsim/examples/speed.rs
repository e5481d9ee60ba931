//! How fast the software device is: plain and tensor-core products, in GFLOP/s, on one thread and on all.
//!
//! `cargo run --release -p ptxsim --example speed`, with `PTXSIM_THREADS=1` for one thread.
#![expect(unsafe_code, reason = "launches are foreign calls")]
#![expect(clippy::print_stdout, reason = "it prints its result")]

use std::error::Error;
use std::time::Instant;

use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use half::bf16;

fn main() -> Result<(), Box<dyn Error>> {
    let context = CudaContext::new(0)?;
    let stream = context.default_stream();
    let ptx = match std::env::args().nth(1) {
        Some(path) => Ptx::from_binary(std::fs::read(path)?),
        None => Ptx::from_src(include_str!("../tests/kernels/gemm.ptx")),
    };
    let start = Instant::now();
    let module = context.load_module(ptx)?;
    println!("load: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);

    let fma_loop = module.load_function("fma_loop")?;
    let (blocks, steps) = (16_u32, 4096);
    let mut y = stream.alloc_zeros::<f32>(blocks as usize * 256)?;
    let config = LaunchConfig {
        grid_dim: (blocks, 1, 1),
        block_dim: (256, 1, 1),
        shared_mem_bytes: 0,
    };
    let start = Instant::now();
    let mut builder = stream.launch_builder(&fma_loop);
    builder.arg(&mut y).arg(&steps);
    // SAFETY: the arguments fit the kernel.
    unsafe { builder.launch(config) }?;
    stream.synchronize()?;
    let flops = f64::from(blocks) * 256.0 * f64::from(steps) * 8.0;
    println!(
        "fma_loop: {:.2} GFLOP/s",
        flops / start.elapsed().as_secs_f64() * 1e-9
    );

    let size = 512_usize;
    let a = stream.clone_htod(&vec![bf16::ONE; size * size])?;
    let mut c = stream.alloc_zeros::<f32>(size * size)?;
    let gemm = module.load_function("gemm")?;
    let tiles = u32::try_from(size / 64)?;
    let config = LaunchConfig {
        grid_dim: (tiles, tiles, 1),
        block_dim: (128, 1, 1),
        shared_mem_bytes: 0,
    };
    let n = i32::try_from(size)?;
    let start = Instant::now();
    let mut builder = stream.launch_builder(&gemm);
    builder.arg(&a).arg(&a).arg(&mut c).arg(&n).arg(&n);
    // SAFETY: the arguments fit the kernel.
    unsafe { builder.launch(config) }?;
    let c = stream.clone_dtoh(&c)?;
    let seconds = start.elapsed().as_secs_f64();
    let checksum: f64 = c.iter().map(|&x| f64::from(x)).sum();
    println!(
        "gemm: {:.2} GFLOP/s, checksum {checksum:e}",
        2.0 * (size as f64).powi(3) / seconds * 1e-9
    );
    Ok(())
}
