//! Raw flags.

mod bench;
mod chat;
mod eval;
mod protocols;
mod sampler;
#[cfg(feature = "serve")]
mod serve;
mod tune;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

pub(crate) use bench::{
    BenchArgs, BenchCommand, BenchForwardArgs, BenchGenerateArgs, BenchTrainArgs, SubjectArgs,
};
pub(crate) use chat::{AnswerArgs, ChatArgs};
pub(crate) use protocols::{OpenArgs, ProtocolArgs};
pub(crate) use sampler::SamplerArgs;
#[cfg(feature = "serve")]
pub(crate) use serve::ServeArgs;
pub(crate) use tune::TuneArgs;

pub(crate) use eval::{
    EvalArgs, EvalCommand, GenerationArgs, LikelihoodArgs, ReversalArgs, ScalingArgs,
};

/// LLaDA, masked diffusion language models.
#[derive(Debug, Parser)]
#[command(name = "llada", version, about)]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Complete a prompt
    Generate(GenerateArgs),
    /// Talk with a model in the terminal
    Chat(ChatArgs),
    /// Fill the holes of a text (□, or _) and keep the rest
    Infill(InfillArgs),
    /// Estimate the likelihood of an answer
    Score(ScoreArgs),
    /// Measure what a model can do: the paper's experiments, and tasks out of files
    Eval(EvalArgs),
    /// Pre-train a model; run again to resume
    Train(TrainArgs),
    /// Fine-tune a model on prompts and answers, in full or by low-rank adapters; run again to resume
    Sft(SftArgs),
    /// Write the logits of token ids to a safetensors file
    Logits(LogitsArgs),
    /// Show what a checkpoint or a preset is
    Inspect(InspectArgs),
    /// Write a model in another type, as a folder (f32, bf16, int8, int4) or a GGUF file (f32, f16,
    /// bf16, `q8_0`, `q4_0`)
    Convert(ConvertArgs),
    /// Measure the speed of a model or of a shape, beside the machine's limit
    Bench(BenchArgs),
    /// Measure which rule and cache suit a model and your prompts: time, passes, agreement, quality
    Tune(TuneArgs),
    /// Serve models over HTTP, in the form of OpenAI's interface, with a page that shows the denoising
    #[cfg(feature = "serve")]
    Serve(ServeArgs),
    /// Write a trace (--trace FILE.jsonl) as a page that replays it: one HTML file, offline
    Replay(ReplayArgs),
    /// Print a script that completes commands in a shell
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON object on standard output.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceName {
    /// The best that is there.
    Auto,
    /// The processor.
    Cpu,
    /// A GPU, by its number.
    Cuda(usize),
}

impl std::str::FromStr for DeviceName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name.split_once(':') {
            None if name == "auto" => Some(Self::Auto),
            None if name == "cpu" => Some(Self::Cpu),
            None if name == "cuda" => Some(Self::Cuda(0)),
            Some(("cuda", n)) => n.parse().ok().map(Self::Cuda),
            _ => None,
        }
        .ok_or_else(|| "expected auto, cpu or cuda[:N]".to_owned())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    /// What suits the model.
    Auto,
    /// Products of f32 numbers.
    F32,
    /// Products of numbers rounded to bf16, sums in f32.
    Bf16,
    /// The integers of a quantised GGUF file as they are, on a CPU.
    Blocks,
    /// Weights of 8-bit integers.
    Int8,
    /// Weights of 4-bit integers in groups.
    Int4,
}

/// What weights are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "verbatim")]
#[expect(
    non_camel_case_types,
    reason = "the names of the types, as they are written"
)]
pub(crate) enum StoredType {
    /// Of other commands; nothing to write.
    #[value(hide = true)]
    auto,
    f32,
    f16,
    bf16,
    int8,
    int4,
    q8_0,
    q4_0,
}

/// Flags of every command that computes. They come last in the help, and `--dtype` among them.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct RunArgs {
    /// Where to compute: cpu, cuda[:N], or auto: the first GPU if this build and machine have one
    #[arg(long, default_value = "auto", display_order = 901)]
    pub(crate) device: DeviceName,
    /// Worker threads; 0 means one per core
    #[arg(long, default_value_t = 0, display_order = 903)]
    pub(crate) threads: usize,
    /// How the result is printed
    #[arg(long, value_enum, default_value = "text", display_order = 904)]
    pub(crate) format: Format,
}

/// An adapter and how much it counts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AdapterArg {
    pub(crate) dir: PathBuf,
    pub(crate) scale: f64,
}

impl std::str::FromStr for AdapterArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (dir, scale) = match text.rsplit_once(':') {
            Some((dir, scale)) => match scale.parse::<f64>() {
                Ok(scale) if scale.is_finite() => (dir, scale),
                Ok(_) => return Err("expected DIR[:SCALE] with a finite SCALE".to_owned()),
                Err(_) => (text, 1.0),
            },
            None => (text, 1.0),
        };
        let dir = PathBuf::from(dir);
        Ok(Self { dir, scale })
    }
}

