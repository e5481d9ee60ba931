//! The Transformer: the forward pass that training and inference share.
//!
//! What differs between families is in [`ModelConfig`]; nothing here asks which one it is.
//!
//! Source: `LLaDAModel` and `LLaDALlamaBlock` of the reference's `modeling_llada.py`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use llada_diffusion::{
    Error as DiffusionError, Parameter, ParameterKind, PredictorInfo, Result as DiffusionResult,
    TokenBatch, denoiser,
};
use llada_tensor::backend::{AttentionShape, PackedWeight};
use llada_tensor::layers::{Adapter, Linear, Moe, Norm, Weight};
use llada_tensor::ops::moe::{RouterRule, Routes};
use llada_tensor::ops::rope::RopeTable;
use llada_tensor::{Device, Precision, Tape, Tensor, Var};

use crate::gguf::MappedTable;
use crate::lora::Lora;
use crate::window::{Input, Window, attend_cached, index_u32};
use crate::{ModelConfig, Result};

/// Steps of sampling that a device is asked for at once, if it can record them: an observer sees
/// them together.
const STEPS_AT_ONCE: usize = 8;

/// A weight and its optional bias, as indexes of the parameters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) weight: usize,
    pub(crate) bias: Option<usize>,
}

/// Parameters of one block.
#[derive(Debug, Clone, Copy)]
struct Block {
    attn_norm: Slot,
    q_proj: Slot,
    k_proj: Slot,
    v_proj: Slot,
    /// Norms of each head of the queries and of the keys.
    qk_norm: Option<[Slot; 2]>,
    attn_out: Slot,
    ff_norm: Slot,
    mlp: Mlp,
}

/// What follows attention in a block.
#[derive(Debug, Clone, Copy)]
enum Mlp {
    /// Gate, up and down.
    Dense([Slot; 3]),
    Experts {
        /// Its bias changes the choice.
        router: Slot,
        experts: [Slot; 3],
        /// Beside the experts.
        shared: Option<[Slot; 3]>,
    },
}

/// What a model is but for the values of its parameters.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) config: ModelConfig,
    pub(crate) device: Device,
    /// Of the matrix products.
    pub(crate) precision: Precision,
    pub(crate) head: Slot,
    wte: Slot,
    blocks: Vec<Block>,
    ln_f: Slot,
    steps_at_once: usize,
    /// As long as the longest sequence so far.
    rope: Mutex<RopeTable>,
}

/// Where a forward pass finds its parameters.
#[derive(Clone, Copy)]
pub(crate) enum Parameters<'a> {
    /// As they are trained.
    Trained(&'a Trained),
    /// In the forms of [`Network::forms`].
    Frozen(&'a [FrozenWeight]),
}

/// The values that a training step reads, sharing the memory of the model's.
pub(crate) struct Trained {
    parameters: Vec<Tensor>,
    /// Trained in place of the parameters.
    adapters: Option<Adapters>,
}

struct Adapters {
    scale: f32,
    /// See [`Lora::slots`].
    slots: Arc<BTreeMap<usize, usize>>,
    values: Vec<Tensor>,
}

impl Trained {
    pub(crate) fn new(parameters: &[Parameter], lora: Option<&Lora>) -> Self {
        let values = |all: &[Parameter]| all.iter().map(|p| p.value.clone()).collect();
        Self {
            parameters: values(parameters),
            adapters: lora.map(|lora| Adapters {
                scale: lora.scale,
                slots: Arc::clone(&lora.slots),
                values: values(&lora.adapters),
            }),
        }
    }
}

/// A parameter for inference, in the forms in which it is used.
#[derive(Debug)]
pub(crate) struct FrozenWeight {
    /// A table, a norm's weight or a bias.
    pub(crate) tensor: Option<Tensor>,
    /// The weight of a linear layer, in the backend's layout.
    pub(crate) packed: Option<Arc<dyn PackedWeight>>,
    /// A table that stays in its file, in place of the tensor.
    pub(crate) mapped: Option<MappedTable>,
}

/// In which forms inference uses a parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forms {
    pub(crate) tensor: bool,
    pub(crate) packed: bool,
}

