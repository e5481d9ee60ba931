//! A model for inference: each weight in the layout of the backend, and nothing else.

use std::num::NonZeroUsize;
use std::sync::Arc;

use llada_diffusion::{
    Cached, Candidate, Error as DiffusionError, MaskPredictor, Noise, PredictorInfo,
    Result as DiffusionResult, TokenBatch, cross_entropies, guide_all,
};
use llada_tensor::backend::{CandidateArgs, Denoising, DenoisingStep, Recorder, Rhs, Step};
use llada_tensor::ops::candidates::{CandidateRule, candidates};
use llada_tensor::ops::cross_entropy::cross_entropy;
use llada_tensor::{Device, Precision, Tape, Tensor, Var};

use crate::init::uniform_parameters;
use crate::network::{FrozenWeight, Network, Parameters, Pass, index_u32};
use crate::weights::freeze;
use crate::window::{Input, planned_positions};
use crate::{ModelConfig, Result};

/// Rows that a recorded pass computes are a multiple of this.
const ROWS_AT_ONCE: usize = 8;
/// Steps of sampling that a device is asked for at once: whoever watches sees them together.
const STEPS_AT_ONCE: usize = 8;

/// A LLaDA mask predictor that is not trained further: its matrices are packed for products, in
/// bf16 if that is the precision, and there is no other copy of them.
#[derive(Debug)]
pub struct FrozenModel {
    network: Arc<Network>,
    weights: Vec<FrozenWeight>,
    /// Of passes without caches, if the device has one.
    recorder: Option<Box<dyn Recorder>>,
}

impl FrozenModel {
    pub(crate) fn new(network: Arc<Network>, weights: Vec<FrozenWeight>) -> Self {
        let recorder = network.device.backend().recorder();
        Self {
            network,
            weights,
            recorder,
        }
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
        freeze(config, &tensors, device, precision)
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
        let of = |weight: &FrozenWeight| {
            let tensor = weight.tensor.as_ref();
            let tensor = tensor.map_or(0, |x| x.numel() * x.dtype().size_bytes());
            tensor + weight.packed.as_ref().map_or(0, |packed| packed.bytes())
        };
        self.weights.iter().map(of).sum()
    }

    /// The same model with attention that is causal by blocks of `block_size` positions: each sees
    /// its own block and those before it, as in block-diffusion models (`LLaDA2`, Fast-dLLM v2).
    /// Calls with caches then compute whole prefixes and nothing else.
    ///
    /// # Errors
    /// If the device fails.
    pub fn block_causal(mut self, block_size: NonZeroUsize) -> Result<Self> {
        self.network = Arc::new(self.network.block_causal(block_size)?);
        self.recorder = self.network.device.backend().recorder();
        Ok(self)
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
        let last = self.run(&Input::new(batch, &positions), None, Some(&mut states))?;
        states.push(last);
        Ok(states)
    }

    /// Hidden states of positions, `[N, D]`.
    fn infer(&self, batch: &TokenBatch, positions: &[usize]) -> DiffusionResult<Tensor> {
        self.network.check(batch, positions)?;
        let mut input = Input::new(batch, positions);
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
        cached: Option<Cached<'_>>,
        states: Option<&mut Vec<Tensor>>,
    ) -> llada_tensor::Result<Tensor> {
        let mut tape = Tape::inference(&self.network.device, self.network.precision);
        let mut pass = Pass {
            tape: &mut tape,
            parameters: Parameters::Frozen(&self.weights),
            cached,
            states,
        };
        let hidden = self.network.hidden(&mut pass, input)?;
        Ok(hidden.value().clone())
    }

    /// `[N, V]` out of hidden states `[N, D]`.
    fn head_logits(&self, hidden: &Tensor) -> llada_tensor::Result<Vec<f32>> {
        let mut tape = Tape::inference(&self.network.device, self.network.precision);
        let mut pass = Pass {
            tape: &mut tape,
            parameters: Parameters::Frozen(&self.weights),
            cached: None,
            states: None,
        };
        let logits = pass.linear(&Var::constant(hidden.clone()), self.network.head)?;
        logits.value().to_vec_f32()
    }

