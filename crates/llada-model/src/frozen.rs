//! A model for inference: each weight in the layout of the backend, and nothing else.

use std::num::NonZeroUsize;
use std::sync::Arc;

use llada_diffusion::{
    Candidates, Choice, Denoiser, Denoising, Error as DiffusionError, MaskPredictor, PredictorInfo,
    Query, Result as DiffusionResult, TokenBatch, cross_entropies, denoiser, expect_targets,
    guide_all,
};
use llada_tensor::backend::{CandidateArgs, Recorder, Rhs, Step};
use llada_tensor::ops::candidates::{CandidateRule, candidates};
use llada_tensor::ops::cross_entropy::cross_entropy;
use llada_tensor::ops::moe::Routes;
use llada_tensor::{Device, Precision, Tape, Tensor, Var};

use crate::config::is_of_router;
use crate::gguf::MappedTable;
use crate::init::uniform_parameters;
use crate::network::{FrozenWeight, Network, Parameters, Pass, kind};
use crate::stored::Stored;
use crate::window::{Input, Window, index_u32, planned_positions, with_rows_before};
use crate::{ModelConfig, Result};

/// Rows that a recorded pass computes are a multiple of this.
const ROWS_AT_ONCE: usize = 8;

/// A LLaDA mask predictor that is not trained further: its matrices are packed for products, in
/// bf16 if that is the precision, and there is no other copy of them.
#[derive(Debug)]
pub struct FrozenModel {
    network: Arc<Network>,
    weights: Vec<FrozenWeight>,
    /// Of passes without caches, if the device has one.
    recorder: Option<Box<dyn Recorder>>,
    /// Takes several steps of sampling, if the device does.
    denoiser: Option<Box<dyn Denoiser>>,
}

impl FrozenModel {
    pub(crate) fn new(network: Arc<Network>, weights: Vec<FrozenWeight>) -> Self {
        let recorder = network.device.backend().recorder();
        let denoiser = denoiser(&network.device);
        Self {
            network,
            weights,
            recorder,
            denoiser,
        }
    }

    /// The model of tensors in the order of [`ModelConfig::parameter_shapes`], read one by one. On a
    /// device that does not look rows up by itself, the embedding stays where `mapped` has it.
    pub(crate) fn read(
        config: ModelConfig,
        tensors: &[Stored<'_>],
        mapped: Option<MappedTable>,
        device: &Device,
        precision: Precision,
    ) -> Result<Self> {
        let shapes = config.parameter_shapes();
        let network = Arc::new(Network::new(config, device, precision)?);
        let looks_up = device.backend().recorder().is_some() || denoiser(device).is_some();
        let mapped = mapped.filter(|_| !looks_up);
        let mut weights = Vec::with_capacity(tensors.len());
        for (index, (tensor, (name, shape))) in tensors.iter().zip(&shapes).enumerate() {
            let forms = network.forms(index, kind(name, shape));
            // Of the matrices the embedding alone is used as it is.
            let is_table = forms.tensor && shape.len() == 2;
            let mapped = mapped.clone().filter(|_| is_table);
            if mapped.is_some() {
                tensor.check_finite()?;
            }
            let read = || match is_of_router(name) {
                // Engines keep the bias of a router as it is.
                true => tensor.read(device),
                false => tensor.read_in(device, precision),
            };
            let pack = || match is_of_router(name) {
                true => tensor.pack_router(device, precision),
                false => tensor.pack(device, precision),
            };
            weights.push(FrozenWeight {
                tensor: (forms.tensor && mapped.is_none()).then(read).transpose()?,
                packed: forms.packed.then(pack).transpose()?,
                mapped,
            });
        }
        Ok(Self::new(network, weights))
    }

    /// A model with random weights, for measurements of speed: each goes a panel at a time into
    /// its packed form, so that a model of any size takes no more room than its packed weights.
    ///
    /// # Errors
    /// If the configuration is not supported.
    pub fn random(
        config: ModelConfig,
        device: &Device,
        precision: Precision,
        seed: u64,
    ) -> Result<Self> {
        config.check()?;
        let tensors = uniform_parameters(&config, seed);
        Self::read(config, &tensors, None, device, precision)
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

    /// Bytes of all weights in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let bytes = |weight: &FrozenWeight| {
            let tensor = weight.tensor.as_ref();
            let tensor = tensor.map_or(0, |x| x.numel() * x.dtype().size_bytes());
            tensor + weight.packed.as_ref().map_or(0, |packed| packed.bytes())
        };
        self.weights.iter().map(bytes).sum()
    }

