//! Shapes, devices and random inputs shared by the benchmarks.
//!
//! A benchmark is named `<op>/<fwd|bwd>/<dtype>/<shape>/<device>`. The thread count of the device
//! is in its name.

use std::path::Path;

use llada_model::ModelConfig;
use llada_tensor::ops::{attention, cross_entropy, matmul};
use llada_tensor::{CpuConfig, Device, Philox, Stream, Tensor};

/// The sizes of a model and of a batch; letters as in the documentation of the ops.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Name in the benchmark's id.
    pub name: &'static str,
    /// Sequences `B`.
    pub batch: usize,
    /// Their length `L`.
    pub seq_len: usize,
    /// Width `D`.
    pub d_model: usize,
    /// Heads `H`.
    pub n_heads: usize,
    /// Width `F` of the feed-forward layer.
    pub mlp_hidden_size: usize,
    /// Vocabulary `V`.
    pub vocab_size: usize,
    /// Layers of the model benchmarks.
    pub n_layers: usize,
}

/// A test's size, the size of the model that CI trains, and a short sequence of LLaDA-8B.
pub const SHAPES: [Shape; 3] = [
    Shape {
        name: "tiny",
        batch: 2,
        seq_len: 32,
        d_model: 64,
        n_heads: 4,
        mlp_hidden_size: 192,
        vocab_size: 256,
        n_layers: 2,
    },
    Shape {
        name: "ci",
        batch: 8,
        seq_len: 128,
        d_model: 384,
        n_heads: 6,
        mlp_hidden_size: 1536,
        vocab_size: 8192,
        n_layers: 8,
    },
    Shape {
        name: "8b",
        batch: 1,
        seq_len: 256,
        d_model: 4096,
        n_heads: 32,
        mlp_hidden_size: 12_288,
        vocab_size: 126_464,
        n_layers: 32,
    },
];

impl Shape {
    /// Tokens `T` of the batch.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.batch * self.seq_len
    }

    /// `[B + 1]` boundaries of the sequences.
    #[must_use]
    pub fn offsets(&self) -> Vec<usize> {
        (0..=self.batch).map(|i| i * self.seq_len).collect()
    }

    /// Elements of one head `E`.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.d_model / self.n_heads
    }

    /// The configuration of a model of this size; id 0 is the mask, id 1 ends a text.
    ///
    /// # Panics
    /// Never: the fields above make a valid configuration.
    #[must_use]
    pub fn config(&self) -> ModelConfig {
        let json = format!(
            "{{\"d_model\":{},\"n_heads\":{},\"n_layers\":{},\"mlp_hidden_size\":{},\
             \"vocab_size\":{},\"weight_tying\":false,\"mask_token_id\":0,\"eos_token_id\":1}}",
            self.d_model, self.n_heads, self.n_layers, self.mlp_hidden_size, self.vocab_size
        );
        ModelConfig::from_json(json.as_bytes(), Path::new("shape")).expect("a valid configuration")
    }
}

/// The best level of the CPU with one thread per core, and its name in an id.
///
/// # Panics
/// If the worker threads cannot be started.
#[must_use]
pub fn device() -> (Device, String) {
    let device = Device::cpu(CpuConfig::default()).expect("threads start");
    let name = device.backend().name().replace(", ", "-").replace(' ', "-");
    (device, name)
}

/// Standard normal values.
///
/// # Panics
/// Never: there are as many values as the shape has.
#[must_use]
pub fn random(device: &Device, shape: &[usize], seed: u64) -> Tensor {
    let rng = Philox::new(seed, Stream::Test);
    let n: usize = shape.iter().product();
    let counter = |i: usize| [(i & 0xffff_ffff) as u32, (i >> 32) as u32, 0];
    let values: Vec<f32> = (0..n)
        .map(|i| rng.normal_pair(counter(i))[0] as f32)
        .collect();
    Tensor::from_f32(device, shape, &values).expect("as many values as the shape has")
}

/// Ids below `limit`.
#[must_use]
pub fn ids(n: usize, limit: usize, seed: u64) -> Vec<u32> {
    let rng = Philox::new(seed, Stream::Test);
    (0..n)
        .map(|i| rng.below(limit as u64, [i as u32, 0, 1]) as u32)
        .collect()
}

/// Floating-point operations of one forward pass, with `rows` of its tokens going to the head.
#[must_use]
pub fn forward_flops(shape: &Shape, rows: usize) -> u64 {
    let (d, f) = (shape.d_model, shape.mlp_hidden_size);
    let product = |n: usize, k: usize| matmul::cost(1, shape.tokens(), n, k, 4).flops;
    let heads = shape.n_heads;
    let attention = attention::cost(&shape.offsets(), None, heads, heads, shape.head_dim()).flops;
    let layer = 4 * product(d, d) + 3 * product(d, f) + attention;
    shape.n_layers as u64 * layer + cross_entropy::cost(rows, shape.vocab_size, d).flops
}
