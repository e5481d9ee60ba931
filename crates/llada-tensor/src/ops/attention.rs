//! Fused scaled dot-product attention over ragged batches.
//!
//! Bidirectional; causal by blocks for block-diffusion models, and by single tokens for the
//! autoregressive baseline. Tiles with an online softmax, so that memory grows with the length; the
//! backward pass recomputes probabilities from the saved log-sum-exp.

use std::num::NonZeroUsize;

use super::Cost;
use crate::error::expect_shapes;
use crate::{DType, Error, Precision, Result, Tape, Tensor, Var};

/// Heads, sequences and masks of one attention call.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape<'a> {
    /// `[B + 1]` boundaries of the sequences in `T`.
    pub offsets: &'a [usize],
    /// `[B + 1]` boundaries of the sequences in the keys and values, if they are not those of the
    /// queries: a window of queries against all keys of a cache. Without a `block_size`, and
    /// without a gradient.
    pub key_offsets: Option<&'a [usize]>,
    /// Query heads `H`.
    pub n_heads: usize,
    /// Key and value heads `K`; each serves `H / K` consecutive query heads.
    pub n_kv_heads: usize,
    /// A query sees the keys of its own block of so many positions, and of the blocks before it:
    /// 1 is causal. `None`: every query sees all keys of its sequence.
    pub block_size: Option<NonZeroUsize>,
}

impl<'a> AttentionShape<'a> {
    /// Boundaries of the sequences in the keys and values.
    #[must_use]
    pub fn of_keys(&self) -> &'a [usize] {
        self.key_offsets.unwrap_or(self.offsets)
    }
}

/// Arguments of [`crate::backend::Backend::attention`].
#[derive(Debug)]
pub struct AttentionArgs<'a> {
    /// Queries `[T, H * E]`.
    pub q: &'a Tensor,
    /// Keys `[T, K * E]`, or as many as `key_offsets` say.
    pub k: &'a Tensor,
    /// Values, like the keys.
    pub v: &'a Tensor,
    /// Heads, sequences and masks.
    pub shape: AttentionShape<'a>,
    /// Whether a backend may round the operands of both products to bf16: in all but
    /// [`Precision::F32`].
    pub precision: Precision,
    /// Output `[T, H * E]`.
    pub y: &'a mut Tensor,
    /// Output `[T, H]`: log-sum-exp of the scaled scores.
    pub lse: &'a mut Tensor,
}

/// Arguments of [`crate::backend::Backend::attention_backward`].
#[derive(Debug)]
pub struct AttentionBackwardArgs<'a> {
    /// Queries `[T, H * E]`.
    pub q: &'a Tensor,
    /// Keys `[T, K * E]`.
    pub k: &'a Tensor,
    /// Values `[T, K * E]`.
    pub v: &'a Tensor,
    /// Heads, sequences and masks.
    pub shape: AttentionShape<'a>,
    /// That of the forward pass, see [`crate::backend::Backend::attention_gradient`].
    pub precision: Precision,
    /// Output of the forward pass.
    pub y: &'a Tensor,
    /// Saved log-sum-exp.
    pub lse: &'a Tensor,
    /// Gradient of the output.
    pub dy: &'a Tensor,
    /// Output `[T, H * E]`.
    pub dq: &'a mut Tensor,
    /// Output `[T, K * E]`.
    pub dk: &'a mut Tensor,
    /// Output `[T, K * E]`.
    pub dv: &'a mut Tensor,
}

/// Work of one forward call: two products per pair of a query and a key that it sees.
#[must_use]
pub fn cost(
    offsets: &[usize],
    block_size: Option<NonZeroUsize>,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
) -> Cost {
    let pairs = |w: &[usize]| {
        let n = (w[1] - w[0]) as u64;
        // Block k of b queries sees (k + 1) b keys; an incomplete last one sees all.
        let b = block_size.map_or(n, |size| n.min(size.get() as u64)).max(1);
        let whole = n / b;
        b * b * whole * (whole + 1) / 2 + n % b * n
    };
    let pairs: u64 = offsets.windows(2).map(pairs).sum();
    let tokens = offsets.last().copied().unwrap_or(0) as u64;
    let [h, kv, e] = [n_heads, n_kv_heads, head_dim].map(|x| x as u64);
    Cost {
        flops: 4 * pairs * h * e,
        bytes: 4 * tokens * e * (2 * h + 2 * kv),
    }
}

/// Work of one backward call: five products per pair of a query and a key that it sees.
#[must_use]
pub fn backward_cost(
    offsets: &[usize],
    block_size: Option<NonZeroUsize>,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
) -> Cost {
    let forward = cost(offsets, block_size, n_heads, n_kv_heads, head_dim);
    Cost {
        flops: forward.flops / 2 * 5,
        bytes: forward.bytes * 2,
    }
}

