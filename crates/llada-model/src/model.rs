//! The Transformer: mask predictor of LLaDA.
//!
//! Source: `LLaDAModel` and `LLaDALlamaBlock` of the reference's `modeling_llada.py`.

use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};

use llada_diffusion::{
    Cached, Candidate, Error as DiffusionError, MaskPredictor, Noise, Parameter, ParameterKind,
    PredictorInfo, Result as DiffusionResult, TokenBatch, Trainable, cross_entropies, guide_all,
};
use llada_tensor::backend::{AttentionShape, CandidateArgs, PackedWeight, Rhs};
use llada_tensor::ops::candidates::{CandidateRule, candidates};
use llada_tensor::ops::cross_entropy::cross_entropy;
use llada_tensor::ops::rope::RopeTable;
use llada_tensor::{Device, Precision, Tape, Tensor, Var};

use crate::window::{Input, attend_cached, window_positions};
use crate::{ModelConfig, Result};

/// A weight and its optional bias, as indexes of the parameters.
#[derive(Debug, Clone, Copy)]
struct Slot {
    weight: usize,
    bias: Option<usize>,
}

/// Parameters of one block.
#[derive(Debug, Clone, Copy)]
struct Block {
    attn_norm: Slot,
    q_proj: Slot,
    k_proj: Slot,
    v_proj: Slot,
    attn_out: Slot,
    ff_norm: Slot,
    ff_proj: Slot,
    up_proj: Slot,
    ff_out: Slot,
}

/// A LLaDA mask predictor on a device.
#[derive(Debug)]
pub struct LladaModel {
    config: ModelConfig,
    device: Device,
    precision: Precision,
    parameters: Vec<Parameter>,
    wte: Slot,
    blocks: Vec<Block>,
    ln_f: Slot,
    head: Slot,
    rope: RopeTable,
    packed: OnceLock<Vec<Option<Arc<dyn PackedWeight>>>>,
}

/// Where each parameter of a configuration stands in the list of all.
struct Slots<'a> {
    config: &'a ModelConfig,
    next: usize,
}