/// Flags of every command that runs a model.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ModelArgs {
    /// Folder of a checkpoint (config.json, safetensors, tokenizer.json), a GGUF file, or a model
    /// of the Hugging Face Hub, which is downloaded once [default: the embedded poem model]
    #[arg(
        short,
        long,
        value_name = "DIR|FILE.gguf|ORG/NAME[@REV]",
        display_order = 900
    )]
    pub(crate) model: Option<PathBuf>,
    /// Folder of a `LoRA` adapter of PEFT to merge into the model while it is loaded, and how much it
    /// counts (1 unless given); may be given several times
    #[arg(
        long,
        visible_alias = "lora",
        value_name = "DIR|ORG/NAME[:SCALE]",
        display_order = 901
    )]
    pub(crate) adapter: Vec<AdapterArg>,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    /// Precision of the matrix products; auto: that of a converted model, else f32, and for more than
    /// a billion parameters bf16; of a quantised GGUF file so large its own integers on a CPU, else the
    /// first of bf16, int8 and int4 that takes little more memory than the file
    #[arg(long, value_enum, default_value = "auto", display_order = 902)]
    pub(crate) dtype: Dtype,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

impl ModelArgs {
    /// A text that is the same for the same model.
    pub(crate) fn identity(&self) -> String {
        let Self {
            model,
            adapter,
            open,
            dtype,
            ..
        } = self;
        let mask = open.mask_token_id.map(|id| format!(" mask {id}"));
        format!(
            "{model:?} {adapter:?} {dtype:?}{}",
            mask.unwrap_or_default()
        )
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct GenerateArgs {
    /// Text to complete; - reads it from standard input
    #[arg(required_unless_present_any = ["prompt_ids", "input"])]
    pub(crate) prompt: Option<String>,
    /// Token ids to complete, used as they are
    #[arg(long, alias = "prompt_ids", value_delimiter = ',', conflicts_with_all = ["prompt", "input"])]
    pub(crate) prompt_ids: Option<Vec<u32>>,
    /// Many prompts: lines with `prompt`, `prompt_ids` or `messages`
    #[arg(long, value_name = "FILE.jsonl", conflicts_with = "prompt")]
    pub(crate) input: Option<PathBuf>,
    /// Apply the chat template of the model to the prompt; without --model, the embedded one with its
    /// instruction adapter answers
    #[arg(long, conflicts_with = "prompt_ids")]
    pub(crate) chat: bool,
    /// The chat template: its name, of several in the model's folder, or a file; implies --chat
    #[arg(long, value_name = "NAME|FILE", conflicts_with = "prompt_ids")]
    pub(crate) chat_template: Option<String>,
    /// What the system says before the prompt; implies --chat
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_ids")]
    pub(crate) system: Option<String>,
    /// End an answer before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Tokens of the answer: a canvas that is filled as a whole, not a limit, so that another length
    /// gives another text; of iLLaDA and LLaDA2.x, which write block by block, a limit [default: 64, or
    /// what the context has room for; models of characters: three times the prompt; iLLaDA and
    /// LLaDA2.x: 2048]
    #[arg(
        short = 'n',
        long,
        alias = "gen_length",
        visible_alias = "max-new-tokens",
        alias = "max_new_tokens"
    )]
    pub(crate) gen_length: Option<usize>,
    /// Words that are fixed in the answer: offset in tokens : text, such as "0:The,5:answer"
    #[arg(long, value_name = "OFFSET:TEXT,..", value_delimiter = ',', value_parser = constraint)]
    pub(crate) constraints: Vec<(usize, String)>,
    #[command(flatten)]
    pub(crate) sampler: SamplerArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

fn constraint(text: &str) -> Result<(usize, String), String> {
    let parse = |(offset, word): (&str, &str)| {
        let (offset, word) = (offset.trim().parse().ok()?, word.trim());
        (!word.is_empty()).then(|| (offset, word.to_owned()))
    };
    let parsed = text.split_once(':').and_then(parse);
    parsed.ok_or_else(|| "expected OFFSET:TEXT, such as 5:answer".to_owned())
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InfillArgs {
    /// Texts with holes: every □ or mask token, or in a text without any every _; - reads one from
    /// standard input
    #[arg(required_unless_present = "input")]
    pub(crate) text: Vec<String>,
    /// What marks a hole, in place of these
    #[arg(long, value_name = "TEXT")]
    pub(crate) mask: Option<String>,
    /// Many texts: lines with `prompt` or `prompt_ids`
    #[arg(long, value_name = "FILE.jsonl", conflicts_with = "text")]
    pub(crate) input: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sampler: SamplerArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// What a draw of the likelihood bound masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EstimatorName {
    /// An exact number of tokens (eq. 6).
    L,
    /// Each token with some probability (eq. 5): noisier.
    T,
    /// No draws: the chain rule from left to right, a pass for each token.
    Chain,
    /// No draws: the chain rule, of the masked tokens the likeliest first (iLLaDA).
    Confidence,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ScoreArgs {
    /// Text that is given
    #[arg(long, conflicts_with = "prompt_ids")]
    pub(crate) prompt: Option<String>,
    /// Token ids that are given, used as they are
    #[arg(long, alias = "prompt_ids", value_delimiter = ',')]
    pub(crate) prompt_ids: Option<Vec<u32>>,
    /// Text to score; of a character model its end as well, as one more token
    #[arg(long, required_unless_present = "target_ids")]
    pub(crate) target: Option<String>,
    /// Token ids to score
    #[arg(
        long,
        alias = "target_ids",
        value_delimiter = ',',
        conflicts_with = "target"
    )]
    pub(crate) target_ids: Option<Vec<u32>>,
    /// Monte Carlo draws; an autoregressive model needs none, its likelihood is exact
    #[arg(long, alias = "mc_samples", alias = "mc_num", default_value_t = 128)]
    pub(crate) mc_samples: usize,
    /// Spread the draws of --estimator l evenly within batches of N, as the reference does [default:
    /// within all of them]
    #[arg(long, alias = "batch_size", value_name = "N")]
    pub(crate) batch_size: Option<NonZeroUsize>,
    /// How the likelihood is estimated
    #[arg(long, value_enum, default_value = "l")]
    pub(crate) estimator: EstimatorName,
    /// Scale of classifier-free guidance
    #[arg(long, alias = "cfg_scale", default_value_t = 0.0)]
    pub(crate) cfg_scale: f32,
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LogitsArgs {
    /// `{"input_ids": [[..]], "attention_mask": [[..]]}`; the mask may be left out
    #[arg(long, value_name = "FILE.json")]
    pub(crate) ids: PathBuf,
    /// Gets the tensor `logits` `[B, L, V]`, f32; zero where the attention mask is 0
    #[arg(long, value_name = "FILE.safetensors")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InspectArgs {
    /// Folder of a checkpoint, GGUF file, or ORG/NAME[@REV] of the Hugging Face Hub [default: the
    /// embedded poem model]
    #[arg(conflicts_with = "preset")]
    pub(crate) dir: Option<PathBuf>,
    /// A configuration of the paper: llada-1b, llada-8b, arm-1b, arm-7b, llama3-8b; a shape of
    /// another family: illada-8b, llada-moe-7b-a1b, llada2-mini, dream-7b; or llada-25m, llada-100m
    #[arg(long)]
    pub(crate) preset: Option<String>,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    /// How the result is printed
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ConvertArgs {
    /// Folder of a checkpoint, GGUF file, or ORG/NAME[@REV] of the Hugging Face Hub
    pub(crate) source: PathBuf,
    /// Folder that gets the model, or a GGUF file, if it ends in .gguf; it must not hold one
    pub(crate) target: PathBuf,
    /// Type of the weights. Of a folder: f32, bf16, int8 or int4 (the matrices but the embedding);
    /// of a GGUF file: f32, f16, bf16, `q8_0` or `q4_0` (all matrices)
    #[arg(long, value_enum, ignore_case = true)]
    pub(crate) dtype: StoredType,
    /// Folder of a `LoRA` adapter of PEFT to merge into the weights, and how much it counts (1 unless
    /// given); may be given several times
    #[arg(long, visible_alias = "lora", value_name = "DIR|ORG/NAME[:SCALE]")]
    pub(crate) adapter: Vec<AdapterArg>,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    /// Compare the logits of so many random positions with those of the source; 0: don't
    #[arg(long, default_value_t = 32)]
    pub(crate) compare: usize,
    /// Worker threads; 0 means one per core
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
    /// How the result is printed
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ReplayArgs {
    /// What --trace or the page of the server has written
    #[arg(value_name = "FILE.jsonl")]
    pub(crate) trace: PathBuf,
    /// The page
    #[arg(short, long, value_name = "FILE.html")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TrainArgs {
    /// Folder of the run: checkpoints, metrics and the finished model
    #[arg(required_unless_present = "help_config")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Training configuration, TOML
    #[arg(long, required_unless_present = "help_config")]
    pub(crate) config: Option<PathBuf>,
    /// Explain every key of the configuration
    #[arg(long)]
    pub(crate) help_config: bool,
    /// Check everything, take a step or two to see how long they take, print the plan, and write
    /// nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Resume even if a configuration key changed that changes the run
    #[arg(long)]
    pub(crate) allow_changes: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SftArgs {
    /// Folder of a checkpoint, GGUF file, or ORG/NAME[@REV] of the Hugging Face Hub: the model that
    /// is fine-tuned [default: the embedded poem model]
    #[arg(long, value_name = "DIR|FILE.gguf|ORG/NAME[@REV]")]
    pub(crate) model: Option<PathBuf>,
    /// Folder of a `LoRA` adapter of PEFT to merge into the model before it is fine-tuned, and how
    /// much it counts (1 unless given); may be given several times
    #[arg(long, visible_alias = "lora", value_name = "DIR|ORG/NAME[:SCALE]")]
    pub(crate) adapter: Vec<AdapterArg>,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    #[command(flatten)]
    pub(crate) train: TrainArgs,
}
