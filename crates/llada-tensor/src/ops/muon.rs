//! Muon: momentum whose matrix is orthogonalized before it is applied.

use super::Cost;
use crate::backend::{MatmulArgs, Rhs};
use crate::error::expect_shapes;
use crate::ops::adamw::global_norm;
use crate::ops::matmul::matmul;
use crate::{DType, Precision, Result, Tensor};

/// Coefficients of the quintic that brings singular values to about one, and how often it is used.
///
/// Source: `zeropower_via_newtonschulz5` of Muon (Jordan et al. 2024).
const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];
const ITERATIONS: usize = 5;

/// Root mean square of an update at a learning rate of one, about that of AdamW, so that both
/// share learning rate and weight decay. Source: Moonlight (arXiv 2502.16982), eq. 4.
const UPDATE_RMS: f32 = 0.2;

/// Arguments of [`muon`].
///
/// `g = gradient_scale * gradient`, `m = beta m + (1 - beta) g`, `u = beta m + (1 - beta) g`,
/// `p = p (1 - lr weight_decay) - lr 0.2 sqrt(max(N, K)) orthogonalize(u)`.
#[derive(Debug)]
pub struct MuonArgs<'a> {
    /// Parameter `[N, K]`, updated in place.
    pub parameter: &'a mut Tensor,
    /// Gradient.
    pub gradient: &'a Tensor,
    /// Running mean `m`, updated in place.
    pub momentum: &'a mut Tensor,
    /// Learning rate.
    pub learning_rate: f32,
    /// Decay of the momentum.
    pub beta: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Factor on the gradient (clipping).
    pub gradient_scale: f32,
    /// Of the products in [`orthogonalize`].
    pub precision: Precision,
}

/// Checks shapes and updates one matrix.
///
/// # Errors
/// [`crate::Error::Rank`] or [`crate::Error::ShapeMismatch`].
#[expect(
    clippy::needless_pass_by_value,
    reason = "outputs come by mutable reference inside"
)]
pub fn muon(args: MuonArgs<'_>) -> Result<()> {
    let op = "muon";
    let shape = args.parameter.matrix_shape(op)?;
    let [n, k] = shape;
    for other in [args.gradient, &*args.momentum] {
        expect_shapes(op, &shape, other.shape())?;
    }
    let device = args.gradient.device().clone();
    let backend = device.backend();
    let new = (1.0 - args.beta) * args.gradient_scale;
    backend.axpby(new, args.gradient, args.beta, args.momentum)?;
    let mut direction = Tensor::zeros(&device, DType::F32, &shape)?;
    backend.axpby(new, args.gradient, 0.0, &mut direction)?;
    backend.axpby(args.beta, args.momentum, 1.0, &mut direction)?;

    let direction = orthogonalize(&direction, args.precision)?;
    #[expect(clippy::cast_precision_loss, reason = "widths fit")]
    let rate = args.learning_rate * UPDATE_RMS * (n.max(k) as f32).sqrt();
    let keep = 1.0 - args.learning_rate * args.weight_decay;
    backend.axpby(-rate, &direction, keep, args.parameter)
}

/// About the nearest matrix to `x: [N, K]` with orthonormal rows or columns, whichever are fewer:
/// its singular values lie between 0.7 and 1.2 except those that were tiny. Zero stays zero.
///
/// # Errors
/// [`crate::Error::Rank`], [`crate::Error::DTypeMismatch`], or a layout that is not contiguous.
pub fn orthogonalize(x: &Tensor, precision: Precision) -> Result<Tensor> {
    let shape = x.matrix_shape("orthogonalize")?;
    let [n, k] = shape;
    let device = x.device().clone();
    let backend = device.backend();
    let zeros = |shape: &[usize]| Tensor::zeros(&device, DType::F32, shape);
    let product = |a: &Tensor, b: Rhs<'_>, c: &mut Tensor| {
        matmul(MatmulArgs {
            a,
            b,
            c,
            accumulate: false,
            precision,
        })
    };

    #[expect(clippy::cast_possible_truncation, reason = "a factor of f32 values")]
    let scale = (1.0 / (global_norm(std::slice::from_ref(x))? + 1e-7)) as f32;
    let (mut x_now, mut x_next) = (zeros(&shape)?, zeros(&shape)?);
    backend.axpby(scale, x, 0.0, &mut x_now)?;
    let side = n.min(k);
    let (mut gram, mut polynomial) = (zeros(&[side, side])?, zeros(&[side, side])?);
    let [a, b, c] = COEFFICIENTS;
    for _ in 0..ITERATIONS {
        // With s = x xᵀ (or xᵀ x): x <- a x + (b s + c s²) x.
        if n <= k {
            product(&x_now, Rhs::Weight(&x_now), &mut gram)?;
        } else {
            product(&x_now.transpose(0, 1)?, Rhs::Matrix(&x_now), &mut gram)?;
        }
        product(&gram, Rhs::Weight(&gram), &mut polynomial)?;
        backend.axpby(b, &gram, c, &mut polynomial)?;
        if n <= k {
            product(&polynomial, Rhs::Matrix(&x_now), &mut x_next)?;
        } else {
            product(&x_now, Rhs::Matrix(&polynomial), &mut x_next)?;
        }
        backend.axpby(a, &x_now, 1.0, &mut x_next)?;
        std::mem::swap(&mut x_now, &mut x_next);
    }
    Ok(x_now)
}

/// Work of one update of a matrix `[n, k]`.
#[must_use]
pub fn cost(n: usize, k: usize) -> Cost {
    let (side, numel) = (n.min(k) as u64, (n * k) as u64);
    let iteration = 4 * numel * side + 2 * side.pow(3) + 3 * side.pow(2) + 3 * numel;
    Cost {
        flops: ITERATIONS as u64 * iteration + 10 * numel,
        bytes: 20 * numel,
    }
}
