//! What a request of a model is by default: one policy for the command line, the library and the
//! evaluations.

use llada_diffusion::{Nucleus, PredictorInfo};

use crate::protocol::Written;
use crate::{
    Alg, CacheMode, EndThink, Error, Horizon, MarginExit, Preset, Process, Protocol, RefreshPolicy,
    Remasking, Request, Result, SampleConfig, Task,
};

/// Length of an answer if none is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerLength {
    /// So many tokens.
    Tokens(usize),
    /// So many times the length of the prompt: the first line of a quatrain has three more.
    Prompts(usize),
}

impl Default for AnswerLength {
    fn default() -> Self {
        Self::Tokens(64)
    }
}

/// What requests of a model have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What the predictor is.
    pub info: PredictorInfo,
    /// Tokens that end an answer beside the EOS.
    pub further_eos_token_ids: Vec<u32>,
    /// The unknown token, which a text never holds.
    pub unk_token_id: Option<u32>,
    /// The end of a turn (`<|eot_id|>`).
    pub eot_token_id: Option<u32>,
    /// Whether the model was trained on whole documents that end with an EOS, as `llada train`
    /// does with a character vocabulary. A text then ends with its EOS, which the model is shown,
    /// and the mask is never predicted. In a published model it may win, as in the reference.
    pub whole_documents: bool,
    /// Length of an answer if none is asked for; a protocol with blocks has its own.
    pub answer_length: AnswerLength,
    /// The loop that the model was published with.
    pub protocol: Protocol,
}

/// Settings of a request that are not those of the [`Policy`]. The default changes nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Overrides {
    /// What rule, cache and blocks are where the other settings do not say it.
    pub preset: Option<Preset>,
    /// Tokens of the answer; that of an infill is given. `None`: [`Policy::answer_length`], or what
    /// the context has room for.
    pub gen_length: Option<usize>,
    /// Steps in all, of a protocol with blocks those of each block. `None`: one a token, or what
    /// [`Protocol`] says.
    pub steps: Option<usize>,
    /// Tokens of a semi-autoregressive block. `None`: one block, or what [`Protocol`] says.
    pub block_length: Option<usize>,
    /// Gumbel temperature, 0 or more.
    pub temperature: f64,
    /// See [`Nucleus::top_k`].
    pub top_k: Option<usize>,
    /// See [`Nucleus::top_p`].
    pub top_p: Option<f64>,
    /// Scale of classifier-free guidance, 0 or more; 0 is none.
    pub cfg_scale: f32,
    /// Which predicted tokens stay.
    pub remasking: Remasking,
    /// How many tokens a step reveals. `None`: as [`Protocol`] says; of LLaDA quotas, with fixed
    /// tokens those of the demo. LLaDA2.x's loops take a [`Process::Threshold`] as their `threshold`.
    pub process: Option<Process>,
    /// See [`SampleConfig::overlap`].
    pub overlap: Option<f32>,
    /// See [`MarginExit`].
    pub margin_exit: Option<MarginExit>,
    /// See [`Process::BlockDiffusion`].
    pub minimal_topk: Option<usize>,
    /// See [`Process::Editing`].
    pub editing_threshold: Option<f32>,
    /// See [`Process::Editing`].
    pub max_post_steps: Option<usize>,
    /// See [`Process::Editing`].
    pub num_to_transfer: Option<usize>,
    /// See [`Process::Timestep`].
    pub eps: Option<f32>,
    /// See [`Process::Timestep`].
    pub alg: Option<Alg>,
    /// See [`Process::Timestep`].
    pub alg_temp: Option<f32>,
    /// Whether an answer is written block by block until it ends ([`Protocol::VariableLength`]) or
    /// on a canvas of a fixed length ([`Protocol::Llada`]). `None`: as the model's protocol says.
    pub variable_length: Option<bool>,
    /// See [`SampleConfig::end_think`].
    pub end_think: Option<EndThink>,
    /// Which keys and values are taken from earlier steps. Of an autoregressive model, and of one
    /// whose blocks see nothing after them, they are always taken, which changes nothing. `None`:
    /// [`CacheMode::None`], or what the preset says.
    pub cache: Option<CacheMode>,
    /// See [`RefreshPolicy::suffix_window`].
    pub suffix_window: Option<usize>,
    /// See [`RefreshPolicy::prompt_interval`].
    pub prompt_interval: Option<usize>,
    /// See [`RefreshPolicy::vicinity`].
    pub vicinity: Option<usize>,
    /// See [`RefreshPolicy::refresh_interval`]. `None`: with an activity cache 8 calls, as errors
    /// would grow otherwise (dKV-Cache, arXiv 2505.15781).
    pub refresh_interval: Option<usize>,
    /// See [`RefreshPolicy::keep_active`]; without an activity cache it is not read.
    pub keep_active: Option<usize>,
    /// See [`SampleConfig::speculate`].
    pub speculate: usize,
    /// See [`SampleConfig::early_stop`] (`eos_early_stop` of LLaDA2.x). An answer of variable length
    /// always ends so.
    pub early_stop: bool,
    /// Seed of all draws.
    pub seed: u64,
    /// Whether an answer may hold no EOS. An infilled text never does: it does not end in its
    /// middle.
    pub logits_eos_inf: bool,
    /// Whether EOS and EOT are revealed last.
    pub confidence_eos_eot_inf: bool,
    /// Whether the mask is kept from being predicted. `None`: as [`Policy::whole_documents`] says,
    /// and in an infill always.
    pub suppress_mask: Option<bool>,
}

