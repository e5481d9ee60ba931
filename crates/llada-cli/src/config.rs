//! Checked configurations out of raw flags.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result};
use llada::diffusion::Estimator;
use llada::model::Error as ModelError;
use llada::sample::{
    CacheMode, EndThink, Error as SampleError, Overrides, Preset, Rules, RulesError,
};
use llada::text::Reasoning;
use llada::{
    Checkpoint, CpuConfig, CpuLevel, Device, Llada, LoadError, ModelConfig, OpenOptions, Precision,
    Tokenizer,
};

use crate::args::{
    AdapterArg, DeviceName, Dtype, EstimatorName, ModelArgs, OpenArgs, ProtocolArgs, RunArgs,
    SamplerArgs,
};
use crate::output::note;

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
    load_checkpoint(args, Embedded::Poems, false).map(|(llada, _)| llada)
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
    let config = llada::CudaConfig::from_variables(std::env::var_os);
    Ok(llada::cuda_device(ordinal, config)?)
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
        Dtype::Blocks => Some(Precision::Blocks),
        Dtype::Int8 => Some(Precision::Int8),
        Dtype::Int4 => Some(Precision::Int4),
    }
}

/// What answers where no `--model` is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Embedded {
    /// The poem model.
    Poems,
    /// The poem model with its instruction adapter; an `--adapter` takes its place.
    Instruct,
}

/// What `--model` names, brought from the Hub if need be, or the embedded poem model; with what
/// `--adapter` names.
pub(crate) fn open(
    model: Option<&Path>,
    adapters: &[AdapterArg],
    options: OpenArgs,
) -> Result<Checkpoint> {
    open_or(Embedded::Poems, model, adapters, options)
}

fn open_or(
    embedded: Embedded,
    model: Option<&Path>,
    adapters: &[AdapterArg],
    options: OpenArgs,
) -> Result<Checkpoint> {
    if model.is_none() && options.mask_token_id.is_some() {
        return Err(Misuse::of(
            "--mask-token-id needs --model: the mask of the embedded model is known",
        ));
    }
    let mut checkpoint = match (model, embedded) {
        (Some(model), _) => open_model(&crate::hub::resolve(model)?, options.into())?,
        (None, Embedded::Instruct) if adapters.is_empty() => Checkpoint::embedded_instruct()?,
        (None, _) => Checkpoint::embedded()?,
    };
    for adapter in adapters {
        let dir = crate::hub::resolve(&adapter.dir)?;
        checkpoint = checkpoint.with_adapter(&dir, adapter.scale)?;
    }
    for warning in checkpoint.source().warnings() {
        note(&format!("warning: {warning}"));
    }
    Ok(checkpoint)
}

/// A folder or a file; of an adapter whose base is on the Hub, both.
fn open_model(path: &Path, options: OpenOptions) -> Result<Checkpoint> {
    match Checkpoint::open_with(path, options) {
        Err(LoadError::Model(ModelError::AdapterAlone {
            base: Some(base),
            revision,
            ..
        })) if crate::hub::may_be_id(&base) => {
            let revision = revision.map_or_else(String::new, |revision| format!("@{revision}"));
            let whole = format!("{base}{revision}");
            let found = crate::hub::resolve(Path::new(&whole)).with_context(|| {
                format!("{} is an adapter, and its base is {whole}", path.display())
            })?;
            Ok(Checkpoint::open_with(&found, options)?.with_adapter(path, 1.0)?)
        }
        checkpoint => Ok(checkpoint?),
    }
}

/// The model that the flags ask for, and where it came from. One of which only ids are asked and told
/// needs no tokenizer: without one its texts are numbers.
pub(crate) fn load_checkpoint(
    args: &ModelArgs,
    embedded: Embedded,
    only_ids: bool,
) -> Result<(Llada, Checkpoint)> {
    let device = device(&args.run)?;
    // All that the flags alone can be wrong in was found before anything is downloaded.
    let checkpoint = open_or(embedded, args.model.as_deref(), &args.adapter, args.open)?;
    let tokenizer = match checkpoint.tokenizer() {
        Err(_) if only_ids => Tokenizer::of_numbers(checkpoint.config().vocab_size),
        tokenizer => tokenizer?,
    };
    let precision = precision(args.dtype);
    let precision = precision.unwrap_or_else(|| checkpoint.source().default_precision(&device));
    let llada = checkpoint.frozen_with(tokenizer, &device, precision)?;
    Ok((llada, checkpoint))
}

/// The configuration of a preset.
pub(crate) fn preset(name: &str) -> Result<ModelConfig> {
    llada::model::preset(name).ok_or_else(|| {
        let known = llada::model::PRESETS.join(", ");
        Misuse::of(format!("preset {name}: unknown, expected one of {known}"))
    })
}