impl Slots<'_> {
    fn take(&mut self, bias: bool) -> Slot {
        let weight = self.next;
        self.next += if bias { 2 } else { 1 };
        Slot {
            weight,
            bias: bias.then_some(weight + 1),
        }
    }

    /// In the order of [`ModelConfig::parameter_shapes`].
    fn block(&mut self) -> Block {
        let (norm, qkv, linear) = (
            self.config.norm_bias(),
            self.config.qkv_bias(),
            self.config.include_bias,
        );
        Block {
            attn_norm: self.take(norm),
            q_proj: self.take(qkv),
            k_proj: self.take(qkv),
            v_proj: self.take(qkv),
            attn_out: self.take(linear),
            ff_norm: self.take(norm),
            ff_proj: self.take(linear),
            up_proj: self.take(linear),
            ff_out: self.take(linear),
        }
    }
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
        config.check()?;
        let shapes = config.parameter_shapes();
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
            parameters.push(Parameter {
                kind: match shape.len() {
                    2 if name.starts_with("model.transformer.blocks.") => ParameterKind::Matrix,
                    2 => ParameterKind::Table,
                    _ => ParameterKind::Vector,
                },
                name,
                value,
            });
        }
        let mut slots = Slots {
            config: &config,
            next: 0,
        };
        let wte = slots.take(false);
        let blocks = (0..config.n_layers).map(|_| slots.block()).collect();
        let ln_f = slots.take(config.norm_bias());
        let head = if config.weight_tying {
            wte
        } else {
            slots.take(config.include_bias)
        };
        let (length, head_dim) = (config.max_sequence_length, config.head_dim());
        let rope = RopeTable::new(device, length, head_dim, config.rope_theta)?;
        let device = device.clone();
        let packed = OnceLock::new();
        Ok(Self {
            config,
            device,
            precision,
            parameters,
            wte,
            blocks,
            ln_f,
            head,
            rope,
            packed,
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
        &self.config
    }

    /// Precision of the matrix products.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The same model with attention that is causal by blocks of `block_size` positions: each sees
    /// its own block and those before it, as in block-diffusion models (`LLaDA2`, Fast-dLLM v2).
    /// Calls with caches are then errors.
    #[must_use]
    pub fn block_causal(mut self, block_size: NonZeroUsize) -> Self {
        self.config.block_size = Some(block_size);
        self
    }

    /// Hidden states `[T, D]` of all tokens: the embeddings, then what each block gives, the last
    /// one after the norm `ln_f`; `output_hidden_states` of the reference.
    ///
    /// # Errors
    /// If a token or a length is out of range.
    pub fn hidden_states(&self, batch: &TokenBatch) -> DiffusionResult<Vec<Tensor>> {
        self.check(batch, &[])?;
        let positions: Vec<usize> = (0..batch.n_tokens()).collect();
        let mut states = Vec::new();
        let last = self.run(&Input::new(batch), &positions, None, Some(&mut states))?;
        states.push(last);
        Ok(states)
    }

    fn check(&self, batch: &TokenBatch, positions: &[usize]) -> DiffusionResult<()> {
        let vocab_size = self.config.embedding_rows();
        let out_of_range = |(_, id): &(usize, &u32)| **id as usize >= vocab_size;
        if let Some((position, &id)) = batch.ids().iter().enumerate().find(out_of_range) {
            return Err(DiffusionError::TokenOutOfRange {
                id,
                position,
                vocab_size,
            });
        }
        let max_sequence_length = self.config.max_sequence_length;
        for sequence in batch.sequences() {
            let length = sequence.len();
            if length > max_sequence_length {
                return Err(DiffusionError::TooLong {
                    length,
                    max_sequence_length,
                });
            }
        }
        if let Some(&at) = positions.iter().find(|&&at| at >= batch.n_tokens()) {
            let (op, limit) = ("positions", batch.n_tokens());
            return Err(llada_tensor::Error::IndexOutOfRange {
                op,
                index: at,
                limit,
            }
            .into());
        }
        Ok(())
    }

    /// Weights in the layout of the backend, made at the first use.
    fn packed(&self) -> llada_tensor::Result<&[Option<Arc<dyn PackedWeight>>]> {
        if let Some(packed) = self.packed.get() {
            return Ok(packed);
        }
        let backend = self.device.backend();
        let tied_only = (!self.config.weight_tying).then_some(self.wte.weight);
        let packed = self
            .parameters
            .iter()
            .enumerate()
            .map(|(index, parameter)| {
                let is_matrix = parameter.kind != ParameterKind::Vector;
                let is_product = is_matrix && Some(index) != tied_only;
                is_product
                    .then(|| backend.pack(&parameter.value, self.precision))
                    .transpose()
            })
            .collect::<llada_tensor::Result<Vec<_>>>()?;
        Ok(self.packed.get_or_init(|| packed))
    }

    /// Hidden states of the given positions after the last norm, `[N, D]`. With caches `T` counts
    /// the tokens of all windows, and positions are indexes into them.
    fn hidden(&self, pass: &mut Pass<'_, '_>, input: &Input, positions: &[usize]) -> TensorVar {
        let rows: Vec<u32> = positions.iter().map(|&at| index_u32(at)).collect();
        let wte = pass.parameter(self.wte.weight);
        let mut x = pass.tape.embedding(&wte, &input.ids)?; // [T, D]
        for (layer, block) in self.blocks.iter().enumerate() {
            if let Some(states) = &mut pass.states {
                states.push(x.value().clone());
            }
            let last = layer + 1 == self.blocks.len();
            let mut y = self.attend(pass, layer, &x, input)?; // [T, D]
            if last {
                // Nothing mixes positions from here on: only the asked rows go on.
                x = pass.tape.embedding(&x, &rows)?; // [N, D]
                y = pass.tape.embedding(&y, &rows)?;
            }
            let y = pass.linear(&y, block.attn_out)?;
            x = pass.tape.add(&x, &y)?;
            let h = self.norm(pass, &x, block.ff_norm)?;
            let gate = pass.linear(&h, block.ff_proj)?; // [., F]
            let up = pass.linear(&h, block.up_proj)?;
            let h = pass.tape.swiglu(&gate, &up)?;
            let y = pass.linear(&h, block.ff_out)?;
            x = pass.tape.add(&x, &y)?;
        }
        self.norm(pass, &x, self.ln_f)
    }

    fn attend(&self, pass: &mut Pass<'_, '_>, layer: usize, x: &Var, input: &Input) -> TensorVar {
        let block = &self.blocks[layer];
        let causal = self.config.causal.then_some(NonZeroUsize::MIN);
        let h = self.norm(pass, x, block.attn_norm)?;
        let q = pass.linear(&h, block.q_proj)?; // [T, H * E]
        let k = pass.linear(&h, block.k_proj)?; // [T, K * E]
        let v = pass.linear(&h, block.v_proj)?;
        let q = pass.tape.rope(&q, &self.rope, &input.places)?;
        let k = pass.tape.rope(&k, &self.rope, &input.places)?;
        let shape = AttentionShape {
            offsets: &input.offsets,
            key_offsets: None,
            n_heads: self.config.n_heads,
            n_kv_heads: self.config.kv_heads(),
            block_size: causal.or(self.config.block_size),
            key_bias: None,
        };
        match &mut pass.cached {
            None => pass.tape.attention(&q, &k, &v, shape),
            Some(cached) => {
                let y = attend_cached(pass.tape, cached, layer, [&q, &k, &v], shape)?;
                Ok(Var::constant(y))
            }
        }
    }

    fn norm(&self, pass: &mut Pass<'_, '_>, x: &Var, slot: Slot) -> TensorVar {
        let weight = pass.parameter(slot.weight);
        let y = pass.tape.rms_norm(x, &weight, self.config.rms_norm_eps)?;
        match slot.bias {
            Some(bias) => {
                let bias = pass.parameter(bias);
                pass.tape.add(&y, &bias)
            }
            None => Ok(y),
        }
    }

    /// Hidden states without a tape, `[N, D]`.
    fn infer(&self, batch: &TokenBatch, positions: &[usize]) -> DiffusionResult<Tensor> {
        self.check(batch, positions)?;
        self.run(&Input::new(batch), positions, None, None)
    }

    /// A forward pass without a tape.
    fn run(
        &self,
        input: &Input,
        positions: &[usize],
        cached: Option<Cached<'_>>,
        states: Option<&mut Vec<Tensor>>,
    ) -> DiffusionResult<Tensor> {
        let mut tape = Tape::inference(&self.device, self.precision);
        let packed = Some(self.packed()?);
        let mut pass = Pass {
            tape: &mut tape,
            parameters: &self.parameters,
            packed,
            cached,
            states,
        };
        Ok(self.hidden(&mut pass, input, positions)?.value().clone())
    }

    /// `[N, V]` out of hidden states `[N, D]`.
    fn head_logits(&self, hidden: &Tensor) -> llada_tensor::Result<Vec<f32>> {
        let head = Var::constant(self.parameters[self.head.weight].value.clone());
        let bias = self.head_bias().cloned().map(Var::constant);
        let mut tape = Tape::inference(&self.device, self.precision);
        let packed = self.packed()?[self.head.weight].as_ref();
        let hidden = Var::constant(hidden.clone());
        let logits = tape.linear(&hidden, &head, packed, bias.as_ref())?;
        Ok(logits.value().to_vec_f32())
    }

    /// The head's choice for each row of hidden states `[N, D]`.
    fn choose(
        &self,
        hidden: &Tensor,
        unconditional: Option<&Tensor>,
        rule: &CandidateRule<'_>,
        noise: &Noise<'_>,
    ) -> DiffusionResult<Vec<Candidate>> {
        Ok(candidates(CandidateArgs {
            hidden,
            unconditional,
            head: self.packed_head()?,
            bias: self.head_bias(),
            rule,
            noise,
            precision: self.precision,
        })?)
    }

    fn head_bias(&self) -> Option<&Tensor> {
        self.head.bias.map(|bias| &self.parameters[bias].value)
    }

    fn packed_head(&self) -> llada_tensor::Result<Rhs<'_>> {
        let weight = &self.parameters[self.head.weight].value;
        Ok(self.packed()?[self.head.weight]
            .as_ref()
            .map_or(Rhs::Weight(weight), Rhs::Packed))
    }
}

