//! LM head fused with cross-entropy, for chosen rows only, in tiles over the vocabulary:
//! `loss_i = logsumexp_v(h_i . w_v + b_v) - (h_i . w_target + b_target)`.
//! The `[N, V]` logits are never stored; the backward pass recomputes them tile by tile.

use super::Cost;
use crate::backend::Rhs;
use crate::error::{expect_ids, expect_shapes};
use crate::{DType, Precision, Result, Tape, Tensor, Var};

/// Arguments of [`crate::backend::Backend::cross_entropy`].
#[derive(Debug)]
pub struct CrossEntropyArgs<'a> {
    /// Hidden states `[N, D]`.
    pub hidden: &'a Tensor,
    /// LM head `[V, D]`: [`Rhs::Weight`] or [`Rhs::Packed`].
    pub head: Rhs<'a>,
    /// Bias `[V]` of the head.
    pub bias: Option<&'a Tensor>,
    /// `[N]` ids below `V`.
    pub targets: &'a [u32],
    /// Precision of the products.
    pub precision: Precision,
    /// Output `[N]`: cross-entropy of each row, nats.
    pub losses: &'a mut Tensor,
    /// Output `[N]`: log-sum-exp of each row.
    pub lse: &'a mut Tensor,
}

/// Arguments of [`crate::backend::Backend::cross_entropy_backward`].
#[derive(Debug)]
pub struct CrossEntropyBackwardArgs<'a> {
    /// Hidden states `[N, D]`.
    pub hidden: &'a Tensor,
    /// LM head `[V, D]`.
    pub head: &'a Tensor,
    /// Bias `[V]` of the head.
    pub bias: Option<&'a Tensor>,
    /// `[N]` ids below `V`.
    pub targets: &'a [u32],
    /// `[N]`: gradient of each row's loss.
    pub dlosses: &'a [f32],
    /// Saved log-sum-exp `[N]`.
    pub lse: &'a Tensor,
    /// Precision of the products.
    pub precision: Precision,
    /// Output `[N, D]`.
    pub dhidden: &'a mut Tensor,
    /// Gradient of the head `[V, D]`, added to; `None` if the head is not trained.
    pub dhead: Option<&'a mut Tensor>,
    /// Gradient of the bias `[V]`, added to.
    pub dbias: Option<&'a mut Tensor>,
}

/// Work of one forward call.
#[must_use]
pub fn cost(rows: usize, vocab_size: usize, d_model: usize) -> Cost {
    let [n, v, d] = [rows, vocab_size, d_model].map(|x| x as u64);
    Cost {
        flops: 2 * n * v * d,
        bytes: 4 * (v * d + n * d),
    }
}

/// Work of one backward call: the logits again, and two products with their gradient.
#[must_use]
pub fn backward_cost(rows: usize, vocab_size: usize, d_model: usize) -> Cost {
    let [n, v, d] = [rows, vocab_size, d_model].map(|x| x as u64);
    Cost {
        flops: 6 * n * v * d,
        bytes: 4 * (3 * v * d + 2 * n * d),
    }
}

/// Cross-entropy of each row, nats, and its log-sum-exp, both `[N]`.
///
/// # Errors
/// [`crate::Error::ShapeMismatch`], [`crate::Error::DTypeMismatch`] if an operand is not `f32`, or
/// [`crate::Error::IndexOutOfRange`] for a target past the head.
pub fn cross_entropy(
    hidden: &Tensor,
    head: Rhs<'_>,
    bias: Option<&Tensor>,
    targets: &[u32],
    precision: Precision,
) -> Result<(Tensor, Tensor)> {
    let op = "cross_entropy";
    let (d, vocab_size) = head.k_n().unwrap_or_default();
    expect_shapes(op, hidden.shape(), &[targets.len(), d])?;
    hidden.expect_f32(op)?;
    head.expect_f32(op)?;
    if let Some(bias) = bias {
        expect_shapes(op, bias.shape(), &[vocab_size])?;
    }
    expect_ids(op, targets, vocab_size)?;
    let device = hidden.device();
    let mut losses = Tensor::empty(device, DType::F32, &[targets.len()])?;
    let mut lse = Tensor::empty(device, DType::F32, &[targets.len()])?;
    let (losses_out, lse_out) = (&mut losses, &mut lse);
    let args = CrossEntropyArgs {
        hidden,
        head,
        bias,
        targets,
        precision,
        losses: losses_out,
        lse: lse_out,
    };
    device.backend().cross_entropy(args)?;
    Ok((losses, lse))
}

impl Tape {
    /// `sum_i weights[i] * -ln softmax(h_i wᵀ + b)[targets[i]]`, a scalar.
    ///
    /// - `hidden`: `[N, D]`; `head`: `[V, D]`; `bias`: `[V]`; `targets`, `weights`: `[N]`.
    /// - The sum over rows is accumulated in `f64`.
    ///
    /// # Errors
    /// As [`cross_entropy`]; [`crate::Error::ShapeMismatch`] if `weights` is not `[N]`.
    ///
    /// Source: arXiv 2502.09992, eq. 3, with `weights = 1 / (p_mask B L)`.
    pub fn cross_entropy(
        &mut self,
        hidden: &Var,
        head: &Var,
        bias: Option<&Var>,
        targets: &[u32],
        weights: &[f32],
    ) -> Result<Var> {
        expect_shapes("cross_entropy", &[targets.len()], &[weights.len()])?;
        let precision = self.precision();
        let bias_value = bias.map(Var::value);
        let head_rhs = Rhs::Weight(head.value());
        let (losses, lse) =
            cross_entropy(hidden.value(), head_rhs, bias_value, targets, precision)?;
        let sum: f64 = losses
            .to_vec_f32()?
            .iter()
            .zip(weights)
            .map(|(&loss, &weight)| f64::from(loss) * f64::from(weight))
            .sum();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the loss is reported in f32"
        )]
        let value = Tensor::from_f32(self.device(), &[1], &[sum as f32])?;
        let (hidden_in, head_in, bias_in) = (hidden.clone(), head.clone(), bias.cloned());
        let (targets, weights) = (targets.to_vec(), weights.to_vec());
        let inputs: Vec<&Var> = [hidden, head].into_iter().chain(bias).collect();
        Ok(self.push(value, &inputs, move |dy, sink| {
            let scale = dy.to_vec_f32()?[0];
            let zeros = |x: &Var| Tensor::zeros(dy.device(), DType::F32, x.value().shape());
            let mut dhidden = zeros(&hidden_in)?;
            let mut dbias = bias_in.as_ref().map(zeros).transpose()?;
            let mut own_dhead = None;
            let dhead = match sink.sum(&head_in)? {
                Some(dhead) => Some(dhead),
                None if head_in.needs_grad() => Some(own_dhead.insert(zeros(&head_in)?)),
                None => None,
            };
            dy.device()
                .backend()
                .cross_entropy_backward(CrossEntropyBackwardArgs {
                    hidden: hidden_in.value(),
                    head: head_in.value(),
                    bias: bias_in.as_ref().map(Var::value),
                    targets: &targets,
                    dlosses: &weights.iter().map(|w| w * scale).collect::<Vec<_>>(),
                    lse: &lse,
                    precision,
                    dhidden: &mut dhidden,
                    dhead,
                    dbias: dbias.as_mut(),
                })?;
            if let Some(dhead) = own_dhead {
                sink.add(&head_in, dhead)?;
            }
            if let (Some(bias), Some(dbias)) = (&bias_in, dbias) {
                sink.add(bias, dbias)?;
            }
            sink.add(&hidden_in, dhidden)
        }))
    }
}