impl Policy {
    /// The policy of a model whose tokenizer says nothing.
    #[must_use]
    pub fn new(info: PredictorInfo) -> Self {
        Self {
            info,
            further_eos_token_ids: Vec::new(),
            unk_token_id: None,
            eot_token_id: None,
            whole_documents: false,
            answer_length: AnswerLength::default(),
            protocol: Protocol::default(),
        }
    }

    /// The EOS after a text of `length` tokens, if the model was trained to see one and the context
    /// has room for it.
    #[must_use]
    pub fn end_of_document(&self, length: usize) -> Option<u32> {
        let is_seen = self.whole_documents && length < self.info.max_sequence_length;
        is_seen.then_some(self.info.eos_token_id)
    }

    /// Length of the answer to a prompt of `prompt_len` tokens if none is asked for.
    #[must_use]
    pub fn gen_length(&self, prompt_len: usize) -> usize {
        self.gen_length_by(self.protocol, prompt_len)
    }

    fn gen_length_by(&self, protocol: Protocol, prompt_len: usize) -> usize {
        let usual = match (protocol.gen_length(), self.answer_length) {
            (Some(n), _) | (None, AnswerLength::Tokens(n)) => n,
            (None, AnswerLength::Prompts(n)) => n * prompt_len,
        };
        usual.min(self.room(prompt_len)).max(1)
    }