    /// The same model with attention that is causal by blocks of `block_size` positions: each sees
    /// its own block and those before it, as in block-diffusion models (`LLaDA2`, Fast-dLLM v2).
    /// Calls with caches then compute whole prefixes and nothing else.
    ///
    /// # Errors
    /// If the device fails.
    pub fn block_causal(self, block_size: NonZeroUsize) -> Result<Self> {
        let network = self.network.block_causal(block_size)?;
        Ok(Self::new(Arc::new(network), self.weights))
    }

    /// Hidden states `[T, D]` of all tokens: the embeddings, then what each block gives, the last
    /// one after the norm `ln_f`; `output_hidden_states` of the reference.
    ///
    /// # Errors
    /// If a token or a length is out of range.
    pub fn hidden_states(&self, batch: &TokenBatch) -> DiffusionResult<Vec<Tensor>> {
        self.network.check(batch, &[])?;
        let positions: Vec<usize> = (0..batch.n_tokens()).collect();
        let mut states = Vec::new();
        let last = self.run(
            &Input::new(batch, &positions, false),
            None,
            Some(&mut states),
        )?;
        states.push(last);
        Ok(states)
    }

    /// The experts that each block with experts sends its tokens to, and their weights.
    ///
    /// # Errors
    /// If a token or a length is out of range.
    pub fn routes(&self, batch: &TokenBatch) -> DiffusionResult<Vec<Routes>> {
        self.network.check(batch, &[])?;
        let positions: Vec<usize> = (0..batch.n_tokens()).collect();
        let mut tape = Tape::inference(&self.network.device, self.network.precision);
        let mut routes = Vec::new();
        let pass = Pass::new(&mut tape, Parameters::Frozen(&self.weights));
        let mut pass = Pass {
            routes: Some(&mut routes),
            ..pass
        };
        self.network
            .hidden(&mut pass, &self.network.input(batch, &positions))?;
        Ok(routes)
    }

    /// Hidden states of positions, `[N, D]`.
    fn infer(&self, batch: &TokenBatch, positions: &[usize]) -> DiffusionResult<Tensor> {
        self.network.check(batch, positions)?;
        let mut input = self.network.input(batch, positions);
        let Some(recorder) = &self.recorder else {
            return Ok(self.run(&input, None, None)?);
        };
        let asked = input.pad_rows(ROWS_AT_ONCE);
        let key = self.network.recording_key(&input)?;
        let step = Step {
            key: &key,
            inputs: &[&input.ids, &input.rows],
        };
        let hidden = recorder.run(step, &mut || self.run(&input, None, None))?;
        Ok(hidden.narrow(0, 0, asked)?)
    }

    fn run(
        &self,
        input: &Input,
        cached: Option<Window<'_, '_>>,
        states: Option<&mut Vec<Tensor>>,
    ) -> llada_tensor::Result<Tensor> {
        let mut tape = Tape::inference(&self.network.device, self.network.precision);
        let pass = Pass::new(&mut tape, Parameters::Frozen(&self.weights));
        let mut pass = Pass {
            cached,
            states,
            ..pass
        };
        let hidden = self.network.hidden(&mut pass, input)?;
        Ok(hidden.value().clone())
    }

    /// `[N, V]` out of hidden states `[N, D]`.
    fn head_logits(&self, hidden: &Tensor) -> llada_tensor::Result<Vec<f32>> {
        let mut tape = Tape::inference(&self.network.device, self.network.precision);
        let mut pass = Pass::new(&mut tape, Parameters::Frozen(&self.weights));
        let logits = pass.linear(&Var::constant(hidden.clone()), self.network.head)?;
        logits.value().to_vec_f32()
    }

    /// Hidden states `[N, D]` of the positions of a query, and those of its guidance.
    fn answer(&self, query: Query<'_>) -> DiffusionResult<(Tensor, Option<(f32, Tensor)>)> {
        let Query {
            batch, positions, ..
        } = query;
        let Some(cached) = query.cached else {
            let hidden = self.infer(batch, positions)?;
            let guidance = query.guidance.map(|guidance| {
                let unconditional = self.infer(guidance.unconditional, positions)?;
                Ok::<_, DiffusionError>((guidance.cfg_scale, unconditional))
            });
            return Ok((hidden, guidance.transpose()?));
        };
        if query.guidance.is_some() {
            return Err(DiffusionError::Unsupported {
                what: "guidance with caches",
            });
        }
        self.network.check(batch, positions)?;
        let is_shifted = self.network.config.extras.shifts_logits;
        let widened = match is_shifted {
            true => Some(with_rows_before(cached.plans)?),
            false => None,
        };
        let mut cached = Window {
            plans: widened.as_deref().unwrap_or(cached.plans),
            caches: cached.caches,
            branches: cached.branches,
        };
        let at_rows = planned_positions(batch, &mut cached, positions, is_shifted)?;
        let input = Input::planned(batch, cached.plans, &at_rows);
        Ok((self.run(&input, Some(cached), None)?, None))
    }

