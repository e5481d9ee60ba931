//! Times of attention and of the choice of tokens at the shapes of LLaDA-8B on any device, as JSON
//! lines that `tools/gpu/summary.py` compares with those of other software.
//!
//! `device cuda` times an NVIDIA GPU (feature `cuda`), `device cpu` the processor; `--tiny` is for
//! trying the program out. Launches run back to back, and the clock stops when the last result was
//! read: what a launch costs the host shows only where it is longer than the kernel.

#![expect(clippy::print_stdout, reason = "the output is the result")]

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use llada_benches::random;
use llada_tensor::backend::{
    AttentionArgs, AttentionBackwardArgs, AttentionShape, CandidateArgs, Noise, Rhs,
};
use llada_tensor::ops::candidates::{self, CandidateRule, candidates};
use llada_tensor::ops::{Cost, attention, matmul};
use llada_tensor::{DType, Device, Precision, Tensor};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Least seconds of one sample, and how many there are.
const SAMPLE_SECONDS: f64 = 0.05;
const SAMPLES: usize = 5;

/// The sizes that are timed.
struct Sizes {
    heads: usize,
    head_dim: usize,
    vocab_size: usize,
    /// Lengths of attention.
    lengths: &'static [usize],
    /// Queries beside keys of the greatest length: a block of the dual cache.
    block: usize,
    /// Masked positions of one step.
    rows: &'static [usize],
}

const LLADA_8B: Sizes = Sizes {
    heads: 32,
    head_dim: 128,
    vocab_size: 126_464,
    lengths: &[128, 256, 512, 1024, 2048, 4096],
    block: 32,
    rows: &[32, 128, 1024],
};

const TINY: Sizes = Sizes {
    heads: 2,
    head_dim: 64,
    vocab_size: 512,
    lengths: &[32, 64],
    block: 8,
    rows: &[8],
};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (name, sizes) = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [name] => (name, LLADA_8B),
        [name, "--tiny"] => (name, TINY),
        _ => return Err("usage: device cpu|cuda [--tiny]".into()),
    };
    let device = open(name)?;
    for &length in sizes.lengths {
        time_attention(&device, &sizes, length, length)?;
    }
    let longest = sizes.lengths[sizes.lengths.len() - 1];
    time_attention(&device, &sizes, sizes.block, longest)?;
    for &rows in sizes.rows {
        time_candidates(&device, &sizes, rows)?;
    }
    Ok(())
}

fn open(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(llada_benches::device().0),
        #[cfg(feature = "cuda")]
        "cuda" => {
            let config = llada::CudaConfig::from_variables(std::env::var_os);
            Ok(llada::cuda_device(0, config)?)
        }
        _ => Err(format!("there is no device {name:?} in this build").into()),
    }
}

/// The forward pass, and where there are as many keys as queries, the backward pass: with tensors of
/// `f32`, and where the device trains with tensors of `bf16`, with those.
fn time_attention(device: &Device, sizes: &Sizes, queries: usize, keys: usize) -> Result<()> {
    time_attention_of(device, sizes, [queries, keys], DType::F32, Precision::F32)?;
    time_attention_of(device, sizes, [queries, keys], DType::F32, Precision::Bf16)?;
    match device
        .backend()
        .attention_dtype(Precision::Bf16, sizes.head_dim)
    {
        DType::F32 => Ok(()),
        narrow => time_attention_of(device, sizes, [queries, keys], narrow, Precision::Bf16),
    }
}

