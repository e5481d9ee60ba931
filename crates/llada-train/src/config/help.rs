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
        "required: files; .txt (a document a line) or .jsonl (field \"text\"); \"a.txt:0.7\" draws \
         70 % of the sequences from a.txt; without weights every sequence is as likely",
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

/// Every key of a training configuration with its default, as a commented TOML file.
#[must_use]
pub fn config_help() -> String {
    let mut help = String::from(
        "# A training configuration. Unknown keys are errors; paths are relative to this file.\n",
    );
    for section in ["", "data", "model", "train"] {
        if !section.is_empty() {
            let _ = write!(help, "\n[{section}]\n");
        }
        if section == "model" {
            help.push_str("# Fields of config.json (d_model, n_layers, n_heads, ...), or preset = \"NAME\".\n");
        }
        for key in KEYS.iter().filter(|key| key.section == section) {
            write_key(&mut help, key);
        }
    }
    help
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
