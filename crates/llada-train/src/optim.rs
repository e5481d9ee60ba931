//! AdamW, or Muon for the matrices of the blocks, over the parameters of a model.

use llada_diffusion::{Parameter, ParameterKind};
use llada_tensor::ops::adamw::{AdamWArgs, adamw};
use llada_tensor::ops::muon::{MuonArgs, muon};
use llada_tensor::{DType, Gradients, Tensor};

use crate::{OptimizationConfig, OptimizerName, Result};

/// The gradient and the two moments of each parameter; Muon leaves the second at zero.
#[derive(Debug)]
pub struct Optimizer {
    /// Filled by the backward pass, read by [`Self::update`].
    pub gradients: Gradients,
    first: Vec<Tensor>,
    second: Vec<Tensor>,
}

/// What differs from one update to the next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Number of the update, from 1, for the bias correction.
    pub step: u64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Factor on every gradient, for clipping.
    pub gradient_scale: f64,
}

impl Optimizer {
    /// Moments of zero.
    ///
    /// # Errors
    /// If they do not fit into memory.
    pub fn new(parameters: &[Parameter]) -> Result<Self> {
        let zeros = |p: &Parameter| Tensor::zeros(p.value.device(), DType::F32, p.value.shape());
        let moments = || {
            parameters
                .iter()
                .map(zeros)
                .collect::<llada_tensor::Result<_>>()
        };
        Self::from_moments(parameters, moments()?, moments()?)
    }

    pub(crate) fn from_moments(
        parameters: &[Parameter],
        first: Vec<Tensor>,
        second: Vec<Tensor>,
    ) -> Result<Self> {
        let gradients = Gradients::zeros_like(parameters.iter().map(|p| &p.value))?;
        Ok(Self {
            gradients,
            first,
            second,
        })
    }

    pub(crate) fn first_moments(&self) -> &[Tensor] {
        &self.first
    }

    pub(crate) fn second_moments(&self) -> &[Tensor] {
        &self.second
    }

    /// One update of every parameter by its gradient.
    ///
    /// # Errors
    /// If the runtime fails.
    pub fn update(
        &mut self,
        parameters: &mut [Parameter],
        config: &OptimizationConfig,
        update: Update,
    ) -> Result<()> {
        let moments = self.first.iter_mut().zip(&mut self.second);
        let gradients = self.gradients.tensors();
        for ((parameter, gradient), (first_moment, second_moment)) in
            parameters.iter_mut().zip(gradients).zip(moments)
        {
            let weight_decay = match parameter.kind {
                ParameterKind::Vector => 0.0,
                ParameterKind::Table | ParameterKind::Matrix => config.weight_decay as f32,
            };
            let (learning_rate, gradient_scale) =
                (update.learning_rate as f32, update.gradient_scale as f32);
            match (config.optimizer, parameter.kind) {
                (OptimizerName::Muon, ParameterKind::Matrix) => muon(MuonArgs {
                    parameter: &mut parameter.value,
                    gradient,
                    momentum: first_moment,
                    learning_rate,
                    beta: config.muon_momentum as f32,
                    weight_decay,
                    gradient_scale,
                    precision: config.precision.into(),
                })?,
                _ => adamw(AdamWArgs {
                    parameter: &mut parameter.value,
                    gradient,
                    first_moment,
                    second_moment,
                    learning_rate,
                    beta1: config.beta1 as f32,
                    beta2: config.beta2 as f32,
                    eps: config.eps as f32,
                    weight_decay,
                    gradient_scale,
                    step: update.step,
                })?,
            }
        }
        Ok(())
    }
}

/// Factor that brings a gradient of this norm to at most `clip_norm`; 0 means no clipping.
pub(crate) fn clip_coefficient(clip_norm: f64, norm: f64) -> f64 {
    // 1e-6 as in PyTorch's clip_grad_norm_.
    if clip_norm > 0.0 {
        (clip_norm / (norm + 1e-6)).min(1.0)
    } else {
        1.0
    }
}

#[cfg(test)]
mod tests;