impl From<EstimatorName> for Estimator {
    fn from(name: EstimatorName) -> Self {
        match name {
            EstimatorName::L => Self::Count,
            EstimatorName::T => Self::Ratio,
            EstimatorName::Chain => Self::Chain,
            EstimatorName::Confidence => Self::Confidence,
        }
    }
}

/// What only a masked diffusion model can do.
fn needs_diffusion(what: &str) -> anyhow::Error {
    Misuse::of(format!(
        "{what}: this model is autoregressive (causal in its config.json) and only continues text; \
         give a --model trained with objective = \"diffusion\""
    ))
}

/// A setting by the name of its flag.
fn flag(setting: &str) -> String {
    format!("--{}", setting.replace('_', "-"))
}

/// Says an error of a library about a setting in the words of the flags.
pub(crate) fn explain(error: anyhow::Error) -> anyhow::Error {
    let explained = error.chain().find_map(|cause| {
        let of_sampler = cause.downcast_ref().and_then(of_setting);
        let of_model = cause.downcast_ref().and_then(|error| match error {
            llada::diffusion::Error::NotAutoregressive { what } => {
                Some(needs_diffusion(&flag(what)))
            }
            _ => None,
        });
        of_sampler.or(of_model)
    });
    explained.unwrap_or(error)
}

/// The same of the sampler's errors, where a flag is to blame.
pub(crate) fn of_setting(error: &SampleError) -> Option<anyhow::Error> {
    let text = match error {
        SampleError::NotAutoregressive { what: "infill", .. } => {
            return Some(needs_diffusion("infill"));
        }
        SampleError::NotAutoregressive { what, .. } => return Some(needs_diffusion(&flag(what))),
        SampleError::NotForProtocol { what, protocol } => {
            let loop_ = of_protocol(protocol);
            format!("{} cannot be used with this model: {loop_}", as_flag(what))
        }
        SampleError::NotForProcess { what, process, .. } => {
            let process = process.trim_start_matches("the ");
            format!("{} cannot be used with {process}", as_flag(what))
        }
        SampleError::BlockLength { expected, got, .. } => format!(
            "--block-length must be {expected}, the size of the blocks that this model was made for, \
             got {got}"
        ),
        SampleError::OutOfRange {
            what: "logit_boost",
            expected,
            got,
            ..
        } => format!("--end-think-boost must be {expected}, got {got}"),
        SampleError::OutOfRange {
            what: "power",
            expected,
            got,
            ..
        } => format!("--end-think-power must be {expected}, got {got}"),
        _ => return None,
    };
    Some(Misuse::of(text))
}

/// A setting, or what the library calls one that has no name of its own, as a flag.
fn as_flag(what: &str) -> String {
    match what {
        what if what.contains(' ') => what.to_owned(),
        what => flag(what),
    }
}

/// What the loop is that models of a protocol were published with, and what is set in its place.
fn of_protocol(name: &str) -> &'static str {
    match name {
        "llada" => "its loop is LLaDA's, on a canvas of a fixed length",
        "variable_length" => {
            "its loop is LLaDA's, in blocks that are appended until one holds an end"
        }
        "block_diffusion" => {
            "its loop is that of LLaDA2.0, which fills blocks by --steps, --threshold and \
             --minimal-topk; --editing-threshold, --max-post-steps or --num-to-transfer choose that \
             of LLaDA2.1"
        }
        "editing" => {
            "its loop is that of LLaDA2.1, which --editing-threshold, --max-post-steps and \
             --num-to-transfer choose, and which goes by --threshold"
        }
        "rewriting" => {
            "its loop is that of LLaDA2.2, which goes by --steps, --threshold, --editing-threshold \
             and --max-post-steps"
        }
        _ => {
            "its loop is that of Dream, which fills the whole canvas by --steps, --eps, --alg and \
             --alg-temp"
        }
    }
}

