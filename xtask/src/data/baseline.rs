//! What simple models make of the held-out poems: the figures that a trained model has to beat.

#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;

use anyhow::Context;
use llada_text::Tokenizer;
use serde_json::{Value, json};

/// Lines of ids, each closed by the end token.
type Lines = Vec<Vec<u64>>;

/// Bits of one id in a packed n-gram.
const ID_BITS: u32 = 16;

/// Trains on `train.txt` and `famous.txt` in `folder`, each line once, and scores `heldout.txt`;
/// the end of a line counts as a token.
pub(crate) fn report(folder: &Path) -> anyhow::Result<Value> {
    let tokenizer = Tokenizer::from_dir(folder)?;
    let mut train = read(&tokenizer, &folder.join("train.txt"))?;
    train.extend(read(&tokenizer, &folder.join("famous.txt"))?);
    let held_out = read(&tokenizer, &folder.join("heldout.txt"))?;
    let tokens: usize = held_out.iter().map(Vec::len).sum();
    let unk = tokenizer.unk_token_id().map(u64::from);
    let unknown = |lines: &Lines| {
        lines
            .iter()
            .flatten()
            .filter(|&&id| Some(id) == unk)
            .count() as f64
            / lines.iter().map(Vec::len).sum::<usize>() as f64
    };
    // The mask is never an outcome.
    let outcomes = tokenizer.vocab_size() - 1;
    let unigram = unigram(&train, outcomes);
    let trigram = KneserNey::train(&train, outcomes);
    Ok(json!({
        "tokens": tokens,
        "unknown_share_held_out": unknown(&held_out),
        "unknown_share_train": unknown(&train),
        "unigram_nats": mean_nats(&held_out, unigram),
        "kneser_ney_trigram_nats": mean_nats(&held_out, |history, id| trigram.probability(history, id)),
    }))
}

fn read(tokenizer: &Tokenizer, path: &Path) -> anyhow::Result<Lines> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let end = tokenizer
        .eos_token_id()
        .context("the tokenizer has no end token")?;
    text.lines()
        .map(|line| {
            let ids = tokenizer.encode(line)?;
            Ok(ids.into_iter().chain([end]).map(u64::from).collect())
        })
        .collect()
}

/// Mean negative log-probability of a token; `probability` gets the two ids before it, the nearer
/// one in the low bits.
fn mean_nats(lines: &Lines, probability: impl Fn(u64, u64) -> f64) -> f64 {
    let mut nats = 0.0;
    let mut tokens = 0.0;
    for line in lines {
        let mut history = START << ID_BITS | START;
        for &id in line {
            nats -= probability(history, id).ln();
            tokens += 1.0;
            history = (history << ID_BITS | id) & ((1 << (2 * ID_BITS)) - 1);
        }
    }
    nats / tokens
}

/// The id before the first one of a line.
const START: u64 = (1 << ID_BITS) - 1;

/// Relative frequencies, every outcome counted once more.
fn unigram(lines: &Lines, outcomes: usize) -> impl Fn(u64, u64) -> f64 + use<> {
    let counts = tally(lines.iter().flatten().copied().collect());
    let total = counts.iter().map(|&(_, count)| count).sum::<f64>() + outcomes as f64;
    move |_, id| (count_of(&counts, id) + 1.0) / total
}

/// Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999).
///
/// `p(c | h) = max(n(hc) - D(n(hc)), 0) / n(h) + gamma(h) p(c | h without its first id)`
#[derive(Debug)]
struct KneserNey {
    /// Of order 1, 2, 3.
    orders: [Order; 3],
    outcomes: f64,
}

/// The n-grams of one length: raw counts at the highest order and after the start of a line,
/// elsewhere the number of different ids before the n-gram.
#[derive(Debug)]
struct Order {
    grams: Vec<(u64, f64)>,
    /// Of each history: its packed ids, the sum of its counts, the mass that discounting frees.
    histories: Vec<(u64, f64, f64)>,
    discounts: [f64; 3],
}

