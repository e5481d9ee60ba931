//! The order of the data: which sequences make the next batch.

use llada_diffusion::TokenBatch;
use llada_tensor::{Philox, Stream};
use serde::{Deserialize, Serialize};

use crate::config::keys::require;
use crate::{Result, Source, TrainConfig};

/// Draws batches. What it draws is a function of the seed and of its [`BatchState`].
///
/// Each sequence first draws its file by weight, then is the next of that file's order; the order
/// is shuffled anew in every epoch.
#[derive(Debug)]
pub struct BatchSampler<'a> {
    sources: &'a [Source],
    choice: Philox,
    order: Philox,
    length: Philox,
    /// Cumulative shares of the files; the last is 1.
    shares: Vec<f64>,
    batch_size: usize,
    batch_tokens: usize,
    sequence_length: usize,
    random_length_probability: f64,
    state: BatchState,
    /// Order of each file in its current epoch, made when it is first needed.
    permutations: Vec<Vec<u32>>,
}

/// Sequences of an optimizer step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The sequences, without padding.
    pub tokens: TokenBatch,
    /// `[B]`, in fine-tuning: the length of each one's prompt.
    pub prompt_lens: Option<Vec<usize>>,
}

impl From<TokenBatch> for Batch {
    fn from(tokens: TokenBatch) -> Self {
        Self {
            tokens,
            prompt_lens: None,
        }
    }
}

/// Where the data order stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchState {
    /// Sequences drawn so far.
    pub drawn: u64,
    /// One per training file.
    pub files: Vec<FilePosition>,
}

/// Where the order of a file stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePosition {
    /// The file as the configuration names it.
    pub name: String,
    /// Passes that are finished.
    pub epoch: u32,
    /// Sequences of this pass that were drawn.
    pub cursor: usize,
}

impl<'a> BatchSampler<'a> {
    /// A sampler at the beginning of the data.
    ///
    /// # Errors
    /// [`crate::Error::ConfigValue`] if there are no sequences.
    pub fn new(sources: &'a [Source], config: &TrainConfig) -> Result<Self> {
        let weight = |source: &Source| source.weight.unwrap_or(source.n_sequences() as f64);
        let weights: Vec<f64> = sources.iter().map(weight).collect();
        let has_all = !sources.is_empty() && sources.iter().all(|source| source.n_sequences() > 0);
        let expected = "files with documents";
        require(has_all, "data.train", expected, &"an empty one")?;
        let beginning = |source: &Source| FilePosition {
            name: source.name.clone(),
            epoch: 0,
            cursor: 0,
        };
        let files = sources.iter().map(beginning).collect();
        Ok(Self {
            sources,
            choice: Philox::new(config.seed, Stream::DataChoice),
            order: Philox::new(config.seed, Stream::DataOrder),
            length: Philox::new(config.seed, Stream::Length),
            shares: cumulative_shares(&weights),
            batch_size: config.train.batch_size.unwrap_or(usize::MAX),
            batch_tokens: config.train.batch_tokens.unwrap_or(usize::MAX),
            sequence_length: config.data.sequence_length,
            random_length_probability: config.random_length_probability(),
            state: BatchState { drawn: 0, files },
            permutations: vec![Vec::new(); sources.len()],
        })
    }

    /// Where the data order stands.
    #[must_use]
    pub fn state(&self) -> &BatchState {
        &self.state
    }

    /// Goes on from a saved state. Files that it does not know begin at their start.
    pub fn restore(&mut self, state: &BatchState) {
        self.state.drawn = state.drawn;
        for (at, position) in self.state.files.iter_mut().enumerate() {
            if let Some(saved) = state.files.iter().find(|saved| saved.name == position.name) {
                position.clone_from(saved);
            }
            self.permutations[at].clear();
        }
    }

    /// The batch of an optimizer step, counted from 0.
    ///
    /// # Errors
    /// If a pre-tokenized file can't be read, or holds an id that no text has.
    pub fn next_batch(&mut self, step: u64) -> Result<Batch> {
        let limit = self.length_limit(step);
        let sources = self.sources;
        let (mut sequences, mut n_tokens) = (Vec::new(), 0);
        let mut prompt_lens = Vec::new();
        while sequences.len() < self.batch_size {
            let file = self.choose_file();
            let index = self.next_of(file);
            let length = sources[file].sequence_len(index);
            if n_tokens + length > self.batch_tokens {
                break; // Nothing was consumed: the next batch begins with the same draw.
            }
            let sequence = sources[file].sequence(index)?;
            self.state.drawn += 1;
            self.state.files[file].cursor += 1;
            n_tokens += length;
            sequences.push(sequence);
            prompt_lens.extend(sources[file].prompt_len(index));
        }
        let cut: Vec<&[u32]> = (sequences.iter())
            .map(|sequence| &sequence[..sequence.len().min(limit)])
            .collect();
        Ok(Batch {
            tokens: TokenBatch::new(&cut)?,
            prompt_lens: (!prompt_lens.is_empty()).then_some(prompt_lens),
        })
    }

    /// With a small probability all sequences of a batch are cut to one random length, so that the
    /// model meets sequences of every length (section 2.2 of the paper).
    fn length_limit(&self, step: u64) -> usize {
        let [coin, length] = self.length.uniform_f64_pair(split(step));
        if coin >= self.random_length_probability {
            return self.sequence_length;
        }
        1 + (length * self.sequence_length as f64) as usize
    }

    fn choose_file(&self) -> usize {
        let u = self.choice.uniform_f64(split(self.state.drawn));
        self.shares
            .partition_point(|&share| share <= u)
            .min(self.sources.len() - 1)
    }

    /// Index of the next sequence of a file.
    fn next_of(&mut self, file: usize) -> usize {
        let n = self.sources[file].n_sequences();
        let position = &mut self.state.files[file];
        if position.cursor >= n {
            position.epoch += 1;
            position.cursor = 0;
            self.permutations[file].clear();
        }
        if self.permutations[file].is_empty() {
            self.permutations[file] = permutation(&self.order, n, file as u32, position.epoch);
        }
        self.permutations[file][position.cursor] as usize
    }
}

fn cumulative_shares(weights: &[f64]) -> Vec<f64> {
    let total: f64 = weights.iter().sum();
    let mut sum = 0.0;
    let add = |weight: &f64| {
        sum += weight / total;
        sum
    };
    weights.iter().map(add).collect()
}

/// A counter of 64 bits as the words of Philox.
fn split(x: u64) -> [u32; 3] {
    [x as u32, (x >> 32) as u32, 0]
}

/// A random order of `0..n` (Fisher and Yates).
fn permutation(philox: &Philox, n: usize, file: u32, epoch: u32) -> Vec<u32> {
    let n = u32::try_from(n).expect("2^32 sequences would not fit in memory");
    let mut order: Vec<u32> = (0..n).collect();
    for i in (1..n).rev() {
        let j = philox.below(u64::from(i) + 1, [i, file, epoch]);
        order.swap(i as usize, j as usize);
    }
    order
}

#[cfg(test)]
mod tests;
