//! Mixture of experts: a router chooses `k` of `E` small feed-forward networks for each token.
//!
//! Both ops leave the choice on the device. The rows that experts compute are *grouped*: the
//! `T * k` pairs of a token and one of its experts, by ascending expert and, within one, by
//! ascending token.

mod experts;

use std::ops::Range;
use std::sync::Arc;

use crate::backend::{FillCodes, FillRows, PackedWeight};
use crate::error::expect_shapes;
use crate::quantize::{self, RowCodes};
use crate::{DType, Device, Error, Precision, Result, Tape, Tensor, Var};

pub use experts::{
    ExpertGradientArgs, ExpertRows, ExpertWeights, ExpertsArgs, ExpertsBackwardArgs,
    cost as experts_cost,
};

/// How the `k` experts of a token are chosen and weighed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RouterRule {
    /// `p = softmax(logits)` over all experts, plus the bias where there is one; the `k` largest
    /// `p` are taken and are the weights, not made to sum to one.
    ///
    /// Source: the published code of LLaDA-MoE.
    Softmax,
    /// `s = sigmoid(logits)` and `c = s + bias`. Experts lie in `n_group` runs of equal size; a
    /// group scores the sum of its two largest `c` (or its only one); of the experts of the
    /// `topk_group` best groups the `k` with the largest `c` are taken. Weights are the `s` of these,
    /// divided by their sum `+ 1e-20` if `k > 1`, times `scale`.
    ///
    /// Source: the published code of LLaDA2.0 and 2.1.
    Groups {
        /// Groups of experts.
        n_group: usize,
        /// Groups whose experts can be taken.
        topk_group: usize,
        /// Factor on the weights.
        scale: f32,
    },
    /// `s` and `c` as in [`Self::Groups`]. In a run of tokens an expert scores its largest `c`, and
    /// the `capacity` best experts of the run are allowed; each token takes the `k` with the largest
    /// `c` of these. Weights as in [`Self::Groups`].
    ///
    /// Source: what engines do with LLaDA2.2.
    Capacity {
        /// Experts that a run of tokens can take; all if there are no more.
        capacity: usize,
        /// Factor on the weights.
        scale: f32,
    },
}

/// What is added to the sum that weights are divided by.
pub(crate) const SUM_EPS: f32 = 1e-20;

/// A rule with its sizes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Router {
    /// Experts `E`.
    pub n_experts: usize,
    /// Experts of a token.
    pub k: usize,
    /// How they are chosen.
    pub rule: RouterRule,
}

impl Router {
    /// Whether the sizes fit together.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `k` is 0 or more than there are experts to take, or groups do
    /// not divide the experts.
    pub fn check(&self) -> Result<()> {
        let (op, n_experts) = ("route", self.n_experts);
        let invalid = |what| Err(Error::InvalidArgument { op, what });
        if self.k == 0 {
            return invalid("expected at least one expert for each token (k), got none");
        }
        // Ids are numbers of `f32` on their way.
        if n_experts > 1 << 24 {
            return invalid("expected at most 2^24 experts, got more");
        }
        let allowed = match self.rule {
            RouterRule::Softmax => n_experts,
            RouterRule::Groups {
                n_group,
                topk_group,
                ..
            } => {
                if n_group == 0 || !n_experts.is_multiple_of(n_group) {
                    return invalid(
                        "expected groups of equal size, got n_group that does not divide the experts",
                    );
                }
                if topk_group == 0 || topk_group > n_group {
                    return invalid("expected topk_group from 1 to n_group, got another number");
                }
                topk_group * (n_experts / n_group)
            }
            RouterRule::Capacity { capacity, .. } => capacity.min(n_experts),
        };
        match self.k <= allowed {
            true => Ok(()),
            false => invalid(
                "expected at most as many experts for each token (k) as the rule leaves, got more",
            ),
        }
    }
}

/// The experts of each token and their weights: `k` of each.
#[derive(Debug, Clone)]
pub struct Routes {
    n_experts: usize,
    /// `[T, k]`, numbers in `f32` that stay on the device.
    ids: Tensor,
    weights: Var,
}

impl Routes {
    /// The experts `[T, k]`, row-major, ascending within a token.
    ///
    /// # Errors
    /// If the device fails.
    pub fn ids(&self) -> Result<Vec<u32>> {
        let ids = self.ids.to_vec_f32()?;
        Ok(ids.into_iter().map(|id| id as u32).collect())
    }

    /// `[T, k]`, in the order of [`Self::ids`].
    #[must_use]
    pub fn weights(&self) -> &Var {
        &self.weights
    }
}

