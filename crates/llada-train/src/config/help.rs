//! The documentation of the configuration, from one table.

use std::fmt::Write;

/// A key of the configuration.
pub(crate) struct Key {
    /// Section, empty for the top level.
    pub(crate) section: &'static str,
    /// Name in the section.
    pub(crate) name: &'static str,
    /// Default as it would be written; empty if the key must be given or has none.
    pub(crate) default: &'static str,
    /// What it does.
    pub(crate) doc: &'static str,
}

const fn key(
    section: &'static str,
    name: &'static str,
    default: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        section,
        name,
        default,
        doc,
    }
}

/// Every key, in the order of the help text.
pub(crate) const KEYS: &[Key] = &[
    key(
        "",
        "objective",
        "\"diffusion\"",
        "\"diffusion\" or \"autoregressive\"",
    ),
    key("", "seed", "0", "seed of everything that is drawn"),
    key(
        "data",
        "train",
        "",
        "required: files; .txt (a document a line), .jsonl (field \"text\") or .bin (ids alone, of 2 \
         bytes if the vocabulary has at most 65536 entries, else of 4; read as they are needed); \
         \"a.txt:0.7\" draws 70 % of the sequences from a.txt; without weights every sequence is \
         as likely",
    ),
    key(
        "data",
        "validation",
        "[]",
        "held-out files, for the bound of eq. 6",
    ),
    key(
        "data",
        "tokenizer",
        "\"char\"",
        "\"char\" (an id for each character of the training files) or a path to tokenizer.json",
    ),
    key(
        "data",
        "min_character_count",
        "1",
        "with \"char\": rarer characters become the unknown token",
    ),
    key(
        "data",
        "sequence_length",
        "",
        "required: longest training sequence, in tokens",
    ),
    key(
        "data",
        "packing",
        "\"packed\"",
        "\"packed\": documents joined with EOS between them and cut; \"documents\": each document \
         and its EOS is a sequence of its own, cut where it is too long; nothing is padded",
    ),
    key(
        "train",
        "steps",
        "",
        "required: optimizer steps of the whole run",
    ),
    key(
        "train",
        "batch_size",
        "",
        "sequences of an optimizer step; this or batch_tokens",
    ),
    key(
        "train",
        "batch_tokens",
        "",
        "tokens of an optimizer step: as many sequences as fit; this or batch_size",
    ),
    key(
        "train",
        "micro_batch_tokens",
        "0",
        "tokens in memory at once; larger batches are split and their gradients added; 0: no limit",
    ),
    key(
        "train",
        "activation_checkpointing",
        "false",
        "keep of each block its input alone, and compute the rest again in the backward pass: less memory, a third more work",
    ),
    key(
        "train",
        "learning_rate",
        "4e-4",
        "learning rate between warm-up and decay",
    ),
    key(
        "train",
        "min_learning_rate",
        "0.0",
        "learning rate at the end of the decay",
    ),
    key(
        "train",
        "warmup_steps",
        "0",
        "first steps, in which the learning rate rises in a line",
    ),
    key(
        "train",
        "decay_steps",
        "",
        "last steps, in which it falls; overrides decay_fraction",
    ),
    key(
        "train",
        "decay_fraction",
        "0.1",
        "the same as a share of all steps",
    ),
    key(
        "train",
        "decay_shape",
        "\"linear\"",
        "\"linear\", \"one_minus_sqrt\" or \"cosine\"",
    ),
    key(
        "train",
        "learning_rate_points",
        "",
        "in place of the six keys above: [step, rate] in order, steps counted from 0, with straight \
         lines between them and the last rate after them; two points of one step make a jump; the \
         paper's pre-training is [[0, 0.0], [2000, 4e-4], [228882, 4e-4], [228882, 1e-4], \
         [381470, 1e-4], [438690, 1e-5]], its SFT of 1000 steps [[0, 0.0], [50, 2.5e-5], \
         [900, 2.5e-5], [1000, 2.5e-6]]",
    ),
    key(
        "train",
        "optimizer",
        "\"adamw\"",
        "\"adamw\" as in the paper, or \"muon\": Muon for the matrices of the blocks",
    ),
    key(
        "train",
        "muon_momentum",
        "0.95",
        "Muon: decay rate of the momentum",
    ),
    key(
        "train",
        "beta1",
        "0.9",
        "AdamW: decay rate of the first moment",
    ),
    key(
        "train",
        "beta2",
        "0.95",
        "AdamW: decay rate of the second moment",
    ),
    key(
        "train",
        "eps",
        "1e-8",
        "AdamW: term that keeps the update finite",
    ),
    key(
        "train",
        "weight_decay",
        "0.1",
        "AdamW: decoupled weight decay, none on norms and biases",
    ),
    key(
        "train",
        "clip_norm",
        "1.0",
        "largest global norm of the gradient; 0: no clipping",
    ),
    key(
        "train",
        "max_skipped_steps",
        "0",
        "steps in a row that are left out because loss or gradient is no number or a spike; one more goes back to the newest checkpoint; 0: such a step ends the run",
    ),
    key(
        "train",
        "spike_factor",
        "0",
        "a gradient is a spike if its norm is so many times the usual one (10, say); 0: none is",
    ),
    key(
        "train",
        "max_rollbacks",
        "3",
        "times that a run goes back to a checkpoint, at most",
    ),
    key(
        "train",
        "precision",
        "\"bf16\"",
        "operands of matrix products: \"bf16\" or \"f32\"; parameters and sums are f32 in both",
    ),
    key(
        "train",
        "t_sampler",
        "\"iid\"",
        "masking ratios of a batch: \"iid\" as in the paper, or \"stratified\"",
    ),
    key(
        "train",
        "loss_weight",
        "\"inverse_p\"",
        "weight of a masked token: \"inverse_p\" as in the paper, or \"uniform\" (less noise)",
    ),
    key(
        "train",
        "random_length_probability",
        "",
        "share of batches that are cut to a random length; 0.01 if packed (the paper's), else 0",
    ),
    key(
        "train",
        "log_every",
        "10",
        "steps between lines of metrics.jsonl",
    ),
    key(
        "train",
        "eval_every",
        "0",
        "steps between evaluations; 0: only after the last step",
    ),
    key(
        "train",
        "eval_mc_samples",
        "8",
        "Monte Carlo draws per held-out sequence",
    ),
    key(
        "train",
        "eval_sequences",
        "256",
        "held-out sequences per evaluation; 0: all",
    ),
    key(
        "train",
        "checkpoint_every",
        "1000",
        "steps between checkpoints; 0: only after the last",
    ),
    key(
        "train",
        "keep_checkpoints",
        "2",
        "newest checkpoints that are kept",
    ),
    key(
        "train",
        "export_dtype",
        "\"f32\"",
        "elements of model.safetensors: \"f32\" or \"bf16\"",
    ),
];

