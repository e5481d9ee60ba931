//! The sampler's settings in the body of a request.

use llada::Overrides;
use llada::sample::{CacheMode, EndThink, Preset, Rules};
use llada::text::Reasoning;

use crate::error::{ApiError, Result};
use crate::model::Model;

/// The settings, of whichever body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sampler {
    pub(crate) preset: Option<String>,
    pub(crate) gen_length: Option<usize>,
    pub(crate) steps: Option<usize>,
    pub(crate) block_length: Option<usize>,
    pub(crate) temperature: Option<f64>,
    pub(crate) top_k: Option<usize>,
    pub(crate) top_p: Option<f64>,
    pub(crate) cfg_scale: Option<f32>,
    pub(crate) remasking: Option<String>,
    pub(crate) cache: Option<String>,
    pub(crate) rules: Rules,
    pub(crate) overlap: Option<f32>,
    pub(crate) suffix_window: Option<usize>,
    pub(crate) prompt_interval: Option<usize>,
    pub(crate) vicinity: Option<usize>,
    pub(crate) refresh_interval: Option<usize>,
    pub(crate) keep_active: Option<usize>,
    pub(crate) speculate: Option<usize>,
    pub(crate) early_stop: Option<bool>,
    pub(crate) logits_eos_inf: Option<bool>,
    pub(crate) confidence_eos_eot_inf: Option<bool>,
    pub(crate) seed: Option<i64>,
    pub(crate) variable_length: Option<bool>,
    pub(crate) end_think_boost: Option<f32>,
    pub(crate) end_think_power: Option<f32>,
    pub(crate) minimal_topk: Option<usize>,
    pub(crate) editing_threshold: Option<f32>,
    pub(crate) max_post_steps: Option<usize>,
    pub(crate) num_to_transfer: Option<usize>,
    pub(crate) alg: Option<String>,
    pub(crate) alg_temp: Option<f32>,
    pub(crate) eps: Option<f32>,
}

impl Sampler {
    /// What a request changes of the model's policy. An answer ends at its EOS unless the request
    /// says otherwise: what comes after it is not given out, and what comes before it is the same.
    pub(crate) fn overrides(&self, model: &Model) -> Result<Overrides> {
        let cache: Option<CacheMode> = self.cache.as_deref().map(str::parse).transpose()?;
        let preset: Option<Preset> = self.preset.as_deref().map(str::parse).transpose()?;
        if self.keep_active.is_some() && cache != Some(CacheMode::Activity) {
            let message = "keep_active needs cache: \"activity\"";
            return Err(ApiError::field("keep_active", message));
        }
        if self.gen_length == Some(0) {
            let message = "max_tokens must be at least 1: it is the size of the canvas";
            return Err(ApiError::field("max_tokens", message));
        }
        Ok(Overrides {
            preset: preset.or(model.preset),
            gen_length: self.gen_length,
            steps: self.steps,
            block_length: self.block_length,
            temperature: self.temperature.unwrap_or(0.0),
            top_k: self.top_k,
            // 1 is all of them, as in OpenAI's interface: no nucleus.
            top_p: self.top_p.filter(|p| p.to_bits() != 1.0_f64.to_bits()),
            cfg_scale: self.cfg_scale.unwrap_or(0.0),
            remasking: match &self.remasking {
                Some(name) => name.parse()?,
                None => llada::sample::Remasking::default(),
            },
            process: self.rules.process(self.steps.is_some())?,
            margin_exit: self.rules.margin_exit()?,
            cache,
            overlap: self.overlap,
            suffix_window: self.suffix_window,
            prompt_interval: self.prompt_interval,
            vicinity: self.vicinity,
            refresh_interval: self.refresh_interval,
            keep_active: self.keep_active,
            speculate: self.speculate.unwrap_or(0),
            early_stop: self.early_stop.unwrap_or(true),
            seed: self.seed.unwrap_or(0).cast_unsigned(),
            logits_eos_inf: self.logits_eos_inf.unwrap_or(false),
            confidence_eos_eot_inf: self.confidence_eos_eot_inf.unwrap_or(false),
            variable_length: self.variable_length,
            end_think: self.end_think(model)?,
            minimal_topk: self.minimal_topk,
            editing_threshold: self.editing_threshold,
            max_post_steps: self.max_post_steps,
            num_to_transfer: self.num_to_transfer,
            alg: self.alg.as_deref().map(str::parse).transpose()?,
            alg_temp: self.alg_temp,
            eps: self.eps,
            suppress_mask: None,
        })
    }

