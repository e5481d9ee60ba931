//! A predictor with caches whose keys and values say in which call they were computed.

use llada_diffusion::{
    Cached, Candidates, Choice, Error, MaskPredictor, PredictorInfo, Query, Result, RowPlan,
    losses_by_logits, read_ranges, write_ranges,
};
use llada_tensor::{CpuConfig, Device, Tensor};

use crate::toy::{ToyPredictor, row_of};

/// [`ToyPredictor`] with caches: the logits of a position are a hash of all keys that its call sees,
/// and of the position.
///
/// The key of a row is its token. What a cache holds of a position is a hash of all that the call
/// saw that computed it, as keys of a Transformer depend on what was attended to before them. So a
/// sampler that computes a position once too often, or not again, has other logits.
#[derive(Debug, Clone)]
pub struct CachedPredictor {
    toy: ToyPredictor,
    device: Device,
}

/// Integers up to this are exact in `f32`.
const EXACT: u64 = 1 << 24;

impl CachedPredictor {
    /// Ids and logits are those of [`ToyPredictor::new`].
    ///
    /// # Panics
    /// As [`ToyPredictor::new`]; if there is no CPU.
    #[must_use]
    pub fn new(vocab_size: usize, max_sequence_length: usize, seed: u64) -> Self {
        Self {
            toy: ToyPredictor::new(vocab_size, max_sequence_length, seed),
            device: Device::cpu(CpuConfig::default()).expect("a CPU"),
        }
    }

    /// What the rows of a plan see, `known` of it from earlier calls, as a sequence of numbers.
    fn seen(sequence: &[u32], plan: &RowPlan, known: [&[f32]; 2]) -> Vec<u32> {
        let is_row = |at: usize| plan.rows.iter().any(|range| range.contains(&at));
        let of = |at: usize| match is_row(at) {
            true => [at as u32, sequence[at], u32::MAX],
            false => [at as u32, known[0][at] as u32, known[1][at] as u32],
        };
        let keys = plan.keys.iter().cloned().flatten();
        keys.flat_map(of).collect()
    }

    /// Keys and values `[N, 1]` of the rows.
    fn rows(&self, seen: &[u32], plan: &RowPlan) -> Result<[Tensor; 2]> {
        let content = |at: usize| {
            let context = seen.iter().copied().chain([at as u32]);
            context.fold(0x9E37_79B9_7F4A_7C15_u64, |hash, x| {
                (hash ^ u64::from(x))
                    .wrapping_mul(0x0000_0100_0000_01B3)
                    .rotate_left(29)
            })
        };
        let contents: Vec<u64> = plan.positions().map(content).collect();
        let table = |part: fn(u64) -> u64| {
            let numbers: Vec<f32> = contents.iter().map(|&x| part(x) as f32).collect();
            Tensor::from_f32(&self.device, &[numbers.len(), 1], &numbers)
        };
        Ok([table(|x| x % EXACT)?, table(|x| (x >> 32) % EXACT)?])
    }

    fn cached_logits(&self, query: &Query<'_>, cached: &mut Cached<'_>) -> Result<Vec<f32>> {
        let mut all = Vec::new();
        for (at, (sequence, plan)) in query.batch.sequences().zip(cached.plans).enumerate() {
            let branch = at.checked_sub(cached.caches.len());
            let of = branch.map_or(at, |branch| cached.branches[branch].cache);
            let cache = &mut *cached.caches[of];
            cache.known.resize(sequence.len(), false);
            if cache.layers.is_empty() {
                let zeros = vec![0.0; sequence.len()];
                let table = || Tensor::from_f32(&self.device, &[zeros.len(), 1], &zeros);
                cache.layers.push([table()?, table()?]);
            }
            let is_row = |at: usize| plan.rows.iter().any(|range| range.contains(&at));
            let mut keys = plan.keys.iter().cloned().flatten();
            if let Some(at) = keys.find(|&at| !is_row(at) && !cache.known[at]) {
                return Err(Error::OutOfRange {
                    what: "a key",
                    expected: "computed before",
                    got: at as f64,
                });
            }
            let [keys, values] = cache.layers[0].each_ref().map(Tensor::to_vec_f32);
            let seen = Self::seen(sequence, plan, [&keys?, &values?]);
            let new = self.rows(&seen, plan)?;
            match branch.map(|branch| &mut cached.branches[branch]) {
                None => {
                    for (table, new) in cache.layers[0].iter_mut().zip(&new) {
                        write_ranges(table, &plan.rows, new)?;
                    }
                    plan.positions().for_each(|at| cache.known[at] = true);
                }
                Some(branch) => {
                    branch.rows.clone_from(&plan.rows);
                    let own = |x: &Tensor| read_ranges(x, std::slice::from_ref(&(0..x.shape()[0])));
                    let [keys, values] = new.each_ref().map(own);
                    branch.layers = vec![[keys?, values?]];
                }
            }
            all.push(seen);
        }
        let row = |&at: &usize| {
            let row = row_of(query.batch, at);
            self.toy.row(&all[row], at - query.batch.offsets()[row])
        };
        Ok(query.positions.iter().flat_map(row).collect())
    }
}

impl MaskPredictor for CachedPredictor {
    fn info(&self) -> PredictorInfo {
        PredictorInfo {
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
                    let sequence = batch.sequence(row);
                    let whole = RowPlan::window(0..sequence.len(), sequence.len());
                    let seen = Self::seen(sequence, &whole, [&[], &[]]);
                    self.toy.row(&seen, at - batch.offsets()[row])
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