/// What fine-tuning adds, and what it says of keys of [`KEYS`] instead.
pub(crate) const SFT_KEYS: &[Key] = &[
    key(
        "",
        "objective",
        "\"diffusion\"",
        "\"diffusion\", nothing else",
    ),
    key(
        "data",
        "train",
        "",
        "required: files of pairs, .jsonl; of each line \"messages\" (role, content), or \
         \"conversations\" (from, value), or \"prompt\" and \"completion\"; weights as \
         \"a.jsonl:0.7\"; without them every pair is as likely",
    ),
    key(
        "data",
        "validation",
        "[]",
        "held-out files of pairs, for the bound of the answers given their prompts",
    ),
    key(
        "data",
        "sequence_length",
        "",
        "required: longest pair, in tokens, its EOS counted",
    ),
    key(
        "sft",
        "chat",
        "\"auto\"",
        "prompts that go through the model's chat template: \"auto\": those of conversations, if it \
         has one; \"always\" or \"never\"",
    ),
    key(
        "sft",
        "too_long",
        "\"drop\"",
        "pairs longer than sequence_length: \"drop\" leaves them out; \"cut\" cuts the end of the \
         answer off, its EOS with it; both are counted",
    ),
    key(
        "sft",
        "eos_pad_weight",
        "1.0",
        "weight in the loss of the EOS that pad short pairs; the EOS that ends an answer has 1",
    ),
    key(
        "sft",
        "local_batch_size",
        "0",
        "so many sequences in a row are padded to the longest of them; 0: the whole batch",
    ),
    key("lora", "rank", "8", "rank of the adapters"),
    key("lora", "alpha", "16.0", "adapters count alpha / rank"),
    key(
        "lora",
        "targets",
        "[\"q_proj\", \"v_proj\"]",
        "matrices of every block that get one: q_proj, k_proj, v_proj, attn_out, ff_proj, up_proj, \
         ff_out",
    ),
    key("train", "batch_size", "256", "pairs of an optimizer step"),
    key(
        "train",
        "learning_rate",
        "2.5e-5",
        "learning rate between warm-up and decay",
    ),
    key(
        "train",
        "min_learning_rate",
        "",
        "learning rate at the end of the decay; a tenth of learning_rate if not given",
    ),
    key(
        "train",
        "warmup_steps",
        "50",
        "first steps, in which the learning rate rises in a line",
    ),
];

