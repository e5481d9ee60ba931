//! The held-out bound of a model.

use llada_diffusion::{MaskPredictor, TokenBatch};
use llada_tensor::{Philox, Stream};

use crate::step::autoregressive_examples;
use crate::{Objective, Result, Source};

/// Tokens that are given to the model at once.
const BATCH_TOKENS: usize = 4096;

/// How held-out data are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvalConfig {
    /// What was learned.
    pub objective: Objective,
    /// Seed of the masks.
    pub seed: u64,
    /// Monte Carlo draws per sequence.
    pub mc_samples: usize,
    /// Sequences at most; 0: all.
    pub max_sequences: usize,
}

/// A figure of the held-out data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Nats per token: the bound of eq. 6 for diffusion, the mean loss for autoregression.
    pub bound: f64,
    /// Standard error of the bound over held-out sequences, Monte Carlo noise included.
    pub standard_error: f64,
    /// Sequences that were scored.
    pub sequences: usize,
    /// Tokens of these.
    pub tokens: usize,
}

/// Bound on the negative log-likelihood of held-out sequences, in nats per token.
///
/// Diffusion (eq. 6 of the paper): for each Monte Carlo draw, `l` is uniform on `1..=L`,
/// exactly `l` of the `L` tokens are masked, and the cross-entropy of these is weighted by `L / l`.
/// The `l` of one sequence are spread evenly, `((u + k / K) mod 1) L`. Draws depend on the seed and
/// the sequence alone, so that figures of different steps compare. `None` without sequences.
///
/// If not all sequences are scored, those that are lie at even distances.
///
/// # Errors
/// If the model fails.
pub fn evaluate(
    model: &dyn MaskPredictor,
    sources: &[Source],
    config: &EvalConfig,
) -> Result<Option<Evaluation>> {
    let EvalConfig {
        objective,
        seed,
        mc_samples,
        max_sequences,
    } = *config;
    let sequences = choose(sources, max_sequences, objective);
    let mut queue = Queue {
        model,
        objective,
        queries: Vec::new(),
        n_tokens: 0,
        nats: Vec::new(),
    };
    queue.nats.resize(sequences.len(), 0.0);
    for (at, sequence) in sequences.iter().enumerate() {
        let draws = if objective == Objective::Diffusion {
            mc_samples
        } else {
            1
        };
        for sample in 0..draws {
            let masked = mask_exactly(seed, at, sample, draws, sequence.len());
            queue.push(at, sequence, masked, 1.0 / draws as f64)?;
        }
    }
    queue.flush()?;
    let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.len()).collect();
    Ok(summarize(&queue.nats, &lengths, objective))
}

/// Sequences with something to predict, at even distances.
fn choose(sources: &[Source], max_sequences: usize, objective: Objective) -> Vec<&[u32]> {
    let shortest = if objective == Objective::Diffusion {
        1
    } else {
        2
    };
    let all: Vec<&[u32]> = sources
        .iter()
        .flat_map(|source| (0..source.n_sequences()).map(|at| source.sequence(at)))
        .filter(|sequence| sequence.len() >= shortest)
        .collect();
    let n = if max_sequences == 0 {
        all.len()
    } else {
        all.len().min(max_sequences)
    };
    (0..n).map(|i| all[i * all.len() / n]).collect()
}

/// The masked positions of a draw, ascending: the `l` with the smallest of uniform draws.
fn mask_exactly(seed: u64, sequence: usize, sample: usize, draws: usize, len: usize) -> Vec<usize> {
    let philox = Philox::new(seed, Stream::Likelihood);
    let draw = |position: u32| philox.uniform_f64([position, sample as u32, sequence as u32]);
    let offset = philox.uniform_f64([u32::MAX, 0, sequence as u32]);
    let u = (offset + sample as f64 / draws as f64).fract();
    let l = (1 + (u * len as f64) as usize).min(len);
    let mut order: Vec<(f64, usize)> = (0..len).map(|at| (draw(at as u32), at)).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut masked: Vec<usize> = order[..l].iter().map(|&(_, at)| at).collect();
    masked.sort_unstable();
    masked
}

/// A masked copy of a sequence that waits for its batch.
struct Query {
    sequence: usize,
    ids: Vec<u32>,
    positions: Vec<usize>,
    targets: Vec<u32>,
    weight: f64,
}

struct Queue<'a> {
    model: &'a dyn MaskPredictor,
    objective: Objective,
    queries: Vec<Query>,
    n_tokens: usize,
    /// Sum of the weighted losses of each sequence.
    nats: Vec<f64>,
}

impl Queue<'_> {
    fn push(&mut self, sequence: usize, x0: &[u32], masked: Vec<usize>, weight: f64) -> Result<()> {
        if self.n_tokens + x0.len() > BATCH_TOKENS {
            self.flush()?;
        }
        self.n_tokens += x0.len();
        self.queries.push(match self.objective {
            Objective::Diffusion => {
                let mut ids = x0.to_vec();
                let mask = self.model.info().mask_token_id;
                masked.iter().for_each(|&position| ids[position] = mask);
                let targets = masked.iter().map(|&position| x0[position]).collect();
                let weight = weight * x0.len() as f64 / masked.len() as f64;
                Query {
                    sequence,
                    ids,
                    positions: masked,
                    targets,
                    weight,
                }
            }
            Objective::Autoregressive => {
                let examples = autoregressive_examples(&TokenBatch::new(&[x0])?);
                let (positions, targets) = (examples.positions, examples.targets);
                Query {
                    sequence,
                    ids: x0.to_vec(),
                    positions,
                    targets,
                    weight,
                }
            }
        });
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.queries.is_empty() {
            return Ok(());
        }
        let sequences: Vec<&[u32]> = self.queries.iter().map(|query| &query.ids[..]).collect();
        let batch = TokenBatch::new(&sequences)?;
        let starts = self.queries.iter().zip(batch.offsets());
        let positions: Vec<usize> = starts
            .flat_map(|(query, start)| query.positions.iter().map(move |position| start + position))
            .collect();
        let targets: Vec<u32> = self
            .queries
            .iter()
            .flat_map(|q| q.targets.clone())
            .collect();
        let mut losses = self
            .model
            .token_losses(&batch, &positions, &targets)?
            .into_iter();
        for query in self.queries.drain(..) {
            let own = losses.by_ref().take(query.positions.len());
            self.nats[query.sequence] += query.weight * own.map(f64::from).sum::<f64>();
        }
        self.n_tokens = 0;
        Ok(())
    }
}

/// Ratio of sums, with the standard error of a ratio over sequences.
fn summarize(nats: &[f64], lengths: &[usize], objective: Objective) -> Option<Evaluation> {
    let unpredicted = usize::from(objective == Objective::Autoregressive);
    let predicted = |len: usize| (len - unpredicted) as f64;
    let total: f64 = lengths.iter().map(|&len| predicted(len)).sum();
    if nats.is_empty() {
        return None;
    }
    let bound = nats.iter().sum::<f64>() / total;
    let squares = nats
        .iter()
        .zip(lengths)
        .map(|(x, &len)| (x - bound * predicted(len)).powi(2));
    let n = nats.len() as f64;
    let variance = if nats.len() > 1 {
        squares.sum::<f64>() * n / (n - 1.0)
    } else {
        0.0
    };
    let standard_error = variance.sqrt() / total;
    let tokens = lengths.iter().sum();
    Some(Evaluation {
        bound,
        standard_error,
        sequences: nats.len(),
        tokens,
    })
}

#[cfg(test)]
mod tests;