    /// The head's choice for each row of hidden states `[N, D]`.
    fn choose(
        &self,
        hidden: &Tensor,
        unconditional: Option<&Tensor>,
        rule: &CandidateRule<'_>,
        noise: &Noise<'_>,
    ) -> DiffusionResult<Vec<Candidate>> {
        let (head, bias) = self.head();
        Ok(candidates(CandidateArgs {
            hidden,
            unconditional,
            head,
            bias,
            rule,
            noise,
            precision: self.network.precision,
        })?)
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

    fn logits(&self, batch: &TokenBatch, positions: &[usize]) -> DiffusionResult<Vec<f32>> {
        Ok(self.head_logits(&self.infer(batch, positions)?)?)
    }

    fn candidates(
        &self,
        batch: &TokenBatch,
        unconditional: Option<&TokenBatch>,
        positions: &[usize],
        rule: &CandidateRule<'_>,
        noise: &Noise<'_>,
    ) -> DiffusionResult<Vec<Candidate>> {
        let hidden = self.infer(batch, positions)?;
        let unconditional = unconditional
            .map(|batch| self.infer(batch, positions))
            .transpose()?;
        self.choose(&hidden, unconditional.as_ref(), rule, noise)
    }

    fn candidates_cached(
        &self,
        batch: &TokenBatch,
        mut cached: Cached<'_>,
        positions: &[usize],
        rule: &CandidateRule<'_>,
        noise: &Noise<'_>,
    ) -> DiffusionResult<Vec<Candidate>> {
        self.network.check(batch, positions)?;
        let at_rows = planned_positions(batch, &mut cached, positions)?;
        let input = Input::planned(batch, cached.plans, &at_rows);
        let hidden = self.run(&input, Some(cached), None)?;
        self.choose(&hidden, None, rule, noise)
    }

    fn steps_at_once(&self) -> usize {
        self.recorder.as_ref().map_or(1, |_| STEPS_AT_ONCE)
    }

    fn candidates_ahead(
        &self,
        batch: &TokenBatch,
        positions: &[usize],
        rule: &CandidateRule<'_>,
        steps: &[DenoisingStep<'_>],
    ) -> DiffusionResult<Vec<Vec<Candidate>>> {
        let Some(recorder) = &self.recorder else {
            return Err(DiffusionError::Unsupported {
                what: "several steps at once",
            });
        };
        self.network.check(batch, positions)?;
        let mut input = Input::new(batch, positions);
        let asked = input.pad_rows(ROWS_AT_ONCE);
        let mut key = self.network.recording_key(&input)?;
        key.push(index_u32(asked));
        key.extend(rule_key(rule));
        let denoising = Denoising {
            key: &key,
            ids: &input.ids,
            rows: &input.rows,
            mask_token_id: self.network.config.mask_token_id,
            steps,
        };
        let (head, bias) = self.head();
        Ok(recorder.denoise(&denoising, &mut |noise, choose| {
            let hidden = self.run(&input, None, None)?.narrow(0, 0, asked)?;
            choose(&CandidateArgs {
                hidden: &hidden,
                unconditional: None,
                head,
                bias,
                rule,
                noise,
                precision: self.network.precision,
            })
        })?)
    }

    fn token_losses(
        &self,
        batch: &TokenBatch,
        positions: &[usize],
        targets: &[u32],
    ) -> DiffusionResult<Vec<f32>> {
        let hidden = self.infer(batch, positions)?;
        let (head, bias) = self.head();
        let (losses, _) = cross_entropy(&hidden, head, bias, targets, self.network.precision)?;
        Ok(losses.to_vec_f32()?)
    }

    fn guided_token_losses(
        &self,
        batch: &TokenBatch,
        unconditional: &TokenBatch,
        cfg_scale: f32,
        positions: &[usize],
        targets: &[u32],
    ) -> DiffusionResult<Vec<f32>> {
        /// Positions whose logits are in memory at once.
        const ROWS: usize = 64;
        let hidden = self.infer(batch, positions)?;
        let un_hidden = self.infer(unconditional, positions)?;
        let mut losses = Vec::with_capacity(targets.len());
        for (chunk, targets) in targets.chunks(ROWS).enumerate() {
            let rows = |x: &Tensor| x.narrow(0, chunk * ROWS, targets.len());
            let mut logits = self.head_logits(&rows(&hidden)?)?;
            guide_all(
                cfg_scale,
                &mut logits,
                &self.head_logits(&rows(&un_hidden)?)?,
            );
            losses.extend(cross_entropies(&logits, targets));
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