    /// The request of a task. `is_document`: its tokens are a whole text, whose end the model is
    /// shown; otherwise they are used as they are.
    ///
    /// # Errors
    /// [`Error::NotAutoregressive`] for what only a masked diffusion model can do; its `request` is
    /// 0, as it has no number yet. The rest is checked when the request is submitted.
    pub fn request(
        &self,
        mut task: Task,
        is_document: bool,
        overrides: &Overrides,
    ) -> Result<Request> {
        let is_autoregressive = self.info.is_autoregressive();
        let filled = overrides.preset.map(|preset| preset.fill(overrides));
        let overrides = filled.as_ref().unwrap_or(overrides);
        let protocol = (self.protocol).of(overrides, matches!(task, Task::Infill { .. }));
        let (n_masks, length, suffix, is_infill, is_fixed) = match &mut task {
            Task::Generate {
                prompt,
                suffix,
                constraints,
            } => {
                let usual = || self.gen_length_by(protocol, prompt.len());
                let n = overrides.gen_length.unwrap_or_else(usual);
                let length = prompt.len().saturating_add(n);
                (n, length, suffix, false, !constraints.is_empty())
            }
            Task::Infill { canvas, suffix } => {
                let masks = canvas.iter().filter(|&&id| id == self.info.mask_token_id);
                (masks.count(), canvas.len(), suffix, true, false)
            }
        };
        if is_document && !is_autoregressive {
            suffix.extend(self.end_of_document(length));
        }
        let written = protocol.settings(overrides, &self.info, n_masks, is_fixed)?;
        let config = SampleConfig {
            steps: written.steps,
            gen_length: match protocol {
                // What there is no room for is left out.
                Protocol::VariableLength => n_masks.min(self.room(length - n_masks)),
                _ => n_masks,
            },
            block_length: written.block_length,
            horizon: written.horizon,
            // A rule that counts no steps takes as many as it needs, or as are allowed.
            caps_steps: overrides.steps.is_some(),
            temperature: overrides.temperature,
            nucleus: Nucleus {
                top_k: overrides.top_k,
                top_p: overrides.top_p,
            },
            cfg_scale: overrides.cfg_scale,
            remasking: overrides.remasking,
            process: written.process,
            overlap: overrides.overlap,
            margin_exit: overrides.margin_exit,
            cache: match overrides.cache.unwrap_or_default() {
                CacheMode::None if self.has_final_cache(&written, overrides) => CacheMode::Prefix,
                cache => cache,
            },
            refresh: refresh(overrides),
            speculate: overrides.speculate,
            early_stop: overrides.early_stop || protocol == Protocol::VariableLength,
            end_think: overrides.end_think.clone(),
            further_eos_token_ids: self.further_eos_token_ids.clone(),
            seed: overrides.seed,
            suppress_mask: (overrides.suppress_mask).unwrap_or(is_infill || self.whole_documents),
            logits_eos_inf: self.never(is_infill || overrides.logits_eos_inf),
            confidence_eos_eot_inf: self.late(overrides.confidence_eos_eot_inf),
        };
        let request = Request::new(task, config);
        match request.diffusion_only(overrides) {
            Some(what) if is_autoregressive => Err(Error::NotAutoregressive { request: 0, what }),
            _ => Ok(request),
        }
    }

    /// Whether keys and values are final once their block is, so that a cache changes nothing.
    fn has_final_cache(&self, written: &Written, overrides: &Overrides) -> bool {
        let info = &self.info;
        let by_blocks = written.horizon == Horizon::AlignedBlock
            && info.block_size.is_some()
            && info.kv_cache_bytes > 0
            && overrides.cfg_scale <= 0.0;
        info.is_autoregressive() || by_blocks
    }

    /// Tokens of the context after so many, in whole blocks of the model.
    fn room(&self, given: usize) -> usize {
        let (length, block) = (self.info.max_sequence_length, self.info.block_size);
        let whole = block.map_or(length, |size| length / size * size.get());
        whole.saturating_sub(given)
    }

    /// What is never chosen.
    fn never(&self, no_eos: bool) -> Vec<u32> {
        let ends = self.ends().filter(|_| no_eos);
        self.unk_token_id.into_iter().chain(ends).collect()
    }

    /// What is revealed last.
    fn late(&self, is_asked: bool) -> Vec<u32> {
        let eot = self
            .eot_token_id
            .filter(|&id| self.ends().all(|end| end != id));
        self.ends().chain(eot).filter(|_| is_asked).collect()
    }

    /// The tokens that end an answer, the usual one first.
    pub fn ends(&self) -> impl Iterator<Item = u32> {
        let further = self.further_eos_token_ids.iter().copied();
        std::iter::once(self.info.eos_token_id).chain(further)
    }
}

/// How far a step sees and how soon a cache is computed anew.
fn refresh(overrides: &Overrides) -> RefreshPolicy {
    const ACTIVITY_INTERVAL: usize = 8;
    let usual = RefreshPolicy::default();
    let interval = (overrides.cache == Some(CacheMode::Activity)).then_some(ACTIVITY_INTERVAL);
    RefreshPolicy {
        suffix_window: overrides.suffix_window,
        prompt_interval: overrides.prompt_interval.unwrap_or(usual.prompt_interval),
        vicinity: overrides.vicinity.unwrap_or(usual.vicinity),
        refresh_interval: overrides.refresh_interval.or(interval),
        keep_active: overrides.keep_active.unwrap_or(usual.keep_active),
    }
}
