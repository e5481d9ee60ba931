//! The model as it is trained.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use llada_diffusion::{
    Candidates, Choice, Export, MaskPredictor, Parameter, ParameterKind, PredictorInfo, Query,
    Result as DiffusionResult, TokenBatch, Trainable,
};
use llada_tensor::backend::PackedWeight;
use llada_tensor::ops::embedding::write_rows;
use llada_tensor::ops::matmul::pack;
use llada_tensor::ops::moe::{Routes, pack_experts};
use llada_tensor::{DType, Device, Precision, Tape, Tensor, Var};

use crate::config::is_of_router;
use crate::family::places::{FileTensor, file_tensors, n_rows};
use crate::files::SINGLE;
use crate::init::initial_parameters;
use crate::lora::{ADAPTERS, Lora, LoraConfig};
use crate::network::{FrozenWeight, Network, Parameters, Pass, Trained, kind};
use crate::stored::pack_router;
use crate::{FrozenModel, ModelConfig, Result};

/// A LLaDA mask predictor that can be trained: `f32` parameters, or adapters of them, and at the
/// first inference a [`FrozenModel`] of them.
#[derive(Debug)]
pub struct LladaModel {
    network: Arc<Network>,
    parameters: Vec<Parameter>,
    /// Trained in place of the parameters.
    lora: Option<Lora>,
    checkpoints_activations: bool,
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
            lora: None,
            checkpoints_activations: false,
            frozen,
        })
    }

    /// The model with low-rank adapters that change nothing yet. They alone are parameters from
    /// now on; [`Trainable::export`] and inference merge them into the weights.
    ///
    /// # Errors
    /// [`Error::UnsupportedField`](crate::Error::UnsupportedField) if the configuration is wrong.
    pub fn with_lora(mut self, config: &LoraConfig, seed: u64) -> Result<Self> {
        let device = &self.network.device;
        self.lora = Some(Lora::new(self.config(), config, device, seed)?);
        self.frozen.take();
        Ok(self)
    }

    /// The model with activation checkpointing, or without: in training only the input of each
    /// block is kept, and the rest is computed again in the backward pass. Gradients are the same
    /// bits.
    #[must_use]
    pub fn checkpoint_activations(mut self, checkpoints: bool) -> Self {
        self.checkpoints_activations = checkpoints;
        self
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
        let values = initial_parameters(&config, device, seed)?;
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

    /// As [`FrozenModel::routes`].
    ///
    /// # Errors
    /// If a token or a length is out of range.
    pub fn routes(&self, batch: &TokenBatch) -> DiffusionResult<Vec<Routes>> {
        self.frozen()?.routes(batch)
    }

    /// The model as it is now, for inference.
    fn frozen(&self) -> llada_tensor::Result<&FrozenModel> {
        if let Some(frozen) = self.frozen.get() {
            return Ok(frozen);
        }
        let freeze = |(index, parameter): (usize, &Parameter)| {
            let forms = self.network.forms(index, parameter.kind);
            let value = self.merged(index)?;
            let precision = self.network.precision;
            let packed = || match parameter.kind {
                ParameterKind::Experts => pack_stack(&value, precision),
                _ if is_of_router(&parameter.name) => pack_router(&value, precision),
                _ => pack(&value, precision),
            };
            Ok(FrozenWeight {
                tensor: forms.tensor.then(|| value.clone()),
                packed: forms.packed.then(packed).transpose()?,
                mapped: None,
            })
        };
        let weights = self.parameters.iter().enumerate().map(freeze);
        let weights = weights.collect::<llada_tensor::Result<_>>()?;
        let frozen = FrozenModel::new(Arc::clone(&self.network), weights);
        Ok(self.frozen.get_or_init(|| frozen))
    }

    /// A parameter of the whole model, its adapter merged.
    fn merged(&self, index: usize) -> llada_tensor::Result<Tensor> {
        let value = &self.parameters[index].value;
        match &self.lora {
            Some(lora) => lora.merged(index, value),
            None => Ok(value.clone()),
        }
    }

    /// The tensors of the files of the whole model, adapters merged.
    pub(crate) fn tensors(&self) -> llada_tensor::Result<Vec<(String, Tensor)>> {
        let merged = (0..self.parameters.len()).map(|index| self.merged(index));
        self.in_files(&merged.collect::<llada_tensor::Result<Vec<_>>>()?)
    }

    /// What lies in the place of the parameters (their values, gradients), as the tensors of the files
    /// of a checkpoint, with their names and shapes there.
    ///
    /// # Errors
    /// If the runtime fails.
    pub fn in_files(&self, values: &[Tensor]) -> llada_tensor::Result<Vec<(String, Tensor)>> {
        let named = |file: FileTensor| Ok((file.name.clone(), file_tensor(&file, values)?));
        file_tensors(self.config()).into_iter().map(named).collect()
    }
}