fn check(q: &Tensor, k: &Tensor, v: &Tensor, shape: AttentionShape<'_>) -> Result<()> {
    let op = "attention";
    let (heads, kv_heads) = (shape.n_heads, shape.n_kv_heads);
    if heads == 0 || kv_heads == 0 || heads % kv_heads != 0 {
        let what = "n_heads must be a positive multiple of n_kv_heads";
        return Err(Error::InvalidArgument { op, what });
    }
    let [tokens, width] = *q.shape() else {
        return Err(Error::shapes(op, q.shape(), &[]));
    };
    if width == 0 {
        let what = "the head dimension must not be 0";
        return Err(Error::InvalidArgument { op, what });
    }
    if width % heads != 0 {
        return Err(Error::shapes(op, q.shape(), &[tokens, heads]));
    }
    let n_keys = shape
        .key_offsets
        .map_or(tokens, |of_keys| of_keys.last().copied().unwrap_or(0));
    let kv_shape = [n_keys, width / heads * kv_heads];
    for x in [k, v] {
        expect_shapes(op, x.shape(), &kv_shape)?;
    }
    let ascends =
        |offsets: &[usize]| offsets.first() == Some(&0) && offsets.windows(2).all(|w| w[0] <= w[1]);
    if !ascends(shape.offsets) || shape.offsets.last() != Some(&tokens) {
        let what = "offsets must ascend from 0 to the number of tokens";
        return Err(Error::InvalidArgument { op, what });
    }
    if let Some(of_keys) = shape.key_offsets {
        if !ascends(of_keys) || of_keys.len() != shape.offsets.len() {
            let what = "key_offsets must ascend from 0, for as many sequences as offsets";
            return Err(Error::InvalidArgument { op, what });
        }
        if shape.block_size.is_some() {
            let what = "a window of queries against other keys sees all of them: no block_size";
            return Err(Error::InvalidArgument { op, what });
        }
    }
    Ok(())
}

impl Tape {
    /// Type of queries, keys, values and output of [`Self::attention`].
    pub(crate) fn attention_dtype(&self, head_dim: usize) -> DType {
        match self.is_recording() {
            true => (self.device().backend()).attention_dtype(self.precision(), head_dim),
            false => DType::F32,
        }
    }

    /// `y_i = sum_j softmax_j(q_i . k_j / sqrt(E)) v_j` within each sequence and head, over
    /// all keys, or with a `block_size` `b` over those with `j / b <= i / b`.
    ///
    /// - `q`: `[T, H * E]`; `k`, `v`: `[T, K * E]`; returns `[T, H * E]`, on a tape that records in
    ///   the type of [`crate::backend::Backend::attention_dtype`].
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] or [`Error::InvalidArgument`]; the latter in the backward pass if
    /// keys had offsets of their own.
    ///
    /// Source: Dao et al. 2022 (arXiv 2205.14135) for the tiling.
    pub fn attention(
        &mut self,
        q: &Var,
        k: &Var,
        v: &Var,
        shape: AttentionShape<'_>,
    ) -> Result<Var> {
        check(q.value(), k.value(), v.value(), shape)?;
        let [tokens, width] = [0, 1].map(|axis| q.value().shape()[axis]);
        let dtype = self.attention_dtype(width / shape.n_heads);
        let (q, k, v) = match dtype {
            DType::F32 => (q.clone(), k.clone(), v.clone()),
            DType::Bf16 => (self.operand(q)?, self.operand(k)?, self.operand(v)?),
        };
        let (q, k, v) = (&q, &k, &v);
        let mut y = Tensor::empty(self.device(), dtype, q.value().shape())?;
        let mut lse = Tensor::empty(self.device(), DType::F32, &[tokens, shape.n_heads])?;
        let precision = match self.is_recording() {
            true => self.device().backend().attention_gradient(self.precision()),
            false => self.precision(),
        };
        self.device().backend().attention(AttentionArgs {
            q: q.value(),
            k: k.value(),
            v: v.value(),
            shape,
            precision,
            y: &mut y,
            lse: &mut lse,
        })?;
        let (q_in, k_in, v_in, y_in) = (q.clone(), k.clone(), v.clone(), y.clone());
        let offsets = shape.offsets.to_vec();
        let is_window = shape.key_offsets.is_some();
        let heads = AttentionShape::<'static> {
            offsets: &[],
            key_offsets: None,
            ..shape
        };
        Ok(self.push(y, &[q, k, v], move |dy, sink| {
            if is_window {
                let (op, what) = ("attention", "a window of queries has no gradient");
                return Err(Error::InvalidArgument { op, what });
            }
            let empty = |x: &Var| Tensor::empty(dy.device(), DType::F32, x.value().shape());
            let (mut dq, mut dk, mut dv) = (empty(&q_in)?, empty(&k_in)?, empty(&v_in)?);
            dy.device()
                .backend()
                .attention_backward(AttentionBackwardArgs {
                    q: q_in.value(),
                    k: k_in.value(),
                    v: v_in.value(),
                    shape: AttentionShape {
                        offsets: &offsets,
                        ..heads
                    },
                    precision,
                    y: &y_in,
                    lse: &lse,
                    dy,
                    dq: &mut dq,
                    dk: &mut dk,
                    dv: &mut dv,
                })?;
            sink.add(&q_in, dq)?;
            sink.add(&k_in, dk)?;
            sink.add(&v_in, dv)
        }))
    }
}
