//! The least time that the main kernels can take at the shapes of LLaDA-8B.
//!
//! Operations are those of the formulas, bytes those that must be read or written once. Products
//! run on tensor cores in bf16 with f32 sums, activations lie in memory as f32 and weights as
//! bf16, as in the CUDA backend. All positions are masked, which is the dearest case.

use super::gpu::Gpu;

/// The dimensions of LLaDA-8B.
const D: f64 = 4096.0;
const HEADS: f64 = 32.0;
const HEAD_DIM: f64 = D / HEADS;
const FFN: f64 = 12_288.0;
const VOCAB: f64 = 126_464.0;
/// Positions of a block of the dual cache.
const BLOCK: f64 = 32.0;

pub(super) const LENGTHS: &[u32] = &[128, 256, 512, 1024, 2048, 4096];
/// A100, H100 and RTX 4090.
pub(super) const ARCHITECTURES: &[&str] = &["80", "90a", "89"];

const F32: f64 = 4.0;
const BF16: f64 = 2.0;

/// Work of one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    flop: f64,
    bytes: f64,
    uses_tensor_cores: bool,
}

/// An op and its work for one sequence of a length.
pub(super) type Op = (&'static str, fn(f64) -> Work);

pub(super) const OPS: &[Op] = &[
    ("attention fwd", |l| attention(l, l)),
    ("attention fwd, a block of 32 and a cache", |l| {
        attention(BLOCK, l)
    }),
    ("attention bwd", attention_backward),
    ("matmul d x d", |l| matmul(l, D, D)),
    ("matmul d x ffn", |l| matmul(l, D, FFN)),
    ("matmul d x ffn, 32 rows, int8", |_| Work {
        flop: 2.0 * BLOCK * D * FFN,
        bytes: D * FFN + F32 * BLOCK * (D + FFN),
        uses_tensor_cores: true,
    }),
    ("head and confidence", |l| Work {
        // Token, probability and log-sum-exp instead of logits.
        bytes: BF16 * D * VOCAB + F32 * l * (D + 3.0),
        ..matmul(l, D, VOCAB)
    }),
    ("head and cross-entropy, fwd and bwd", |l| Work {
        // Logits are computed twice rather than stored; then two products for the gradients.
        flop: 4.0 * 2.0 * l * D * VOCAB,
        bytes: 2.0 * BF16 * D * VOCAB + F32 * D * VOCAB + F32 * 3.0 * l * D,
        uses_tensor_cores: true,
    }),
    ("rms_norm fwd", |l| streaming(2.0 * l * D, 4.0 * l * D)),
    ("rope", |l| streaming(4.0 * l * D, 6.0 * l * D)),
    ("swiglu fwd", |l| streaming(3.0 * l * FFN, 6.0 * l * FFN)),
    ("adamw, 1e9 parameters", |_| streaming(7e9, 14e9)),
];

fn attention(n_queries: f64, n_keys: f64) -> Work {
    Work {
        flop: 4.0 * HEADS * n_queries * n_keys * HEAD_DIM,
        bytes: F32 * (2.0 * n_queries * D + 2.0 * n_keys * D + HEADS * n_queries),
        uses_tensor_cores: true,
    }
}

/// Five products instead of two; reads q, k, v, the output and its gradient, writes three gradients.
fn attention_backward(l: f64) -> Work {
    Work {
        flop: 10.0 * HEADS * l * l * HEAD_DIM,
        bytes: F32 * (8.0 * l * D + HEADS * l),
        uses_tensor_cores: true,
    }
}

fn matmul(rows: f64, from: f64, to: f64) -> Work {
    Work {
        flop: 2.0 * rows * from * to,
        bytes: BF16 * from * to + F32 * rows * (from + to),
        uses_tensor_cores: true,
    }
}

fn streaming(elements: f64, flop: f64) -> Work {
    Work {
        flop,
        bytes: F32 * elements,
        uses_tensor_cores: false,
    }
}

/// What bounds a call, and the least time it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bound {
    pub(super) is_memory: bool,
    pub(super) microseconds: f64,
}

impl Work {
    pub(super) fn gigaflop(&self) -> f64 {
        self.flop / 1e9
    }

    pub(super) fn megabytes(&self) -> f64 {
        self.bytes / 1e6
    }

    pub(super) fn bound(&self, gpu: &Gpu) -> Bound {
        let tflops = if self.uses_tensor_cores {
            gpu.tensor_tflops
        } else {
            gpu.f32_tflops
        };
        let compute = self.flop / (tflops * 1e6);
        let memory = self.bytes / (gpu.gigabytes_per_second * 1e3);
        Bound {
            is_memory: memory > compute,
            microseconds: compute.max(memory),
        }
    }
}

#[cfg(test)]
mod tests;
