//! The model as it is trained.

use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};

use llada_diffusion::{
    Cached, Candidate, MaskPredictor, Noise, Parameter, PredictorInfo, Result as DiffusionResult,
    TokenBatch, Trainable,
};
use llada_tensor::backend::DenoisingStep;
use llada_tensor::ops::candidates::CandidateRule;
use llada_tensor::ops::matmul::pack;
use llada_tensor::{Device, Precision, Tape, Tensor, Var};

use crate::network::{FrozenWeight, Network, Parameters, Pass, kind};
use crate::window::Input;
use crate::{FrozenModel, ModelConfig, Result};

/// A LLaDA mask predictor that can be trained: `f32` parameters, and at the first inference a
/// [`FrozenModel`] of them.
#[derive(Debug)]
pub struct LladaModel {
    network: Arc<Network>,
    parameters: Vec<Parameter>,
    frozen: OnceLock<FrozenModel>,
}

impl LladaModel {
    /// A model with the given parameters, in the order of [`ModelConfig::parameter_shapes`].
    ///
    /// # Errors
    /// If the configuration is not supported or a value has another shape.
    pub fn new(
        config: ModelConfig,
        device: &Device,
        precision: Precision,
        values: Vec<Tensor>,
    ) -> Result<Self> {
        let shapes = config.parameter_shapes();
        let network = Arc::new(Network::new(config, device, precision)?);
        let mismatch = |lhs: &[usize], rhs: &[usize]| llada_tensor::Error::ShapeMismatch {
            op: "model",
            lhs: lhs.to_vec(),
            rhs: rhs.to_vec(),
        };
        if values.len() != shapes.len() {
            return Err(mismatch(&[values.len()], &[shapes.len()]).into());
        }
        let mut parameters = Vec::with_capacity(values.len());
        for ((name, shape), value) in shapes.into_iter().zip(values) {
            if value.shape() != shape {
                return Err(mismatch(value.shape(), &shape).into());
            }
            let kind = kind(&name, &shape);
            parameters.push(Parameter { name, value, kind });
        }
        let frozen = OnceLock::new();
        Ok(Self {
            network,
            parameters,
            frozen,
        })
    }

    /// A model with random parameters.
    ///
    /// # Errors
    /// If the configuration is not supported.
    pub fn random(
        config: ModelConfig,
        device: &Device,
        precision: Precision,
        seed: u64,
    ) -> Result<Self> {
        let values = config
            .parameter_shapes()
            .iter()
            .enumerate()
            .map(|(index, (name, shape))| {
                crate::init::initial_parameter(&config, device, index, name, shape, seed)
            })
            .collect::<Result<_>>()?;
        Self::new(config, device, precision, values)
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.network.config
    }

    /// Precision of the matrix products.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.network.precision
    }

    /// As [`FrozenModel::block_causal`].
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn block_causal(mut self, block_size: NonZeroUsize) -> Result<Self> {
        self.network = Arc::new(self.network.block_causal(block_size)?);
        self.frozen.take();
        Ok(self)
    }

    /// As [`FrozenModel::hidden_states`].
    ///
    /// # Errors
    /// If a token or a length is out of range.
    pub fn hidden_states(&self, batch: &TokenBatch) -> DiffusionResult<Vec<Tensor>> {
        self.frozen()?.hidden_states(batch)
    }

    /// The model as it is now, for inference.
    fn frozen(&self) -> llada_tensor::Result<&FrozenModel> {
        if let Some(frozen) = self.frozen.get() {
            return Ok(frozen);
        }
        let freeze = |(index, parameter): (usize, &Parameter)| {
            let forms = self.network.forms(index, parameter.kind);
            let packed = || pack(&parameter.value, self.network.precision);
            Ok(FrozenWeight {
                tensor: forms.tensor.then(|| parameter.value.clone()),
                packed: forms.packed.then(packed).transpose()?,
            })
        };
        let weights = self.parameters.iter().enumerate().map(freeze);
        let weights = weights.collect::<llada_tensor::Result<_>>()?;
        let frozen = FrozenModel::new(Arc::clone(&self.network), weights);
        Ok(self.frozen.get_or_init(|| frozen))
    }
}

impl MaskPredictor for LladaModel {
    fn info(&self) -> PredictorInfo {
        self.network.info()
    }

    fn logits(&self, batch: &TokenBatch, positions: &[usize]) -> DiffusionResult<Vec<f32>> {
        self.frozen()?.logits(batch, positions)
    }

    fn candidates(
        &self,
        batch: &TokenBatch,
        unconditional: Option<&TokenBatch>,
        positions: &[usize],
        rule: &CandidateRule<'_>,
        noise: &Noise<'_>,
    ) -> DiffusionResult<Vec<Candidate>> {
        let frozen = self.frozen()?;
        frozen.candidates(batch, unconditional, positions, rule, noise)
    }

    fn candidates_cached(
        &self,
        batch: &TokenBatch,
        cached: Cached<'_>,
        positions: &[usize],
        rule: &CandidateRule<'_>,
        noise: &Noise<'_>,
    ) -> DiffusionResult<Vec<Candidate>> {
        let frozen = self.frozen()?;
        frozen.candidates_cached(batch, cached, positions, rule, noise)
    }

    fn candidates_ahead(
        &self,
        batch: &TokenBatch,
        positions: &[usize],
        rule: &CandidateRule<'_>,
        steps: &[DenoisingStep<'_>],
    ) -> DiffusionResult<Option<Vec<Vec<Candidate>>>> {
        let frozen = self.frozen()?;
        frozen.candidates_ahead(batch, positions, rule, steps)
    }

    fn token_losses(
        &self,
        batch: &TokenBatch,
        positions: &[usize],
        targets: &[u32],
    ) -> DiffusionResult<Vec<f32>> {
        self.frozen()?.token_losses(batch, positions, targets)
    }

    fn guided_token_losses(
        &self,
        batch: &TokenBatch,
        unconditional: &TokenBatch,
        cfg_scale: f32,
        positions: &[usize],
        targets: &[u32],
    ) -> DiffusionResult<Vec<f32>> {
        let frozen = self.frozen()?;
        frozen.guided_token_losses(batch, unconditional, cfg_scale, positions, targets)
    }
}

impl Trainable for LladaModel {
    fn device(&self) -> &Device {
        &self.network.device
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn parameters_mut(&mut self) -> &mut [Parameter] {
        self.frozen.take();
        &mut self.parameters
    }

    fn weighted_cross_entropy(
        &self,
        tape: &mut Tape,
        batch: &TokenBatch,
        positions: &[usize],
        targets: &[u32],
        weights: &[f32],
    ) -> DiffusionResult<Var> {
        self.network.check(batch, positions)?;
        let mut pass = Pass {
            tape,
            parameters: Parameters::Trained(&self.parameters),
            cached: None,
            states: None,
        };
        let hidden = self
            .network
            .hidden(&mut pass, &Input::new(batch, positions))?;
        let head = pass.parameter(self.network.head.weight);
        let bias = self.network.head.bias.map(|bias| pass.parameter(bias));
        Ok(pass
            .tape
            .cross_entropy(&hidden, &head, bias.as_ref(), targets, weights)?)
    }
}
