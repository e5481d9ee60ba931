//! Checked configurations out of raw flags.

use std::fmt;
use std::path::Path;

use anyhow::Result;
use llada::diffusion::{MaskPredictor as _, PredictorInfo};
use llada::sample::{CacheMode, Process, RefreshPolicy, Remasking, SampleConfig};
use llada::{Checkpoint, CpuConfig, CpuLevel, Device, Llada, ModelConfig, Precision};

use crate::args::{DeviceName, Dtype, ModelArgs, RunArgs, SamplerArgs};

/// The command was used in a wrong way: exit code 2.
#[derive(Debug)]
pub(crate) struct Misuse(String);

impl Misuse {
    /// An error of a library about what the user gave, with its causes.
    pub(crate) fn from_error(error: impl Into<anyhow::Error>) -> anyhow::Error {
        Self::of(format!("{:#}", error.into()))
    }

    pub(crate) fn of(text: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Self(text.into()))
    }
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

/// The CPU as the flags and `LLADA_CPU_LEVEL` ask for it.
pub(crate) fn cpu(threads: usize) -> Result<Device> {
    let level = match std::env::var("LLADA_CPU_LEVEL") {
        Err(_) => None,
        Ok(name) => Some(CpuLevel::from_name(&name).ok_or_else(|| {
            let known = CpuLevel::ALL.map(CpuLevel::name).join(", ");
            Misuse::of(format!(
                "LLADA_CPU_LEVEL={name}: unknown, expected one of {known}"
            ))
        })?),
    };
    Ok(Device::cpu(CpuConfig { threads, level })?)
}

/// The model that the flags ask for.
pub(crate) fn load(args: &ModelArgs) -> Result<Llada> {
    load_checkpoint(args).map(|(llada, _)| llada)
}

/// The device that the flags ask for.
pub(crate) fn device(args: &RunArgs) -> Result<Device> {
    match args.device {
        DeviceName::Cuda(ordinal) => cuda(ordinal),
        DeviceName::Auto if has_cuda() => cuda(0),
        DeviceName::Auto | DeviceName::Cpu => cpu(args.threads),
    }
}

#[cfg(feature = "cuda")]
fn cuda(ordinal: usize) -> Result<Device> {
    Ok(llada::cuda_device(ordinal)?)
}

#[cfg(not(feature = "cuda"))]
fn cuda(_ordinal: usize) -> Result<Device> {
    anyhow::bail!("--device cuda: CUDA is not built in; build with `cargo xtask build --cuda`")
}

/// Whether there is a GPU that this build can use; one that is there but fails is then reported
/// when it is opened.
fn has_cuda() -> bool {
    #[cfg(feature = "cuda")]
    return llada::cuda_device_count().is_ok_and(|n| n > 0);
    #[cfg(not(feature = "cuda"))]
    false
}

/// The precision that the flags ask for, if they ask for one.
pub(crate) fn precision(dtype: Dtype) -> Option<Precision> {
    match dtype {
        Dtype::Auto => None,
        Dtype::F32 => Some(Precision::F32),
        Dtype::Bf16 => Some(Precision::Bf16),
        Dtype::Int8 => Some(Precision::Int8),
        Dtype::Int4 => Some(Precision::Int4),
    }
}

/// What `--model` names, brought from the Hub if need be, or the embedded poem model.
pub(crate) fn open(model: Option<&Path>) -> Result<Checkpoint> {
    Ok(match model {
        Some(model) => Checkpoint::open(&crate::hub::resolve(model)?)?,
        None => Checkpoint::embedded()?,
    })
}

/// The model that the flags ask for, and where it came from.
pub(crate) fn load_checkpoint(args: &ModelArgs) -> Result<(Llada, Checkpoint)> {
    let device = device(&args.run)?;
    // All that the flags alone can be wrong in was found before anything is downloaded.
    let checkpoint = open(args.model.as_deref())?;
    let precision = precision(args.dtype);
    let precision = precision.unwrap_or_else(|| checkpoint.config().default_precision());
    Ok((checkpoint.frozen(&device, precision)?, checkpoint))
}

/// The configuration of a preset.
pub(crate) fn preset(name: &str) -> Result<ModelConfig> {
    llada::model::preset(name).ok_or_else(|| {
        let known = llada::model::PRESETS.join(", ");
        Misuse::of(format!("preset {name}: unknown, expected one of {known}"))
    })
}