/// Sines and cosines of `n` positions.
fn rope_table(config: &ModelConfig, device: &Device, n: usize) -> llada_tensor::Result<RopeTable> {
    let (head_dim, theta) = (config.head_dim(), config.rope_theta);
    match config.extras.rotary_dim {
        None => RopeTable::new(device, n, head_dim, theta),
        Some(rotary_dim) => RopeTable::partial(device, n, [rotary_dim, head_dim], theta),
    }
}

/// The part of a parameter in the model.
pub(crate) fn kind(name: &str, shape: &[usize]) -> ParameterKind {
    match shape.len() {
        3 => ParameterKind::Experts,
        2 if name.starts_with("model.transformer.blocks.") => ParameterKind::Matrix,
        2 => ParameterKind::Table,
        _ => ParameterKind::Vector,
    }
}

pub(crate) type TensorVar = llada_tensor::Result<Var>;

impl Network {
    pub(crate) fn new(config: ModelConfig, device: &Device, precision: Precision) -> Result<Self> {
        config.check()?;
        let names = config.parameter_shapes().into_iter().map(|(name, _)| name);
        let index: BTreeMap<String, usize> = names.zip(0..).collect();
        let slot = |name: &str| Slot {
            weight: index[&format!("model.transformer.{name}.weight")],
            bias: index
                .get(&format!("model.transformer.{name}.bias"))
                .copied(),
        };
        let block = |layer| {
            let slot = |part: &str| slot(&format!("blocks.{layer}.{part}"));
            let mlp = |of: &str| {
                ["ff_proj", "up_proj", "ff_out"].map(|part| slot(&format!("{of}{part}")))
            };
            Block {
                attn_norm: slot("attn_norm"),
                q_proj: slot("q_proj"),
                k_proj: slot("k_proj"),
                v_proj: slot("v_proj"),
                qk_norm: (config.extras.qk_norm).then(|| ["q_norm", "k_norm"].map(slot)),
                attn_out: slot("attn_out"),
                ff_norm: slot("ff_norm"),
                mlp: match config.experts(layer) {
                    None => Mlp::Dense(mlp("")),
                    Some(moe) => Mlp::Experts {
                        router: slot("router"),
                        experts: mlp("experts."),
                        shared: moe.shared_width.map(|_| mlp("shared_expert.")),
                    },
                },
            }
        };
        let (wte, ln_f) = (slot("wte"), slot("ln_f"));
        let blocks = (0..config.n_layers).map(block).collect();
        let head = if config.weight_tying {
            wte
        } else {
            slot("ff_out")
        };
        let rope = Mutex::new(rope_table(&config, device, 0)?);
        let device = device.clone();
        let steps_at_once = denoiser(&device).map_or(1, |_| STEPS_AT_ONCE);
        Ok(Self {
            config,
            device,
            precision,
            head,
            wte,
            blocks,
            ln_f,
            steps_at_once,
            rope,
        })
    }

    pub(crate) fn info(&self) -> PredictorInfo {
        let config = &self.config;
        let info = PredictorInfo {
            block_size: config.block_size,
            // A key and a value of f32 in each layer.
            steps_at_once: self.steps_at_once,
            kv_cache_bytes: 2 * 4 * config.n_layers * config.kv_heads() * config.head_dim(),
            ..PredictorInfo::new(
                config.embedding_rows(),
                config.mask_token_id,
                config.eos_token_id.usual(),
                config.max_sequence_length,
            )
        };
        match config.causal {
            true => info.autoregressive(),
            false => info,
        }
    }

    /// All tokens of a batch, of which the outputs about `positions` are asked for.
    pub(crate) fn input(&self, batch: &TokenBatch, positions: &[usize]) -> Input {
        Input::new(batch, positions, self.config.extras.shifts_logits)
    }

    /// The same with attention that is causal by blocks.
    pub(crate) fn block_causal(&self, block_size: NonZeroUsize) -> Result<Self> {
        let config = ModelConfig {
            block_size: Some(block_size),
            ..self.config.clone()
        };
        Self::new(config, &self.device, self.precision)
    }