impl KneserNey {
    fn train(lines: &Lines, outcomes: usize) -> Self {
        let mut grams = Vec::new();
        for line in lines {
            let mut gram = START << ID_BITS | START;
            for &id in line {
                gram = (gram << ID_BITS | id) & ((1 << (3 * ID_BITS)) - 1);
                grams.push(gram);
            }
        }
        let trigrams = tally(grams);
        let bigrams = continuations(&trigrams, 2);
        let unigrams = continuations(&bigrams, 1);
        let orders = [unigrams, bigrams, trigrams].map(Order::new);
        Self {
            orders,
            outcomes: outcomes as f64,
        }
    }

    fn probability(&self, history: u64, id: u64) -> f64 {
        let mut probability = 1.0 / self.outcomes;
        for (n, order) in (0u32..).zip(&self.orders) {
            let history = history & ((1 << (n * ID_BITS)) - 1);
            probability = order.interpolate(history, id, probability);
        }
        probability
    }
}

impl Order {
    fn new(grams: Vec<(u64, f64)>) -> Self {
        let discounts = discounts(&grams);
        let histories = grams
            .chunk_by(|a, b| a.0 >> ID_BITS == b.0 >> ID_BITS)
            .map(|group| {
                let total = group.iter().map(|&(_, count)| count).sum();
                let freed = group
                    .iter()
                    .map(|&(_, count)| discount(&discounts, count))
                    .sum();
                (group[0].0 >> ID_BITS, total, freed)
            })
            .collect();
        Self {
            grams,
            histories,
            discounts,
        }
    }

    fn interpolate(&self, history: u64, id: u64, lower: f64) -> f64 {
        let Ok(place) = self
            .histories
            .binary_search_by_key(&history, |&(history, ..)| history)
        else {
            return lower;
        };
        let (_, total, freed) = self.histories[place];
        let count = count_of(&self.grams, history << ID_BITS | id);
        (count - discount(&self.discounts, count)).max(0.0) / total + freed / total * lower
    }
}

/// How often each key occurs, by key.
fn tally(mut keys: Vec<u64>) -> Vec<(u64, f64)> {
    keys.sort_unstable();
    keys.chunk_by(|a, b| a == b)
        .map(|group| (group[0], group.len() as f64))
        .collect()
}

fn count_of(counts: &[(u64, f64)], key: u64) -> f64 {
    counts
        .binary_search_by_key(&key, |&(key, _)| key)
        .map_or(0.0, |place| counts[place].1)
}

/// The n-grams of length `n` from those of length `n + 1`, counted by the different ids before
/// them; those that begin a line have nothing else before them and keep their counts.
fn continuations(longer: &[(u64, f64)], n: u32) -> Vec<(u64, f64)> {
    let shorten = |gram: u64| gram & ((1 << (n * ID_BITS)) - 1);
    let begins_line = |gram: u64| n > 1 && shorten(gram) >> ((n - 1) * ID_BITS) == START;
    let mut counts: Vec<(u64, f64)> = longer
        .iter()
        .map(|&(gram, count)| (shorten(gram), if begins_line(gram) { count } else { 1.0 }))
        .collect();
    counts.sort_unstable_by_key(|&(gram, _)| gram);
    counts
        .chunk_by(|a, b| a.0 == b.0)
        .map(|group| (group[0].0, group.iter().map(|&(_, count)| count).sum()))
        .collect()
}

/// The discounts for counts of 1, 2, and 3 or more, from how many n-grams have counts 1 to 4.
fn discounts(grams: &[(u64, f64)]) -> [f64; 3] {
    let with_count = |wanted: usize| {
        grams
            .iter()
            .filter(|&&(_, count)| (count - wanted as f64).abs() < 0.5)
            .count() as f64
    };
    let n = [1, 2, 3, 4].map(with_count);
    let y = n[0] / (n[0] + 2.0 * n[1]).max(1.0);
    [0, 1, 2].map(|i| {
        let count = (i + 1) as f64;
        (count - (count + 1.0) * y * n[i + 1] / n[i].max(1.0)).clamp(0.0, count)
    })
}

fn discount(discounts: &[f64; 3], count: f64) -> f64 {
    match count {
        count if count < 0.5 => 0.0,
        count if count < 1.5 => discounts[0],
        count if count < 2.5 => discounts[1],
        _ => discounts[2],
    }
}