/// Arguments of [`crate::backend::Backend::route`].
#[derive(Debug)]
pub struct RouteArgs<'a> {
    /// `[T, E]`
    pub logits: &'a Tensor,
    /// `[E]`
    pub bias: Option<&'a Tensor>,
    /// The rule, whose sizes were checked.
    pub router: Router,
    /// Boundaries `[R + 1]` of the runs of [`RouterRule::Capacity`]; empty for other rules.
    pub runs: &'a [usize],
    /// Output `[T, k]`: ids as numbers, ascending within a token.
    pub ids: &'a mut Tensor,
    /// Output `[T, k]`
    pub weights: &'a mut Tensor,
}

/// Arguments of [`crate::backend::Backend::route_backward`].
#[derive(Debug)]
pub struct RouteBackwardArgs<'a> {
    /// `[T, E]`
    pub logits: &'a Tensor,
    /// The rule.
    pub router: Router,
    /// Saved `[T, k]`
    pub ids: &'a Tensor,
    /// Gradient of the weights `[T, k]`.
    pub dweights: &'a Tensor,
    /// Output `[T, E]`
    pub dlogits: &'a mut Tensor,
}

/// Packs experts `[E, N, K]` for [`Tape::experts`]; `fill` is asked for rows of the stack
/// `[E * N, K]`, some at a time.
///
/// # Errors
/// As [`crate::backend::Backend::pack_experts`].
pub fn pack_experts(
    device: &Device,
    shape: [usize; 3],
    precision: Precision,
    fill: FillRows<'_>,
) -> Result<Arc<dyn PackedWeight>> {
    device.backend().pack_experts(shape, precision, fill)
}

/// As [`pack_experts`], of weights whose codes are known.
///
/// # Errors
/// [`Error::InvalidArgument`] if `precision` has no codes or a row is too long.
pub fn pack_expert_codes(
    device: &Device,
    shape: [usize; 3],
    precision: Precision,
    fill: FillCodes<'_>,
) -> Result<Arc<dyn PackedWeight>> {
    quantize::expect_codes("pack_expert_codes", precision)?;
    let fill = |rows: Range<usize>, out: RowCodes<'_>| quantize::fill_in_range(fill, rows, out);
    (device.backend()).pack_expert_codes(shape, precision, &fill)
}

impl Tape {
    /// Chooses the experts of each token. Of equal scores the lower index wins; NaN is smaller than
    /// every number.
    ///
    /// - `logits`: `[T, E]`; `bias`: `[E]`; `runs`: boundaries `[R + 1]` of the runs of
    ///   [`RouterRule::Capacity`], from 0 to `T`; other rules ignore them.
    /// - All of it is `f32`.
    /// - Gradient: to the logits through the weights; the choice itself has none.
    ///
    /// # Errors
    /// As [`Router::check`]; [`Error::Rank`], [`Error::ShapeMismatch`] or [`Error::DTypeMismatch`];
    /// [`Error::InvalidArgument`] if the runs do not cover the tokens.
    pub fn route(
        &mut self,
        logits: &Var,
        bias: Option<&Tensor>,
        router: &Router,
        runs: &[usize],
    ) -> Result<Routes> {
        let (op, router) = ("route", *router);
        router.check()?;
        let [tokens, n_experts] = logits.value().matrix_shape(op)?;
        expect_shapes(op, &[tokens, n_experts], &[tokens, router.n_experts])?;
        logits.value().expect_f32(op)?;
        if let Some(bias) = bias {
            expect_shapes(op, bias.shape(), &[n_experts])?;
            bias.expect_f32(op)?;
        }
        let runs = match router.rule {
            RouterRule::Capacity { .. } => runs,
            _ => &[],
        };
        if matches!(router.rule, RouterRule::Capacity { .. }) && !covers(runs, tokens) {
            let what = "expected ascending boundaries of runs from 0 to the number of tokens";
            return Err(Error::InvalidArgument { op, what });
        }
        let empty = || Tensor::empty(self.device(), DType::F32, &[tokens, router.k]);
        let (mut ids, mut weights) = (empty()?, empty()?);
        self.device().backend().route(RouteArgs {
            logits: logits.value(),
            bias,
            router,
            runs,
            ids: &mut ids,
            weights: &mut weights,
        })?;
        let (logits_in, ids_in) = (logits.clone(), ids.clone());
        let weights = self.push(weights, &[logits], move |dweights, sink| {
            let logits = logits_in.value();
            let mut dlogits = Tensor::empty(logits.device(), DType::F32, logits.shape())?;
            logits
                .device()
                .backend()
                .route_backward(RouteBackwardArgs {
                    logits,
                    router,
                    ids: &ids_in,
                    dweights,
                    dlogits: &mut dlogits,
                })?;
            sink.add(&logits_in, dlogits)
        });
        Ok(Routes {
            n_experts,
            ids,
            weights,
        })
    }
}

fn covers(runs: &[usize], tokens: usize) -> bool {
    runs.first() == Some(&0) && runs.last() == Some(&tokens) && runs.is_sorted()
}