type TensorVar = llada_tensor::Result<Var>;

/// One forward pass: a tape and where its parameters come from.
struct Pass<'a, 'c> {
    tape: &'a mut Tape,
    parameters: &'a [Parameter],
    packed: Option<&'a [Option<Arc<dyn PackedWeight>>]>,
    cached: Option<Cached<'c>>,
    /// Gets what goes into each block.
    states: Option<&'a mut Vec<Tensor>>,
}

impl Pass<'_, '_> {
    fn parameter(&mut self, index: usize) -> Var {
        self.tape.parameter(index, &self.parameters[index].value)
    }

    fn linear(&mut self, x: &Var, slot: Slot) -> TensorVar {
        let weight = self.parameter(slot.weight);
        let bias = slot.bias.map(|bias| self.parameter(bias));
        let packed = self.packed.and_then(|packed| packed[slot.weight].as_ref());
        self.tape.linear(x, &weight, packed, bias.as_ref())
    }
}

pub(crate) fn index_u32(at: usize) -> u32 {
    u32::try_from(at).expect("a batch has fewer than 2^32 tokens")
}

impl MaskPredictor for LladaModel {
    fn info(&self) -> PredictorInfo {
        PredictorInfo {
            vocab_size: self.config.embedding_rows(),
            mask_token_id: self.config.mask_token_id,
            eos_token_id: self.config.eos_token_id,
            max_sequence_length: self.config.max_sequence_length,
        }
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
        cached: Cached<'_>,
        positions: &[usize],
        rule: &CandidateRule<'_>,
        noise: &Noise<'_>,
    ) -> DiffusionResult<Vec<Candidate>> {
        self.check(batch, positions)?;
        let in_windows = window_positions(batch, &cached, positions)?;
        let input = Input::windows(batch, cached.windows);
        let hidden = self.run(&input, &in_windows, Some(cached), None)?;
        self.choose(&hidden, None, rule, noise)
    }

    fn token_losses(
        &self,
        batch: &TokenBatch,
        positions: &[usize],
        targets: &[u32],
    ) -> DiffusionResult<Vec<f32>> {
        let hidden = self.infer(batch, positions)?;
        let (head, bias) = (self.packed_head()?, self.head_bias());
        let (losses, _) = cross_entropy(&hidden, head, bias, targets, self.precision)?;
        Ok(losses.to_vec_f32())
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

impl Trainable for LladaModel {
    fn device(&self) -> &Device {
        &self.device
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn parameters_mut(&mut self) -> &mut [Parameter] {
        self.packed.take();
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
        self.check(batch, positions)?;
        let mut pass = Pass {
            tape,
            parameters: &self.parameters,
            packed: None,
            cached: None,
            states: None,
        };
        let hidden = self.hidden(&mut pass, &Input::new(batch), positions)?;
        let head = pass.parameter(self.head.weight);
        let bias = self.head.bias.map(|bias| pass.parameter(bias));
        Ok(pass
            .tape
            .cross_entropy(&hidden, &head, bias.as_ref(), targets, weights)?)
    }
}