    /// The rotary table for at least `n` positions.
    fn rope(&self, n: usize) -> llada_tensor::Result<RopeTable> {
        let mut table = self.rope.lock().unwrap_or_else(PoisonError::into_inner);
        if table.cos.shape()[0] < n {
            let n = n.next_power_of_two();
            *table = rope_table(&self.config, &self.device, n)?;
        }
        Ok(table.clone())
    }

    /// What a forward pass of all of a batch depends on but for ids and rows: positions, lengths
    /// and the size of the rotary table, which moves when it grows.
    pub(crate) fn recording_key(&self, input: &Input) -> llada_tensor::Result<Vec<u32>> {
        let table = self.rope(input.n_places())?.cos.shape()[0];
        let sizes = [table, input.offsets.len(), input.rows.len()].map(index_u32);
        let offsets = input.offsets.iter().map(|&at| index_u32(at));
        let places = input.places.iter().copied();
        Ok(sizes.into_iter().chain(offsets).chain(places).collect())
    }

    /// In which forms inference uses the parameter at `index`: a tied embedding in both.
    pub(crate) fn forms(&self, index: usize, kind: ParameterKind) -> Forms {
        let is_matrix = kind != ParameterKind::Vector;
        Forms {
            tensor: !is_matrix || index == self.wte.weight,
            packed: is_matrix && (index != self.wte.weight || self.config.weight_tying),
        }
    }

    pub(crate) fn check(&self, batch: &TokenBatch, positions: &[usize]) -> DiffusionResult<()> {
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
        let mut lengths = batch.sequences().map(<[u32]>::len);
        if let Some(length) = lengths.find(|&length| length > max_sequence_length) {
            return Err(DiffusionError::TooLong {
                length,
                max_sequence_length,
            });
        }
        if let Some(&index) = positions.iter().find(|&&at| at >= batch.n_tokens()) {
            let (op, limit) = ("positions", batch.n_tokens());
            return Err(llada_tensor::Error::IndexOutOfRange { op, index, limit }.into());
        }
        Ok(())
    }

    /// Hidden states of the asked rows after the last norm, `[N, D]`. With caches `T` counts the
    /// rows of all plans.
    pub(crate) fn hidden(&self, pass: &mut Pass<'_, '_>, input: &Input) -> TensorVar {
        let rope = self.rope(input.n_places())?;
        let mut x = pass.lookup(self.wte.weight, &input.ids)?; // [T, D]
        for layer in 0..self.blocks.len() {
            if let Some(states) = &mut pass.states {
                states.push(x.value().clone());
            }
            x = self.block(pass, layer, &x, input, &rope)?;
        }
        let ln_f = self.norm(pass, self.ln_f);
        pass.tape.norm(&x, &ln_f)
    }

    /// As [`Self::hidden`], for training with less memory: of each block its input alone is kept.
    pub(crate) fn hidden_checkpointed(
        self: &Arc<Self>,
        tape: &mut Tape,
        trained: &Arc<Trained>,
        input: Input,
    ) -> TensorVar {
        let rope = self.rope(input.n_places())?;
        let mut pass = Pass::new(tape, Parameters::Trained(trained));
        let mut x = pass.lookup(self.wte.weight, &input.ids)?; // [T, D]
        let input = Arc::new(input);
        for layer in 0..self.blocks.len() {
            let (network, trained) = (Arc::clone(self), Arc::clone(trained));
            let (input, rope) = (Arc::clone(&input), rope.clone());
            x = pass.tape.checkpoint(&x, move |tape, x| {
                let mut pass = Pass::new(tape, Parameters::Trained(&trained));
                network.block(&mut pass, layer, x, &input, &rope)
            })?;
        }
        let ln_f = self.norm(&mut pass, self.ln_f);
        pass.tape.norm(&x, &ln_f)
    }