    /// The candidates of several steps, which the device takes without waiting for the host.
    fn candidates_ahead(
        &self,
        denoiser: &dyn Denoiser,
        query: &Query<'_>,
        choice: &Choice<'_>,
    ) -> DiffusionResult<Candidates> {
        self.network.check(query.batch, query.positions)?;
        let mut input = self.network.input(query.batch, query.positions);
        let asked = input.pad_rows(ROWS_AT_ONCE);
        let rule = choice.rule(0.0);
        let mut key = self.network.recording_key(&input)?;
        key.push(index_u32(asked));
        key.extend(rule_key(&rule));
        let denoising = Denoising {
            key: &key,
            ids: &input.ids,
            rows: &input.rows,
            mask_token_id: self.network.config.mask_token_id,
            steps: choice.ahead,
        };
        let (head, bias) = self.head();
        let steps = denoiser.denoise(&denoising, &mut |noise, choose| {
            let hidden = self.run(&input, None, None)?.narrow(0, 0, asked)?;
            choose(&CandidateArgs {
                hidden: &hidden,
                unconditional: None,
                head,
                bias,
                rule: &rule,
                noise,
                precision: self.network.precision,
            })
        })?;
        let mut steps = steps.into_iter();
        Ok(Candidates {
            now: steps.next().unwrap_or_default(),
            ahead: steps.collect(),
        })
    }

    fn head(&self) -> (Rhs<'_>, Option<&Tensor>) {
        let slot = self.network.head;
        let packed = self.weights[slot.weight].packed.as_ref();
        let bias = slot
            .bias
            .and_then(|bias| self.weights[bias].tensor.as_ref());
        (Rhs::Packed(packed.expect("the head is packed")), bias)
    }
}

impl MaskPredictor for FrozenModel {
    fn info(&self) -> PredictorInfo {
        self.network.info()
    }

    fn logits(&self, query: Query<'_>) -> DiffusionResult<Vec<f32>> {
        let (hidden, guidance) = self.answer(query)?;
        let mut logits = self.head_logits(&hidden)?;
        if let Some((cfg_scale, unconditional)) = guidance {
            guide_all(cfg_scale, &mut logits, &self.head_logits(&unconditional)?);
        }
        Ok(logits)
    }

    fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> DiffusionResult<Candidates> {
        let is_whole = query.cached.is_none() && query.guidance.is_none();
        if let Some(denoiser) = &self.denoiser
            && is_whole
            && choice.ahead.len() > 1
        {
            return self.candidates_ahead(&**denoiser, &query, choice);
        }
        let (hidden, guidance) = self.answer(query)?;
        let (head, bias) = self.head();
        let (cfg_scale, unconditional) = guidance.unzip();
        let now = candidates(CandidateArgs {
            hidden: &hidden,
            unconditional: unconditional.as_ref(),
            head,
            bias,
            rule: &choice.rule(cfg_scale.unwrap_or(0.0)),
            noise: &choice.noise,
            precision: self.network.precision,
        })?;
        Ok(now.into())
    }

    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> DiffusionResult<Vec<f32>> {
        /// Positions whose logits are in memory at once.
        const ROWS: usize = 64;
        expect_targets(query.positions, targets, self.network.info().vocab_size)?;
        let (hidden, guidance) = self.answer(query)?;
        let Some((cfg_scale, unconditional)) = guidance else {
            let (head, bias) = self.head();
            let (losses, _) = cross_entropy(&hidden, head, bias, targets, self.network.precision)?;
            return Ok(losses.to_vec_f32()?);
        };
        let mut losses = Vec::with_capacity(targets.len());
        for (chunk, targets) in targets.chunks(ROWS).enumerate() {
            let logits =
                |x: &Tensor| self.head_logits(&x.narrow(0, chunk * ROWS, targets.len())?);
            let mut guided = logits(&hidden)?;
            guide_all(cfg_scale, &mut guided, &logits(&unconditional)?);
            losses.extend(cross_entropies(&guided, targets));
        }
        Ok(losses)
    }
}

/// All that a rule says.
fn rule_key(rule: &CandidateRule<'_>) -> Vec<u32> {
    let CandidateRule {
        temperature,
        cfg_scale,
        suppress,
        suppress_confidence,
    } = *rule;
    let temperature = temperature.to_bits();
    let words = [
        temperature as u32,
        (temperature >> 32) as u32,
        cfg_scale.to_bits(),
    ];
    let lengths = [suppress, suppress_confidence].map(|ids| index_u32(ids.len()));
    [&words[..], &lengths, suppress, suppress_confidence].concat()
}
