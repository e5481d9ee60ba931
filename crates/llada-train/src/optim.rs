//! AdamW, or Muon for the matrices of the blocks, over the parameters of a model.

use llada_diffusion::{Parameter, ParameterKind};
use llada_tensor::ops::adamw::{AdamWArgs, adamw};
use llada_tensor::ops::muon::{MuonArgs, muon};
use llada_tensor::{DType, Gradients, Tensor};

use crate::communicator::{Communicator, Single, broadcast_values};
use crate::shards::Shards;
use crate::{OptimizationConfig, OptimizerName, Result};

/// The gradient of each parameter, and the two moments of those that this process keeps; Muon
/// leaves the second at zero.
#[derive(Debug)]
pub struct Optimizer<'a> {
    /// Filled by the backward pass, read by [`Self::update`].
    pub gradients: Gradients,
    /// Gradients of a single micro-batch, where a step has several.
    pub(crate) micro_batch: Option<Gradients>,
    moments: Vec<Option<[Tensor; 2]>>,
    pub(crate) shards: Shards,
    pub(crate) communicator: &'a dyn Communicator,
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

impl Optimizer<'static> {
    /// Moments of zero, for a run of one process.
    ///
    /// # Errors
    /// If they do not fit into memory.
    pub fn new(parameters: &[Parameter]) -> Result<Self> {
        Self::sharded(parameters, &Single)
    }
}

impl<'a> Optimizer<'a> {
    /// Moments of zero, of this rank's share of the parameters.
    ///
    /// # Errors
    /// If they do not fit into memory.
    pub fn sharded(parameters: &[Parameter], communicator: &'a dyn Communicator) -> Result<Self> {
        let numels = parameters.iter().map(|p| p.value.numel()).collect();
        let shards = Shards::new(numels, communicator.size());
        let mut moments = Vec::with_capacity(parameters.len());
        for (index, p) in parameters.iter().enumerate() {
            let zeros = || Tensor::zeros(p.value.device(), DType::F32, p.value.shape());
            let is_mine = shards.owner(index) == communicator.rank();
            moments.push(if is_mine {
                Some([zeros()?, zeros()?])
            } else {
                None
            });
        }
        Ok(Self {
            gradients: Gradients::zeros_like(parameters.iter().map(|p| &p.value))?,
            micro_batch: None,
            moments,
            shards,
            communicator,
        })
    }

    /// The first (0) or second (1) moment of a parameter; all ranks ask at the same time.
    pub(crate) fn moment(&self, order: usize, parameter: usize) -> Result<Vec<f32>> {
        let mine = match &self.moments[parameter] {
            Some(moments) => moments[order].to_vec_f32()?,
            None => Vec::new(),
        };
        let owner = self.shards.owner(parameter);
        Ok(broadcast_values(self.communicator, owner, mine))
    }

    /// Sets a moment, if this rank keeps it.
    pub(crate) fn set_moment(
        &mut self,
        order: usize,
        parameter: usize,
        values: &[f32],
    ) -> Result<()> {
        if let Some(moments) = &mut self.moments[parameter] {
            let moment = &mut moments[order];
            *moment = Tensor::from_f32(moment.device(), moment.shape(), values)?;
        }
        Ok(())
    }

    /// Euclidean norm of all gradients together, which are sums by now, in `f64`.
    pub(crate) fn gradient_norm(&self) -> Result<f64> {
        let gradients = self.gradients.tensors();
        let is_mine = |index: &usize| self.moments[*index].is_some();
        let indexes = (0..gradients.len()).filter(is_mine);
        let mine: Vec<&Tensor> = indexes.map(|index| &gradients[index]).collect();
        let mine = match mine.first() {
            Some(first) => first.device().backend().sums_of_squares(&mine)?,
            None => Vec::new(),
        };
        let all = self.communicator.all_gather(&mine);
        let mut all: Vec<_> = all.iter().map(|squares| squares.iter()).collect();
        // In the order of the parameters, whichever rank keeps them.
        let of = |index| all[self.shards.owner(index)].next();
        let squares: Option<Vec<&f64>> = (0..gradients.len()).map(of).collect();
        let squares = squares.expect("every rank tells one for each that it keeps");
        Ok(squares.into_iter().sum::<f64>().sqrt())
    }

    /// One update of every parameter by its gradient, each by the rank that keeps its moments.
    ///
    /// # Errors
    /// If the runtime fails.
    pub fn update(
        &mut self,
        parameters: &mut [Parameter],
        config: &OptimizationConfig,
        update: Update,
    ) -> Result<()> {
        let (communicator, rank) = (self.communicator, self.communicator.rank());
        let mut on_the_way = None;
        for bucket in 0..self.shards.buckets().len() {
            let gradients = self.gradients.tensors();
            for index in self.shards.buckets()[bucket].clone() {
                if let Some(moments) = &mut self.moments[index] {
                    let (parameter, gradient) = (&mut parameters[index], &gradients[index]);
                    update_one(parameter, gradient, moments, config, update)?;
                }
            }
            if communicator.size() == 1 {
                continue;
            }
            // One bucket travels while the next is updated.
            let wait = self.shards.start_return(bucket, parameters, communicator)?;
            if let Some((bucket, wait)) = on_the_way.replace((bucket, wait)) {
                self.shards
                    .finish_return(bucket, parameters, rank, &wait())?;
            }
        }
        if let Some((bucket, wait)) = on_the_way {
            self.shards
                .finish_return(bucket, parameters, rank, &wait())?;
        }
        Ok(())
    }
}

fn update_one(
    parameter: &mut Parameter,
    gradient: &Tensor,
    [first_moment, second_moment]: &mut [Tensor; 2],
    config: &OptimizationConfig,
    update: Update,
) -> Result<()> {
    let weight_decay = match parameter.kind {
        ParameterKind::Vector => 0.0,
        ParameterKind::Table | ParameterKind::Matrix | ParameterKind::Experts => {
            config.weight_decay as f32
        }
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
    Ok(())
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