/// The first of the flags that is set.
fn first_set(flags: &[(&'static str, bool)]) -> Option<&'static str> {
    let found = flags.iter().find(|(_, is_set)| *is_set);
    found.map(|(flag, _)| *flag)
}

/// How many tokens a step reveals, as the flags say it.
fn rules(args: &SamplerArgs) -> Rules {
    Rules {
        threshold: args.threshold,
        factor: args.factor,
        eb_gamma: args.eb_gamma,
        entropy_exit: args.entropy_exit,
        relaxed_threshold: args.relaxed_threshold,
        leap_radius: args.leap_radius,
        low_threshold: args.low_threshold,
        threshold_fall: args.threshold_fall,
        margin_exit: args.margin_exit,
        margin_exit_fall: args.margin_exit_fall,
    }
}

fn of_rules(error: RulesError) -> anyhow::Error {
    match error {
        RulesError::Conflict { one, other } => {
            Misuse::of(format!("{} cannot be used with {}", flag(one), flag(other)))
        }
        RulesError::Needs { what, needed } => {
            Misuse::of(format!("{} needs {}", flag(what), flag(needed)))
        }
    }
}

/// The preset of a name.
pub(crate) fn sampling_preset(name: Option<&str>) -> Result<Option<Preset>> {
    name.map(str::parse).transpose().map_err(Misuse::from_error)
}

/// Refuses values that are out of range, and flags of a cache without one: after what the model
/// refuses, as an autoregressive one has no such flags.
pub(crate) fn check_flags(args: &SamplerArgs, gen_length: Option<usize>) -> Result<()> {
    check_counts(&[
        ("--gen-length", gen_length),
        ("--steps", args.steps),
        ("--block-length", args.block_length),
    ])?;
    let of_cache = [
        ("--prompt-interval", args.prompt_interval.is_some()),
        ("--vicinity", args.vicinity.is_some()),
        ("--refresh-interval", args.refresh_interval.is_some()),
    ];
    let given = (args.cache.as_deref()).or(match sampling_preset(args.preset.as_deref())? {
        Some(preset) => Some(preset.cache().name()),
        None => None,
    });
    let is_uncached = given.is_none_or(|cache| cache == CacheMode::None.name());
    if let Some(flag) = first_set(&of_cache).filter(|_| is_uncached) {
        let needed = "--cache prefix, dual or activity";
        return Err(Misuse::of(format!("{flag} needs {needed}")));
    }
    if args.keep_active.is_some() && given != Some(CacheMode::Activity.name()) {
        return Err(Misuse::of("--keep-active needs --cache activity"));
    }
    check_counts(&[
        ("--prompt-interval", args.prompt_interval),
        ("--refresh-interval", args.refresh_interval),
    ])
}

/// Refuses zeros of flags that count something.
pub(crate) fn check_counts(flags: &[(&str, Option<usize>)]) -> Result<()> {
    match flags.iter().find(|(_, value)| *value == Some(0)) {
        Some((flag, _)) => Err(Misuse::of(format!("{flag} must be at least 1"))),
        None => Ok(()),
    }
}

/// What the flags change of a request.
pub(crate) fn overrides(args: &SamplerArgs, gen_length: Option<usize>) -> Result<Overrides> {
    Ok(Overrides {
        gen_length,
        steps: args.steps,
        block_length: args.block_length,
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        cfg_scale: args.cfg_scale,
        remasking: args.remasking.parse().map_err(Misuse::from_error)?,
        preset: sampling_preset(args.preset.as_deref())?,
        cache: (args.cache.as_deref().map(str::parse).transpose()).map_err(Misuse::from_error)?,
        process: rules(args)
            .process(args.steps.is_some())
            .map_err(of_rules)?,
        overlap: args.overlap,
        margin_exit: rules(args).margin_exit().map_err(of_rules)?,
        suffix_window: args.suffix_window,
        prompt_interval: args.prompt_interval,
        vicinity: args.vicinity,
        refresh_interval: args.refresh_interval,
        keep_active: args.keep_active,
        speculate: args.speculate,
        early_stop: args.early_stop,
        seed: args.seed,
        logits_eos_inf: args.logits_eos_inf,
        confidence_eos_eot_inf: args.confidence_eos_eot_inf,
        ..of_families(&args.protocol)?
    })
}

/// What the flags of other families change of a request; [`end_think`] needs the model.
pub(crate) fn of_families(args: &ProtocolArgs) -> Result<Overrides> {
    let alg = args.alg.as_deref().map(str::parse).transpose();
    if args.end_think_power.is_some() && args.end_think_boost.is_none() {
        return Err(Misuse::of("--end-think-power needs --end-think-boost"));
    }
    Ok(Overrides {
        variable_length: args.variable_length,
        minimal_topk: args.minimal_topk,
        editing_threshold: args.editing_threshold,
        max_post_steps: args.max_post_steps,
        num_to_transfer: args.num_to_transfer,
        eps: args.eps,
        alg: alg.map_err(Misuse::from_error)?,
        alg_temp: args.alg_temp,
        ..Overrides::default()
    })
}

/// What `--end-think-boost` makes likelier, by the tokens of a model.
pub(crate) fn end_think(args: &ProtocolArgs, tokenizer: &Tokenizer) -> Result<Option<EndThink>> {
    let Some(logit_boost) = args.end_think_boost else {
        return Ok(None);
    };
    let Some(token_ids) = Reasoning::end_ids(tokenizer) else {
        return Err(Misuse::of(format!(
            "--end-think-boost: the tokenizer of this model has no tokens for {}",
            Reasoning::END
        )));
    };
    Ok(Some(EndThink {
        token_ids,
        logit_boost,
        power: args.end_think_power.unwrap_or(1.0),
    }))
}
