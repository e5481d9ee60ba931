//! AdamW over the parameters of a model.

use llada_diffusion::Parameter;
use llada_tensor::ops::adamw::{AdamWArgs, adamw};
use llada_tensor::{DType, Gradients, Tensor};

use crate::{OptimizationConfig, Result};

/// The two moments of each parameter.
#[derive(Debug)]
pub struct AdamW {
    first: Vec<Tensor>,
    second: Vec<Tensor>,
}

impl AdamW {
    /// Moments of zero.
    #[must_use]
    pub fn new(parameters: &[Parameter]) -> Self {
        let zeros = |p: &Parameter| Tensor::zeros(p.value.device(), DType::F32, p.value.shape());
        Self {
            first: parameters.iter().map(zeros).collect(),
            second: parameters.iter().map(zeros).collect(),
        }
    }

    pub(crate) fn from_moments(first: Vec<Tensor>, second: Vec<Tensor>) -> Self {
        Self { first, second }
    }

    pub(crate) fn first_moments(&self) -> &[Tensor] {
        &self.first
    }

    pub(crate) fn second_moments(&self) -> &[Tensor] {
        &self.second
    }

    /// One update of every parameter; `step` counts from 1, for the bias correction.
    ///
    /// # Errors
    /// If the runtime fails.
    pub fn update(
        &mut self,
        parameters: &mut [Parameter],
        gradients: &Gradients,
        config: &OptimizationConfig,
        learning_rate: f64,
        gradient_scale: f64,
        step: u64,
    ) -> Result<()> {
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((parameter, gradient), (first_moment, second_moment)) in
            parameters.iter_mut().zip(gradients.tensors()).zip(moments)
        {
            adamw(AdamWArgs {
                parameter: &mut parameter.value,
                gradient,
                first_moment,
                second_moment,
                learning_rate: learning_rate as f32,
                beta1: config.beta1 as f32,
                beta2: config.beta2 as f32,
                eps: config.eps as f32,
                weight_decay: if parameter.decay {
                    config.weight_decay as f32
                } else {
                    0.0
                },
                gradient_scale: gradient_scale as f32,
                step,
            })?;
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