/// Whether the model is a character model as `llada train` makes them: it was trained on whole
/// documents, which end with an EOS. The tokenizers of published models have no unknown token.
pub(crate) fn is_character_model(llada: &Llada) -> bool {
    llada.tokenizer.unk_token_id().is_some()
}

/// Whether the model is autoregressive: causal attention, trained to predict the next token.
pub(crate) fn is_autoregressive(llada: &Llada) -> bool {
    llada.model.config().causal
}

/// What only a masked diffusion model can do.
pub(crate) fn needs_diffusion(what: &str) -> anyhow::Error {
    Misuse::of(format!(
        "{what}: this model is autoregressive (causal in its config.json) and only continues text; \
         give a --model trained with objective = \"diffusion\""
    ))
}

/// The first of the flags that is set.
fn first_set(flags: &[(&'static str, bool)]) -> Option<&'static str> {
    let found = flags.iter().find(|(_, is_set)| *is_set);
    found.map(|(flag, _)| *flag)
}

/// Refuses flags of the commit rules that contradict each other.
fn check_process(args: &SamplerArgs) -> Result<()> {
    let rules = [
        ("--threshold", args.threshold.is_some()),
        ("--factor", args.factor.is_some()),
        ("--eb-gamma", args.eb_gamma.is_some()),
        ("--entropy-exit", args.entropy_exit.is_some()),
    ];
    let variants = [
        ("--relaxed-threshold", args.relaxed_threshold.is_some()),
        ("--low-threshold", args.low_threshold.is_some()),
        ("--threshold-fall", args.threshold_fall.is_some()),
    ];
    for group in [&rules[..], &variants] {
        let mut set = group.iter().filter(|(_, is_set)| *is_set);
        if let (Some((one, _)), Some((other, _))) = (set.next(), set.next()) {
            return Err(Misuse::of(format!("{one} cannot be used with {other}")));
        }
    }
    let needs = |flag: &str, needed: &str| Err(Misuse::of(format!("{flag} needs {needed}")));
    match first_set(&variants) {
        Some(flag) if args.threshold.is_none() => return needs(flag, "--threshold"),
        _ => {}
    }
    if args.leap_radius.is_some() && args.relaxed_threshold.is_none() {
        return needs("--leap-radius", "--relaxed-threshold");
    }
    // Clap refuses the others.
    if args.eb_gamma.is_some() && args.steps.is_some() {
        return Err(Misuse::of("--eb-gamma cannot be used with --steps"));
    }
    Ok(())
}

fn process(args: &SamplerArgs) -> Result<Process> {
    /// As published (arXiv 2510.07081).
    const LEAP_RADIUS: usize = 4;
    check_process(args)?;
    if let Some(threshold) = args.threshold {
        let of = (
            args.relaxed_threshold,
            args.low_threshold,
            args.threshold_fall,
        );
        return Ok(match of {
            (Some(relaxed), _, _) => Process::LocalLeap {
                threshold,
                relaxed,
                radius: args.leap_radius.unwrap_or(LEAP_RADIUS),
            },
            (None, Some(low), _) => Process::Hierarchical {
                high: threshold,
                low,
            },
            (None, None, Some(fall)) => Process::FallingThreshold { threshold, fall },
            (None, None, None) => Process::Threshold(threshold),
        });
    }
    Ok(match (args.factor, args.eb_gamma, args.entropy_exit) {
        (Some(factor), _, _) => Process::Factor(factor),
        (None, Some(gamma), _) => Process::EntropyBound(gamma),
        (None, None, Some(bound)) => Process::EntropyExit(bound),
        (None, None, None) => Process::Quota,
    })
}

/// How far a step sees and how soon a cache is computed anew.
fn refresh(args: &SamplerArgs, cache: CacheMode) -> Result<RefreshPolicy> {
    /// As of dKV-Cache (arXiv 2505.15781): never would let errors grow.
    const ACTIVITY_INTERVAL: usize = 8;
    let is_cached = cache != CacheMode::None;
    let of_cache = [
        ("--prompt-interval", args.prompt_interval.is_some()),
        ("--vicinity", args.vicinity.is_some()),
        ("--refresh-interval", args.refresh_interval.is_some()),
    ];
    match first_set(&of_cache) {
        Some(flag) if !is_cached => {
            return Err(Misuse::of(format!(
                "{flag} needs --cache prefix, dual or activity"
            )));
        }
        _ => {}
    }
    if args.keep_active.is_some() && cache != CacheMode::Activity {
        return Err(Misuse::of("--keep-active needs --cache activity"));
    }
    for (flag, value) in [
        ("--prompt-interval", args.prompt_interval),
        ("--refresh-interval", args.refresh_interval),
    ] {
        if value == Some(0) {
            return Err(Misuse::of(format!("{flag} must be at least 1")));
        }
    }
    let usual = RefreshPolicy::default();
    let interval = (cache == CacheMode::Activity).then_some(ACTIVITY_INTERVAL);
    Ok(RefreshPolicy {
        suffix_window: args.suffix_window,
        prompt_interval: args.prompt_interval.unwrap_or(usual.prompt_interval),
        vicinity: args.vicinity.unwrap_or(usual.vicinity),
        refresh_interval: args.refresh_interval.or(interval),
        keep_active: args.keep_active.unwrap_or(usual.keep_active),
    })
}

/// The first flag that means something to a masked diffusion model alone.
fn of_diffusion(args: &SamplerArgs, cache: CacheMode) -> Option<&'static str> {
    first_set(&[
        ("--steps", args.steps.is_some()),
        ("--block-length", args.block_length.is_some()),
        ("--cfg-scale", args.cfg_scale > 0.0),
        ("--remasking", args.remasking != Remasking::default().name()),
        (
            "--cache",
            !matches!(cache, CacheMode::None | CacheMode::Prefix),
        ),
        ("--prompt-interval", args.prompt_interval.is_some()),
        ("--vicinity", args.vicinity.is_some()),
        ("--refresh-interval", args.refresh_interval.is_some()),
        ("--suffix-window", args.suffix_window.is_some()),
        ("--threshold", args.threshold.is_some()),
        ("--factor", args.factor.is_some()),
        ("--eb-gamma", args.eb_gamma.is_some()),
        ("--entropy-exit", args.entropy_exit.is_some()),
        ("--confidence-eos-eot-inf", args.confidence_eos_eot_inf),
    ])
}

/// The sampler's configuration; `gen_length` is the number of masks to fill.
pub(crate) fn sampler(
    args: &SamplerArgs,
    llada: &Llada,
    gen_length: usize,
    infill: bool,
) -> Result<SampleConfig> {
    let PredictorInfo { eos_token_id, .. } = llada.model.info();
    let remasking = args
        .remasking
        .parse()
        .map_err(|error| Misuse::of(format!("{error}")))?;
    let cache: CacheMode = args
        .cache
        .parse()
        .map_err(|error| Misuse::of(format!("{error}")))?;
    let process = process(args)?;
    let is_autoregressive = is_autoregressive(llada);
    match of_diffusion(args, cache) {
        Some(flag) if is_autoregressive => return Err(needs_diffusion(flag)),
        _ => {}
    }
    let steps = args.steps.unwrap_or(gen_length);
    for (flag, value) in [("--gen-length", gen_length), ("--steps", steps)] {
        if value == 0 {
            return Err(Misuse::of(format!("{flag} must be at least 1")));
        }
    }
    if args.block_length == Some(0) {
        return Err(Misuse::of("--block-length must be at least 1"));
    }
    // What a text never holds is never chosen; an infilled text does not end in its middle.
    let unk = llada.tokenizer.unk_token_id();
    let mut suppressed: Vec<u32> = unk.into_iter().collect();
    if infill || args.logits_eos_inf {
        suppressed.push(eos_token_id);
    }
    let mut late = Vec::new();
    if args.confidence_eos_eot_inf {
        late.push(eos_token_id);
        late.extend(llada.tokenizer.token_to_id("<|eot_id|>"));
    }
    Ok(SampleConfig {
        steps,
        gen_length,
        block_length: args.block_length,
        temperature: args.temperature,
        cfg_scale: args.cfg_scale,
        remasking,
        process,
        // Of causal attention keys and values never change: taking them again changes nothing.
        cache: if is_autoregressive {
            CacheMode::Prefix
        } else {
            cache
        },
        refresh: refresh(args, cache)?,
        early_stop: args.early_stop,
        seed: args.seed,
        // As in the reference, a mask may win in a published model; a character vocabulary is ours.
        suppress_mask: infill || is_character_model(llada),
        logits_eos_inf: suppressed,
        confidence_eos_eot_inf: late,
    })
}