/// A tensor of the files, of the parameters that it holds.
fn file_tensor(file: &FileTensor, values: &[Tensor]) -> llada_tensor::Result<Tensor> {
    let part = |(at, rows): &(usize, Range<usize>)| {
        let value = &values[*at];
        let (n, width) = (
            n_rows(value.shape()),
            value.numel() / n_rows(value.shape()).max(1),
        );
        let all = value.reshape(&[n, width])?;
        all.narrow(0, rows.start, rows.len())
    };
    if let [only] = &file.parts[..] {
        return part(only)?.reshape(&file.shape);
    }
    let Some(first) = file.parts.first() else {
        unreachable!("a tensor of the files holds a parameter")
    };
    let (device, width) = (values[first.0].device(), part(first)?.shape()[1]);
    let mut whole = Tensor::empty(device, DType::F32, &[n_rows(&file.shape), width])?;
    let mut done = 0;
    for each in &file.parts {
        write_rows(&mut whole, done, &part(each)?)?;
        done += each.1.len();
    }
    whole.reshape(&file.shape)
}

/// Packs the matrices of experts `[E, N, K]`.
fn pack_stack(value: &Tensor, precision: Precision) -> llada_tensor::Result<Arc<dyn PackedWeight>> {
    let &[e, n, k] = value.shape() else {
        unreachable!("experts are a stack of matrices")
    };
    let values = value.to_vec_f32()?;
    let fill = |rows: Range<usize>, out: &mut [f32]| {
        out.copy_from_slice(&values[rows.start * k..rows.end * k]);
    };
    pack_experts(value.device(), [e, n, k], precision, &fill)
}

impl MaskPredictor for LladaModel {
    fn info(&self) -> PredictorInfo {
        self.network.info()
    }

    fn logits(&self, query: Query<'_>) -> DiffusionResult<Vec<f32>> {
        self.frozen()?.logits(query)
    }

    fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> DiffusionResult<Candidates> {
        self.frozen()?.candidates(query, choice)
    }

    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> DiffusionResult<Vec<f32>> {
        self.frozen()?.token_losses(query, targets)
    }
}

impl Trainable for LladaModel {
    fn device(&self) -> &Device {
        &self.network.device
    }

    fn parameters(&self) -> &[Parameter] {
        match &self.lora {
            Some(lora) => &lora.adapters,
            None => &self.parameters,
        }
    }

    fn parameters_mut(&mut self) -> &mut [Parameter] {
        self.frozen.take();
        match &mut self.lora {
            Some(lora) => &mut lora.adapters,
            None => &mut self.parameters,
        }
    }

    fn export(&self) -> DiffusionResult<Vec<Export>> {
        let mut files = vec![Export {
            file: SINGLE,
            tensors: self.tensors()?,
        }];
        if let Some(lora) = &self.lora {
            let named = |p: &Parameter| (p.name.clone(), p.value.clone());
            files.push(Export {
                file: ADAPTERS,
                tensors: lora.adapters.iter().map(named).collect(),
            });
        }
        Ok(files)
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
        let trained = Arc::new(Trained::new(&self.parameters, self.lora.as_ref()));
        let input = self.network.input(batch, positions);
        let hidden = match self.checkpoints_activations {
            true => self.network.hidden_checkpointed(tape, &trained, input)?,
            false => {
                let mut pass = Pass::new(tape, Parameters::Trained(&trained));
                self.network.hidden(&mut pass, &input)?
            }
        };
        let mut pass = Pass::new(tape, Parameters::Trained(&trained));
        let head = pass.parameter(self.network.head.weight);
        let bias = self.network.head.bias.map(|bias| pass.parameter(bias));
        Ok(pass
            .tape
            .cross_entropy(&hidden, &head, bias.as_ref(), targets, weights)?)
    }
}