    /// What a block makes of `x` `[T, D]`: `[T, D]`, or of the last one the asked rows `[N, D]`.
    fn block(
        &self,
        pass: &mut Pass<'_, '_>,
        layer: usize,
        x: &Var,
        input: &Input,
        rope: &RopeTable,
    ) -> TensorVar {
        let block = &self.blocks[layer];
        let mut x = x.clone();
        let mut y = self.attend(pass, layer, &x, input, rope)?; // [T, D]
        let is_last = layer + 1 == self.blocks.len();
        let mixes = self.routes_by_runs() && matches!(block.mlp, Mlp::Experts { .. });
        if is_last && !mixes {
            // Nothing mixes positions from here on: only the asked rows go on.
            x = pass.tape.embedding(&x, &input.rows)?; // [N, D]
            y = pass.tape.embedding(&y, &input.rows)?;
        }
        let y = pass.linear(&y, block.attn_out)?;
        let x = pass.tape.add(&x, &y)?;
        let norm = self.norm(pass, block.ff_norm);
        let y = match block.mlp {
            Mlp::Dense(layers) => {
                let [gate, up, down] = pass.layers(layers);
                pass.tape.swiglu_mlp(&x, &norm, [&gate, &up, &down])? // through [., F]
            }
            Mlp::Experts {
                router,
                experts,
                shared,
            } => self.mix(pass, &x, &norm, input, (router, experts, shared))?,
        };
        let x = pass.tape.add(&x, &y)?;
        match is_last && mixes {
            true => pass.tape.embedding(&x, &input.rows),
            false => Ok(x),
        }
    }

    /// Whether the experts of a token depend on the other tokens of its block.
    fn routes_by_runs(&self) -> bool {
        let moe = self.config.extras.moe.as_ref();
        moe.is_some_and(|moe| matches!(moe.router.rule, RouterRule::Capacity { .. }))
    }

    /// What the experts make of `x` `[T, D]`.
    fn mix(
        &self,
        pass: &mut Pass<'_, '_>,
        x: &Var,
        norm: &Norm,
        input: &Input,
        (router, experts, shared): (Slot, [Slot; 3], Option<[Slot; 3]>),
    ) -> TensorVar {
        let config = self.config.extras.moe.as_ref();
        let config = config.expect("a block with experts has a configuration of them");
        let runs = match self.routes_by_runs() {
            true => input.runs(self.config.block_size),
            false => Vec::new(),
        };
        let shared = shared.map(|shared| pass.layers(shared));
        let bias = router.bias.map(|bias| pass.constant(bias));
        let moe = Moe {
            gate: pass.weight(router),
            bias,
            router: config.router,
            runs: &runs,
            experts: experts.map(|expert| pass.weight(expert)),
            shared: shared.as_ref().map(|layers| layers.each_ref()),
        };
        let (y, routes) = pass.tape.moe_mlp(x, norm, &moe)?;
        if let Some(all) = &mut pass.routes {
            all.push(routes);
        }
        Ok(y)
    }

    /// Attention of a block, before its output layer: `[T, D]`.
    fn attend(
        &self,
        pass: &mut Pass<'_, '_>,
        layer: usize,
        x: &Var,
        input: &Input,
        rope: &RopeTable,
    ) -> TensorVar {
        let block = &self.blocks[layer];
        let causal = self.config.causal.then_some(NonZeroUsize::MIN);
        let shape = AttentionShape {
            offsets: &input.offsets,
            key_offsets: None,
            n_heads: self.config.n_heads,
            n_kv_heads: self.config.kv_heads(),
            block_size: causal.or(self.config.block_size),
        };
        let norm = self.norm(pass, block.attn_norm);
        let [q, k, v] = pass.layers([block.q_proj, block.k_proj, block.v_proj]);
        let [mut q, mut k, v] = pass.tape.norm_linear(x, &norm, [&q, &k, &v])?; // [T, H * E], [T, K * E] twice
        if let Some(slots) = block.qk_norm {
            let [of_q, of_k] = slots.map(|slot| pass.parameter(slot.weight));
            q = pass
                .tape
                .rms_norm_heads(&q, &of_q, self.config.rms_norm_eps)?;
            k = pass
                .tape
                .rms_norm_heads(&k, &of_k, self.config.rms_norm_eps)?;
        }
        let (tape, places) = (&mut *pass.tape, &input.places);
        match &mut pass.cached {
            None => tape.rope_attention([&q, &k, &v], rope, places, shape),
            Some(cached) => {
                let q = tape.rope(&q, rope, places)?;
                let k = tape.rope(&k, rope, places)?;
                let y = attend_cached(tape, cached, layer, [&q, &k, &v], shape)?;
                Ok(Var::constant(y))
            }
        }
    }

