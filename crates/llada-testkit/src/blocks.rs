//! A predictor whose positions see their block and those before it, with caches.

use std::num::NonZeroUsize;

use llada_diffusion::{
    Cached, Candidates, Choice, Error, KvCache, MaskPredictor, PredictorInfo, Query, Result,
    RowPlan, losses_by_logits, read_ranges,
};
use llada_tensor::{CpuConfig, Device, Tensor};

use crate::toy::{ToyPredictor, row_of};

/// [`ToyPredictor`] by blocks: the logits of a position are a hash of the tokens up to the end of
/// its block, and of the position.
///
/// What a cache holds of a position is its token, as the call saw it that computed it. So a sampler
/// that takes over what was computed before a token was written has other logits.
#[derive(Debug, Clone)]
pub struct BlockPredictor {
    toy: ToyPredictor,
    block_size: usize,
    device: Device,
}

impl BlockPredictor {
    /// Ids and logits are those of [`ToyPredictor::new`].
    ///
    /// # Panics
    /// As [`ToyPredictor::new`]; if the block size is 0, or there is no CPU.
    #[must_use]
    pub fn new(
        vocab_size: usize,
        max_sequence_length: usize,
        seed: u64,
        block_size: usize,
    ) -> Self {
        assert!(block_size > 0, "a block has tokens");
        Self {
            toy: ToyPredictor::new(vocab_size, max_sequence_length, seed),
            block_size,
            device: Device::cpu(CpuConfig::default()).expect("a CPU"),
        }
    }

    /// Logits `[V]` of a position of a sequence.
    #[must_use]
    pub fn row(&self, sequence: &[u32], position: usize) -> Vec<f32> {
        let end = (position / self.block_size + 1) * self.block_size;
        self.toy.row(&sequence[..end.min(sequence.len())], position)
    }

    /// Writes the tokens of the plan's rows into the cache, and returns all that it has.
    fn update(&self, cache: &mut KvCache, plan: &RowPlan, sequence: &[u32]) -> Result<Vec<u32>> {
        let expect = |what, expected, got| match expected == got {
            true => Ok(()),
            false => Err(Error::LengthMismatch {
                what,
                expected,
                got,
            }),
        };
        expect("ranges of rows", 1, plan.rows.len())?;
        expect("ranges of keys", 1, plan.keys.len())?;
        let (rows, keys) = (&plan.rows[0], &plan.keys[0]);
        expect("first row in its block", 0, rows.start % self.block_size)?;
        let is_whole = rows.end == sequence.len() || rows.end.is_multiple_of(self.block_size);
        expect("whole blocks", 1, usize::from(is_whole))?;
        expect("first key", 0, keys.start)?;
        expect("last key", rows.end, keys.end)?;
        let length = sequence.len();
        cache.known.resize(length, false);
        let known = cache.known[..rows.start].iter().filter(|known| **known);
        expect("keys of an earlier call", rows.start, known.count())?;
        let mut tokens = match cache.layers.pop() {
            Some([keys, _]) => keys.to_vec_f32()?,
            None => vec![0.0; length],
        };
        for at in rows.clone() {
            tokens[at] = sequence[at] as f32;
            cache.known[at] = true;
        }
        let table = || Tensor::from_f32(&self.device, &[length, 1], &tokens);
        cache.layers.push([table()?, table()?]);
        Ok(tokens.iter().map(|&token| token as u32).collect())
    }

    fn cached_logits(&self, query: &Query<'_>, cached: &mut Cached<'_>) -> Result<Vec<f32>> {
        let mut seen = Vec::new();
        for (at, (sequence, plan)) in query.batch.sequences().zip(cached.plans).enumerate() {
            let Some(branch) = at.checked_sub(cached.caches.len()) else {
                seen.push(self.update(cached.caches[at], plan, sequence)?);
                continue;
            };
            let branch = &mut cached.branches[branch];
            let cache = &mut *cached.caches[branch.cache];
            let tables = cache.layers[0].each_ref().map(|x| x.to_vec_f32());
            let known = cache.known.clone();
            seen.push(self.update(cache, plan, sequence)?);
            let rows = |x: &Tensor| Ok::<_, Error>(read_ranges(x, &plan.rows)?);
            let [keys, values] = cache.layers[0].each_ref().map(rows);
            branch.layers = vec![[keys?, values?]];
            branch.rows.clone_from(&plan.rows);
            let table = |x: Vec<f32>| Tensor::from_f32(&self.device, &[sequence.len(), 1], &x);
            let [keys, values] = tables;
            cache.layers = vec![[table(keys?)?, table(values?)?]];
            cache.known = known;
        }
        let mut logits = Vec::new();
        for &at in query.positions {
            let row = row_of(query.batch, at);
            let position = at - query.batch.offsets()[row];
            if !cached.plans[row].rows[0].contains(&position) {
                return Err(Error::OutOfRange {
                    what: "a position",
                    expected: "among the rows",
                    got: position as f64,
                });
            }
            logits.extend(self.row(&seen[row], position));
        }
        Ok(logits)
    }
}

impl MaskPredictor for BlockPredictor {
    fn info(&self) -> PredictorInfo {
        PredictorInfo {
            block_size: NonZeroUsize::new(self.block_size),
            // Two tables of a number.
            kv_cache_bytes: 2 * size_of::<f32>(),
            ..self.toy.info()
        }
    }

    fn logits(&self, mut query: Query<'_>) -> Result<Vec<f32>> {
        match query.cached.take() {
            Some(mut cached) => self.cached_logits(&query, &mut cached),
            None => query.by_logits(|batch, positions| {
                let row = |&at: &usize| {
                    let row = row_of(batch, at);
                    self.row(batch.sequence(row), at - batch.offsets()[row])
                };
                Ok(positions.iter().flat_map(row).collect())
            }),
        }
    }

    fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> Result<Candidates> {
        choice.by_logits(self, query)
    }

    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> Result<Vec<f32>> {
        losses_by_logits(self, query, targets)
    }
}