fn time_attention_of(
    device: &Device,
    sizes: &Sizes,
    [queries, keys]: [usize; 2],
    stored: DType,
    precision: Precision,
) -> Result<()> {
    let name = match (precision, stored) {
        (Precision::F32, _) => "f32",
        (_, DType::F32) => "bf16, f32 in memory",
        (_, DType::Bf16) => "bf16",
    };
    let width = sizes.heads * sizes.head_dim;
    let input = |rows: usize, seed| random(device, &[rows, width], seed).to_dtype(stored);
    let (q, dy) = (input(queries, 1)?, random(device, &[queries, width], 4));
    let (k, v) = (input(keys, 2)?, input(keys, 3)?);
    let mut y = Tensor::empty(device, stored, &[queries, width])?;
    let mut lse = Tensor::empty(device, DType::F32, &[queries, sizes.heads])?;
    let (offsets, key_offsets) = ([0, queries], [0, keys]);
    let is_square = queries == keys;
    let shape = AttentionShape {
        offsets: &offsets,
        key_offsets: (!is_square).then_some(&key_offsets[..]),
        n_heads: sizes.heads,
        n_kv_heads: sizes.heads,
        block_size: None,
    };
    let cost = |passes: fn(&[usize], usize, usize) -> Cost| {
        passes(&key_offsets, sizes.heads, sizes.head_dim)
    };
    let forward = cost(|offsets, heads, dim| attention::cost(offsets, None, heads, heads, dim));
    let flops = forward.flops * queries as u64 / keys as u64;
    let seconds = time(|is_last| {
        device.backend().attention(AttentionArgs {
            q: &q,
            k: &k,
            v: &v,
            shape,
            precision,
            y: &mut y,
            lse: &mut lse,
        })?;
        finish(&lse, is_last)
    })?;
    report("attention_fwd", name, queries, keys, flops, &seconds);
    if !is_square {
        return Ok(());
    }
    let empty = |x: &Tensor| Tensor::empty(device, DType::F32, x.shape());
    let (mut dq, mut dk, mut dv) = (empty(&q)?, empty(&k)?, empty(&v)?);
    let backward =
        cost(|offsets, heads, dim| attention::backward_cost(offsets, None, heads, heads, dim));
    let seconds = time(|is_last| {
        device.backend().attention_backward(AttentionBackwardArgs {
            q: &q,
            k: &k,
            v: &v,
            shape,
            precision,
            y: &y,
            lse: &lse,
            dy: &dy,
            dq: &mut dq,
            dk: &mut dk,
            dv: &mut dv,
        })?;
        finish(&dv, is_last)
    })?;
    let flops = backward.flops;
    report("attention_bwd", name, queries, keys, flops, &seconds);
    Ok(())
}

/// The head, and the most likely token of each position with its probability.
fn time_candidates(device: &Device, sizes: &Sizes, rows: usize) -> Result<()> {
    let width = sizes.heads * sizes.head_dim;
    let head = repeated(device, sizes.vocab_size, width)?;
    let packed = matmul::pack(&head, Precision::Bf16)?;
    drop(head);
    let hidden = random(device, &[rows, width], 1);
    let rule = CandidateRule::default();
    let seconds = time(|_| {
        let args = CandidateArgs {
            hidden: &hidden,
            unconditional: None,
            head: Rhs::Packed(&packed),
            bias: None,
            rule: &rule,
            noise: &Noise::None,
            precision: Precision::Bf16,
        };
        // The tokens come to the host in every call.
        black_box(candidates(args)?);
        Ok(())
    })?;
    let cost = candidates::cost(rows, sizes.vocab_size, width, 2);
    report(
        "confidence",
        "bf16",
        rows,
        sizes.vocab_size,
        cost.flops,
        &seconds,
    );
    Ok(())
}

/// A large matrix whose rows repeat a few random ones.
fn repeated(device: &Device, rows: usize, width: usize) -> Result<Tensor> {
    const DISTINCT: usize = 509;
    let (cpu, _) = llada_benches::device();
    let values = random(&cpu, &[DISTINCT, width], 2).to_vec_f32()?;
    let values: Vec<f32> = values.iter().copied().cycle().take(rows * width).collect();
    Ok(Tensor::from_f32(device, &[rows, width], &values)?)
}

/// Waits for the device by reading what it wrote last.
fn finish(written: &Tensor, is_last: bool) -> Result<()> {
    if is_last {
        black_box(written.narrow(0, 0, 1)?.to_vec_f32()?);
    }
    Ok(())
}

/// Seconds of a call in each sample. The argument says whether a call is the last of its sample.
fn time(mut call: impl FnMut(bool) -> Result<()>) -> Result<Vec<f64>> {
    let mut sample = |calls: usize| -> Result<f64> {
        let start = Instant::now();
        for at in 1..=calls {
            call(at == calls)?;
        }
        Ok(start.elapsed().as_secs_f64() / calls as f64)
    };
    sample(1)?;
    let once = sample(3)?;
    let calls = (SAMPLE_SECONDS / once).ceil().clamp(1.0, 10_000.0) as usize;
    (0..SAMPLES).map(|_| sample(calls)).collect()
}

fn report(what: &str, dtype: &str, rows: usize, columns: usize, flops: u64, seconds: &[f64]) {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (median, least) = (sorted[sorted.len() / 2], sorted[0]);
    println!(
        "{{\"source\":\"llada\",\"what\":\"{what}\",\"impl\":\"llada\",\"dtype\":\"{dtype}\",\
         \"rows\":{rows},\"columns\":{columns},\"flop\":{flops},\"seconds\":{median:e},\
         \"seconds_min\":{least:e}}}"
    );
}