    fn norm(&self, pass: &mut Pass<'_, '_>, slot: Slot) -> Norm {
        Norm {
            weight: pass.parameter(slot.weight),
            bias: slot.bias.map(|bias| pass.parameter(bias)),
            eps: self.config.rms_norm_eps,
        }
    }
}

/// One forward pass: a tape and where its parameters come from.
pub(crate) struct Pass<'a, 'c> {
    pub(crate) tape: &'a mut Tape,
    pub(crate) parameters: Parameters<'a>,
    pub(crate) cached: Option<Window<'a, 'c>>,
    /// Gets what goes into each block.
    pub(crate) states: Option<&'a mut Vec<Tensor>>,
    /// Gets the choice of experts of each block that has them.
    pub(crate) routes: Option<&'a mut Vec<Routes>>,
}

impl<'a> Pass<'a, '_> {
    /// A pass over whole sequences.
    pub(crate) fn new(tape: &'a mut Tape, parameters: Parameters<'a>) -> Self {
        Self {
            tape,
            parameters,
            cached: None,
            states: None,
            routes: None,
        }
    }

    pub(crate) fn parameter(&mut self, index: usize) -> Var {
        match self.parameters {
            Parameters::Trained(all) => match all.adapters {
                None => self.tape.parameter(index, &all.parameters[index]),
                Some(_) => Var::constant(all.parameters[index].clone()),
            },
            Parameters::Frozen(all) => {
                let tensor = all[index].tensor.clone();
                Var::constant(tensor.expect("`Network::forms` says that it is used as a tensor"))
            }
        }
    }

    /// A parameter that is not trained by gradients.
    fn constant(&mut self, index: usize) -> Tensor {
        match self.parameters {
            Parameters::Trained(all) => all.parameters[index].clone(),
            Parameters::Frozen(_) => self.parameter(index).value().clone(),
        }
    }

    /// The rows of a table.
    fn lookup(&mut self, index: usize, ids: &[u32]) -> TensorVar {
        if let Parameters::Frozen(all) = self.parameters
            && let Some(mapped) = &all[index].mapped
        {
            let (shape, rows) = ([ids.len(), mapped.width()], mapped.rows(ids));
            let rows = Tensor::from_f32(self.tape.device(), &shape, &rows)?;
            return Ok(Var::constant(rows));
        }
        let table = self.parameter(index);
        self.tape.embedding(&table, ids)
    }

    pub(crate) fn linear(&mut self, x: &Var, slot: Slot) -> TensorVar {
        let [layer] = self.layers([slot]);
        self.tape.linear_layer(x, &layer)
    }

    fn layers<const N: usize>(&mut self, slots: [Slot; N]) -> [Linear<'a>; N] {
        slots.map(|slot| Linear {
            weight: self.weight(slot),
            bias: slot.bias.map(|bias| self.parameter(bias)),
            adapter: self.adapter(slot),
        })
    }

    fn weight(&mut self, slot: Slot) -> Weight<'a> {
        match self.parameters {
            Parameters::Trained(_) => Weight::Tensor(self.parameter(slot.weight)),
            Parameters::Frozen(all) => {
                let packed = all[slot.weight].packed.as_ref();
                Weight::Packed(packed.expect("`Network::forms` says that it is used packed"))
            }
        }
    }

    fn adapter(&mut self, slot: Slot) -> Option<Adapter> {
        let Parameters::Trained(all) = self.parameters else {
            return None;
        };
        let adapters = all.adapters.as_ref()?;
        let at = *adapters.slots.get(&slot.weight)?;
        let [a, b] = [at, at + 1].map(|at| self.tape.parameter(at, &adapters.values[at]));
        let scale = adapters.scale;
        Some(Adapter { a, b, scale })
    }
}

#[cfg(test)]
mod tests;