/// Keys that fine-tuning has no use for.
const NOT_IN_SFT: &[&str] = &[
    "tokenizer",
    "min_character_count",
    "packing",
    "batch_tokens",
    "random_length_probability",
];

/// Every key of a training configuration with its default, as a commented TOML file.
#[must_use]
pub fn config_help() -> String {
    let mut help = String::from(
        "# A training configuration. Unknown keys are errors; paths are relative to this file.\n",
    );
    for section in ["", "data", "model", "train"] {
        write_section(&mut help, section);
        if section == "model" {
            help.push_str("# Fields of config.json (d_model, n_layers, n_heads, ...), or preset = \"NAME\".\n");
        }
        for key in KEYS.iter().filter(|key| key.section == section) {
            write_key(&mut help, key);
        }
    }
    help
}

/// The same of a configuration of fine-tuning; its section `[lora]` is commented out.
#[must_use]
pub fn sft_config_help() -> String {
    let mut help = String::from(
        "# A configuration of fine-tuning. Unknown keys are errors; paths are relative to this file.\n",
    );
    let is = |a: &Key, b: &Key| a.section == b.section && a.name == b.name;
    for section in ["", "data", "sft", "train"] {
        write_section(&mut help, section);
        let of_section = |keys: &'static [Key]| keys.iter().filter(|key| key.section == section);
        for key in of_section(KEYS).filter(|key| !NOT_IN_SFT.contains(&key.name)) {
            let of_sft = SFT_KEYS.iter().find(|other| is(key, other));
            write_key(&mut help, of_sft.unwrap_or(key));
        }
        for key in of_section(SFT_KEYS) {
            if !KEYS.iter().any(|other| is(key, other)) {
                write_key(&mut help, key);
            }
        }
    }
    help.push_str(
        "\n# With this section adapters are trained in place of all parameters (LoRA).\n# [lora]\n",
    );
    for key in SFT_KEYS.iter().filter(|key| key.section == "lora") {
        let mut of_key = String::new();
        write_key(&mut of_key, key);
        for line in of_key.lines() {
            let comment = if line.starts_with('#') { "" } else { "# " };
            let _ = writeln!(help, "{comment}{line}");
        }
    }
    help
}

fn write_section(help: &mut String, section: &str) {
    if !section.is_empty() {
        let _ = write!(help, "\n[{section}]\n");
    }
}

fn write_key(help: &mut String, key: &Key) {
    let mut line = String::from("#");
    for word in key.doc.split(' ') {
        if line.len() + 1 + word.len() > 96 {
            let _ = writeln!(help, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(help, "{line}");
    let _ = match key.default {
        "" => writeln!(help, "# {} =", key.name),
        default => writeln!(help, "{} = {default}", key.name),
    };
}