    fn end_think(&self, model: &Model) -> Result<Option<EndThink>> {
        let Some(logit_boost) = self.end_think_boost else {
            return match self.end_think_power {
                None => Ok(None),
                Some(_) => {
                    let message = "end_think_power needs end_think_boost";
                    Err(ApiError::field("end_think_power", message))
                }
            };
        };
        let Some(token_ids) = Reasoning::end_ids(&model.llada.tokenizer) else {
            let message = format!(
                "end_think_boost: the tokenizer of {:?} has no tokens for {}",
                model.id,
                Reasoning::END
            );
            return Err(ApiError::unsupported("end_think_boost", message));
        };
        Ok(Some(EndThink {
            token_ids,
            logit_boost,
            power: self.end_think_power.unwrap_or(1.0),
        }))
    }
}

/// A body with the settings of the sampler and of the scheduler beside its own fields. One flat
/// struct, so that an unknown field is an error and every error has the field's path.
macro_rules! request_body {
    (
        $(#[$attribute:meta])*
        $name:ident {
            $( $(#[$field_attribute:meta])* $field:ident: $type:ty, )*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, serde::Deserialize, utoipa::ToSchema)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            $( $(#[$field_attribute])* pub(crate) $field: $type, )*
            /// Tokens of the answer: the size of the canvas that is filled. The same as
            /// `max_tokens`.
            #[schema(minimum = 1)]
            pub(crate) gen_length: Option<usize>,
            /// Rule, cache and blocks together: `exact`, `balanced` or `fast`; what other settings say
            /// stays.
            pub(crate) preset: Option<String>,
            /// Denoising steps in all, of LLaDA2.x and iLLaDA those of each block; one a token if not
            /// given, of LLaDA2.x 32 a block, of Dream 512. Beside `threshold` and `factor`, which
            /// decide by themselves how many they take, the most that are allowed.
            #[schema(minimum = 1)]
            pub(crate) steps: Option<usize>,
            /// Tokens of a semi-autoregressive block; one block if not given, of iLLaDA and LLaDA2.x
            /// 32.
            #[schema(minimum = 1)]
            pub(crate) block_length: Option<usize>,
            /// Gumbel temperature; 0, the default, takes the most likely token.
            #[schema(minimum = 0)]
            pub(crate) temperature: Option<f64>,
            /// Draw among so many of the most likely tokens; with a temperature.
            #[schema(minimum = 1)]
            pub(crate) top_k: Option<usize>,
            /// Draw among the most likely tokens whose probabilities add up to this; with a
            /// temperature.
            #[schema(exclusive_minimum = 0, maximum = 1)]
            pub(crate) top_p: Option<f64>,
            /// Scale of classifier-free guidance; 0 is none.
            #[schema(minimum = 0)]
            pub(crate) cfg_scale: Option<f32>,
            /// Which masks are revealed first: `low_confidence`, `random`, `margin`, `entropy` or
            /// `running_confidence`.
            pub(crate) remasking: Option<String>,
            /// Keys and values taken from earlier steps: `none`, `prefix`, `dual` or `activity`.
            pub(crate) cache: Option<String>,
            /// Reveal every token that is this sure, at least one a step.
            pub(crate) threshold: Option<f32>,
            /// Reveal the k surest as long as the k-th is surer than 1 - factor / (k + 1).
            pub(crate) factor: Option<f32>,
            /// Reveal the most tokens whose entropies without the largest add up to no more nats.
            pub(crate) eb_gamma: Option<f32>,
            /// Reveal what `steps` says, and every token of an entropy below this.
            pub(crate) entropy_exit: Option<f32>,
            /// A lower threshold close to tokens that reach it.
            pub(crate) relaxed_threshold: Option<f32>,
            /// How many positions count as close.
            pub(crate) leap_radius: Option<usize>,
            /// A lower threshold for the surest token of every run of masks.
            pub(crate) low_threshold: Option<f32>,
            /// The share that the threshold loses while a block fills.
            pub(crate) threshold_fall: Option<f32>,
            /// Open a block when this share of the one before it is filled, and reveal in it what passes
            /// the bar; with `threshold` or `entropy_exit`.
            pub(crate) overlap: Option<f32>,
            /// Reveal all that a block has left once the mean margin of its masks reaches this;
            /// beside any rule.
            pub(crate) margin_exit: Option<f32>,
            /// The share that `margin_exit` loses while a block fills; 0 if not given.
            pub(crate) margin_exit_fall: Option<f32>,
            /// Compute and see no masks but those of so many positions after the block.
            pub(crate) suffix_window: Option<usize>,
            /// Compute the prompt anew in every N-th block only; with a cache.
            pub(crate) prompt_interval: Option<usize>,
            /// Compute so many positions on either side of the block with it; with a cache.
            pub(crate) vicinity: Option<usize>,
            /// Compute everything but the prompt anew every N calls; with a cache.
            pub(crate) refresh_interval: Option<usize>,
            /// Compute new tokens for so many more calls; with the cache `activity`.
            pub(crate) keep_active: Option<usize>,
            /// Compute up to so many guesses of coming steps beside each: fewer passes for the same
            /// text, if guesses come true.
            #[schema(maximum = 64)]
            pub(crate) speculate: Option<usize>,
            /// Whether an answer ends at an EOS without masks before it; true if not given.
            pub(crate) early_stop: Option<bool>,
            /// Never choose the EOS.
            pub(crate) logits_eos_inf: Option<bool>,
            /// Reveal EOS and EOT last.
            pub(crate) confidence_eos_eot_inf: Option<bool>,
            /// Seed of everything that is drawn; 0 if not given.
            pub(crate) seed: Option<i64>,
            /// LLaDA, LLaDA-MoE, iLLaDA: write block by block until one holds an end, not on a canvas
            /// of a fixed length; true of iLLaDA if not given.
            pub(crate) variable_length: Option<bool>,
            /// iLLaDA: make the end of the reasoning likelier, up to this much at the end of the
            /// answer.
            pub(crate) end_think_boost: Option<f32>,
            /// The boost of token n of an answer of N is (n / N) to this power of `end_think_boost`;
            /// 1 if not given.
            #[schema(minimum = 0)]
            pub(crate) end_think_power: Option<f32>,
            /// LLaDA2.0: no more than the answer's length divided by this steps a block; 1 if not
            /// given.
            #[schema(minimum = 1)]
            pub(crate) minimal_topk: Option<usize>,
            /// LLaDA2.1 and 2.2: replace a written token where another one is predicted with more than
            /// this probability. Of LLaDA2.0 and 2.1, whose files are alike, this or one of the next
            /// two chooses the loop of 2.1.
            #[schema(minimum = 0)]
            pub(crate) editing_threshold: Option<f32>,
            /// LLaDA2.1 and 2.2: steps of a block after its last mask, at most; 16 if not given.
            pub(crate) max_post_steps: Option<usize>,
            /// LLaDA2.1: masks that a step fills at least; 1 if not given.
            #[schema(minimum = 1)]
            pub(crate) num_to_transfer: Option<usize>,
            /// Dream: which masks a step fills, `origin` (at random), `maskgit_plus`, `topk_margin` or
            /// `entropy`.
            pub(crate) alg: Option<String>,
            /// Dream: draw the masks of a step by their confidence at this temperature; 0 takes the
            /// best.
            #[schema(minimum = 0)]
            pub(crate) alg_temp: Option<f32>,
            /// Dream: where the time of the steps ends; 0.001 if not given.
            #[schema(exclusive_minimum = 0, exclusive_maximum = 1)]
            pub(crate) eps: Option<f32>,
            /// Of the sequences that wait, those with the lowest priority number go first; 0 if
            /// not given.
            pub(crate) priority: Option<i32>,
            /// Seconds after which the work is given up.
            #[schema(exclusive_minimum = 0)]
            pub(crate) timeout: Option<f64>,
        }

        impl $name {
            /// The settings of the sampler.
            pub(crate) fn sampler(&self) -> $crate::sampler::Sampler {
                $crate::sampler::Sampler {
                    preset: self.preset.clone(),
                    gen_length: self.gen_length,
                    steps: self.steps,
                    block_length: self.block_length,
                    temperature: self.temperature,
                    top_k: self.top_k,
                    top_p: self.top_p,
                    cfg_scale: self.cfg_scale,
                    remasking: self.remasking.clone(),
                    cache: self.cache.clone(),
                    rules: llada::sample::Rules {
                        threshold: self.threshold,
                        factor: self.factor,
                        eb_gamma: self.eb_gamma,
                        entropy_exit: self.entropy_exit,
                        relaxed_threshold: self.relaxed_threshold,
                        leap_radius: self.leap_radius,
                        low_threshold: self.low_threshold,
                        threshold_fall: self.threshold_fall,
                        margin_exit: self.margin_exit,
                        margin_exit_fall: self.margin_exit_fall,
                    },
                    overlap: self.overlap,
                    suffix_window: self.suffix_window,
                    prompt_interval: self.prompt_interval,
                    vicinity: self.vicinity,
                    refresh_interval: self.refresh_interval,
                    keep_active: self.keep_active,
                    speculate: self.speculate,
                    early_stop: self.early_stop,
                    logits_eos_inf: self.logits_eos_inf,
                    confidence_eos_eot_inf: self.confidence_eos_eot_inf,
                    seed: self.seed,
                    variable_length: self.variable_length,
                    end_think_boost: self.end_think_boost,
                    end_think_power: self.end_think_power,
                    minimal_topk: self.minimal_topk,
                    editing_threshold: self.editing_threshold,
                    max_post_steps: self.max_post_steps,
                    num_to_transfer: self.num_to_transfer,
                    alg: self.alg.clone(),
                    alg_temp: self.alg_temp,
                    eps: self.eps,
                }
            }

            /// When and how soon the scheduler works on it.
            pub(crate) fn order(&self) -> $crate::queue::Order {
                $crate::queue::Order {
                    priority: self.priority.unwrap_or(0),
                    timeout: self.timeout,
                }
            }
        }
    };
}

pub(crate) use request_body;
