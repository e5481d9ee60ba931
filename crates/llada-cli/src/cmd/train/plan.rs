//! What a run is about to do: data, model, steps, memory.

use llada::ModelConfig;
use llada::train::{Data, Source, TrainConfig};

use serde_json::{Value, json};

use crate::cmd::memory;

/// A run that is ready.
pub(super) struct Plan<'a> {
    pub(super) config: &'a TrainConfig,
    pub(super) data: &'a Data,
    pub(super) model: &'a ModelConfig,
    /// Numbers that are trained.
    pub(super) n_trained: usize,
    pub(super) n_ranks: usize,
}

impl Plan<'_> {
    fn longest(&self) -> usize {
        let lengths = |source: &Source| {
            let lengths = (0..source.n_sequences()).map(|at| source.sequence_len(at));
            lengths.max().unwrap_or(0)
        };
        self.data.train.iter().map(lengths).max().unwrap_or(0)
    }

    fn n_tokens(&self) -> usize {
        self.data.train.iter().map(Source::n_tokens).sum()
    }

    /// Tokens of a sequence on average.
    fn mean_length(&self) -> f64 {
        let n_sequences: usize = self.data.train.iter().map(Source::n_sequences).sum();
        self.n_tokens() as f64 / n_sequences.max(1) as f64
    }

    /// Tokens of a step on average, padding not counted.
    pub(super) fn step_tokens(&self) -> f64 {
        let mean = self.mean_length();
        match (self.config.train.batch_size, self.config.train.batch_tokens) {
            (Some(size), _) => size as f64 * mean,
            (None, Some(tokens)) => tokens as f64,
            (None, None) => mean,
        }
    }

    /// Times that a step sees each training token.
    fn epochs(&self) -> f64 {
        let steps = self.config.train.steps as f64;
        steps * self.step_tokens() / self.n_tokens().max(1) as f64
    }

    /// Tokens of which the activations of a rank are in memory at once, at most.
    fn tokens_at_once(&self) -> usize {
        let train = &self.config.train;
        let longest = self.longest();
        let of_batch = match (train.batch_size, train.batch_tokens) {
            (Some(size), _) => size.saturating_mul(longest),
            (None, tokens) => tokens.unwrap_or(longest),
        };
        let mut at_once = of_batch.div_ceil(self.n_ranks);
        if train.micro_batch_tokens > 0 {
            at_once = at_once.min(train.micro_batch_tokens);
        }
        at_once.max(longest)
    }

    /// Bytes that a rank needs, about: parameters, gradients and moments in `f32`, and what the
    /// backward pass takes of each block for each token.
    ///
    /// Of a block these are its input, the normed input, queries, keys, values, the output of
    /// attention, the sum after it, its norm, and gate, up and their product, and of one block as
    /// many gradients; with activation checkpointing the input of every block and all of one. The
    /// head's softmax is computed in tiles and small.
    ///
    /// Held against a process of 1.3 M parameters and 16,384 tokens at once: 1.1 GB for 1.1, with
    /// activation checkpointing 0.4 GB for 0.5.
    pub(super) fn memory_bytes(&self) -> u64 {
        let model = self.model;
        let (d, f) = (model.d_model, model.mlp_width());
        let kv = model.kv_heads() * model.head_dim();
        let of_block = 6 * d + 2 * kv + 3 * f;
        let of_token = match self.config.train.activation_checkpointing {
            true => model.n_layers * d + 2 * of_block,
            false => (model.n_layers + 1) * of_block,
        };
        let activations = self.tokens_at_once() * (of_token + 4 * d) * 4;
        let trained = self.n_trained * (4 + 4 + 8 / self.n_ranks.min(8));
        let frozen = match self.config.lora {
            Some(_) => model.total_parameters() * 4,
            None => 0,
        };
        (activations + trained + frozen) as u64
    }

    /// That a run fits into the memory of this machine.
    pub(super) fn check_memory(&self) -> anyhow::Result<()> {
        let (needed, all) = (self.memory_bytes(), memory::total_bytes());
        let all = all.unwrap_or(u64::MAX);
        anyhow::ensure!(
            needed <= all,
            "a step with {} tokens in memory at once (sequences of up to {}) needs about {}, and \
             this machine has {}; lower data.sequence_length ({}) or the batch, or set \
             train.micro_batch_tokens or train.activation_checkpointing",
            grouped(self.tokens_at_once()),
            grouped(self.longest()),
            memory::gigabytes(needed),
            memory::gigabytes(all),
            self.config.data.sequence_length,
        );
        Ok(())
    }

    /// FLOPs of a step: forward and twice as much backward, half of the tokens masked, and
    /// attention, which grows with the length.
    fn step_flops(&self) -> f64 {
        let tokens = self.step_tokens();
        let parameters = self.model.forward_flops(1000, 500) as f64 / 1000.0;
        let attention =
            4.0 * self.mean_length() * (self.model.d_model * self.model.n_layers) as f64;
        3.0 * tokens * (parameters + attention)
    }

    /// The plan as a result.
    pub(super) fn json(&self) -> Value {
        let n_documents: usize = self
            .data
            .train
            .iter()
            .map(|source| source.n_documents)
            .sum();
        json!({
            "documents": n_documents,
            "tokens": self.n_tokens(),
            "vocabulary": self.model.vocab_size,
            "parameters": self.model.total_parameters(),
            "trained_parameters": self.n_trained,
            "steps": self.config.train.steps,
            "tokens_per_step": self.step_tokens(),
            "epochs": self.epochs(),
            "flops_per_step": self.step_flops(),
            "memory_bytes": self.memory_bytes(),
        })
    }

    /// The plan in lines for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for (source, use_of) in (self.data.train.iter().map(|source| (source, ""))).chain(
            self.data
                .validation
                .iter()
                .map(|source| (source, " (held out)")),
        ) {
            lines.push(format!(
                "{}{use_of}: {}",
                source.name,
                documents(source, self.config)
            ));
        }
        let longest = self.longest();
        let sequence_length = self.config.data.sequence_length;
        if self.config.sft.is_none() && longest < sequence_length {
            let longest = grouped(longest);
            lines.push(format!(
                "no text is as long as sequence_length ({sequence_length}): the longest sequence \
                 has {longest} tokens"
            ));
        }
        let trained = match self.config.lora {
            Some(_) => format!("{} of them trained", grouped(self.n_trained)),
            None => "all trained".to_owned(),
        };
        lines.push(format!(
            "model: {} parameters, {trained}; vocabulary of {}",
            grouped(self.model.total_parameters()),
            grouped(self.model.vocab_size)
        ));
        lines.push(format!(
            "{} steps of about {} tokens: {:.2} epochs, {} a step",
            grouped(usize::try_from(self.config.train.steps).unwrap_or(usize::MAX)),
            grouped(self.step_tokens() as usize),
            self.epochs(),
            operations(self.step_flops())
        ));
        lines.push(format!(
            "memory: about {}",
            memory::gigabytes(self.memory_bytes())
        ));
        lines
    }
}

/// Documents and tokens of a file.
fn documents(source: &Source, config: &TrainConfig) -> String {
    let (n, tokens) = (source.n_documents, source.n_tokens());
    let mean = tokens as f64 / n.max(1) as f64;
    let tokens = grouped(tokens);
    if config.sft.is_some() {
        return format!("{} pairs, {tokens} tokens", grouped(n));
    }
    match std::path::Path::new(&source.name)
        .extension()
        .and_then(|end| end.to_str())
    {
        Some("txt") => format!(
            "{} documents, one a line, of {mean:.0} tokens on average, {tokens} in all (text with \
             line breaks needs .jsonl)",
            grouped(n)
        ),
        Some("jsonl") => format!("{} documents, {tokens} tokens", grouped(n)),
        _ => format!("{tokens} tokens"),
    }
}

/// Floating-point operations for people.
fn operations(flops: f64) -> String {
    match flops {
        n if n < 1e11 => format!("{:.3} GFLOP", n / 1e9),
        n => format!("{:.2} TFLOP", n / 1e12),
    }
}

/// A number with its digits in groups of three.
pub(super) fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
