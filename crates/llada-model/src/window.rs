//! Row plans: what a forward pass computes of its sequences, with keys and values of all other
//! positions from a cache.

use std::num::NonZeroUsize;
use std::ops::Range;

use llada_diffusion::{
    Cached, Error as DiffusionError, KvCache, Result as DiffusionResult, RowPlan, TokenBatch,
};
use llada_tensor::backend::AttentionShape;
use llada_tensor::ops::embedding::write_rows;
use llada_tensor::{DType, Tape, Tensor, Var};

/// The tokens of a forward pass.
pub(crate) struct Input {
    /// `[T]`
    pub(crate) ids: Vec<u32>,
    /// `[T]`: the position of each token in its sequence.
    pub(crate) places: Vec<u32>,
    /// `[B + 1]`
    pub(crate) offsets: Vec<usize>,
    /// `[N]`: the rows whose hidden states are asked for.
    pub(crate) rows: Vec<u32>,
}

impl Input {
    /// All tokens of a batch, of which `positions` are asked for.
    pub(crate) fn new(batch: &TokenBatch, positions: &[usize]) -> Self {
        let whole = |sequence: &[u32]| RowPlan::window(0..sequence.len(), sequence.len());
        let plans: Vec<RowPlan> = batch.sequences().map(whole).collect();
        Self::planned(batch, &plans, positions)
    }

    /// The rows of each sequence's plan; `asked` are indexes into all of them.
    pub(crate) fn planned(batch: &TokenBatch, plans: &[RowPlan], asked: &[usize]) -> Self {
        let (mut ids, mut places, mut offsets) = (Vec::new(), Vec::new(), vec![0]);
        for (sequence, plan) in batch.sequences().zip(plans) {
            ids.extend(plan.positions().map(|at| sequence[at]));
            places.extend(plan.positions().map(index_u32));
            offsets.push(ids.len());
        }
        Self {
            ids,
            places,
            offsets,
            rows: asked.iter().map(|&at| index_u32(at)).collect(),
        }
    }

    /// Positions that the rotary table must have.
    pub(crate) fn n_places(&self) -> usize {
        let last = self.places.iter().max();
        last.map_or(0, |&last| last as usize + 1)
    }

    /// The last of the asked rows again and again, up to a multiple of `n`; returns how many there
    /// were. Fewer different lengths are fewer recordings of a device.
    pub(crate) fn pad_rows(&mut self, n: usize) -> usize {
        let asked = self.rows.len();
        if let Some(&last) = self.rows.last() {
            self.rows.resize(asked.next_multiple_of(n), last);
        }
        asked
    }
}

/// Attention of each sequence's rows to the keys of its plan: those of the rows are written into
/// the cache, the others are there from earlier calls.
pub(crate) fn attend_cached(
    tape: &mut Tape,
    cached: &mut Cached<'_>,
    layer: usize,
    [q, k, v]: [&Var; 3],
    shape: AttentionShape<'_>,
) -> llada_tensor::Result<Tensor> {
    let mut y = Tensor::empty(tape.device(), DType::F32, q.value().shape())?;
    let plans = cached.plans.iter().zip(cached.caches.iter_mut());
    for (bounds, (plan, cache)) in shape.offsets.windows(2).zip(plans) {
        let (start, len) = (bounds[0], bounds[1] - bounds[0]);
        if len == 0 {
            continue;
        }
        let length = cache.known.len();
        let of_rows = |x: &Var| x.value().narrow(0, start, len);
        let new = [of_rows(k)?, of_rows(v)?];
        if cache.layers.len() <= layer {
            let empty = |x: &Tensor| Tensor::empty(x.device(), DType::F32, &[length, x.shape()[1]]);
            let [k, v] = new.each_ref().map(empty);
            cache.layers.push([k?, v?]);
        }
        let layer = &mut cache.layers[layer];
        for (table, new) in layer.iter_mut().zip(&new) {
            let mut done = 0;
            for range in &plan.rows {
                write_rows(table, range.start, &new.narrow(0, done, range.len())?)?;
                done += range.len();
            }
        }
        if shape.block_size == Some(NonZeroUsize::MIN) && is_continuation(plan) {
            for (row, place) in plan.positions().enumerate() {
                let table = |x: &Tensor| Ok(Var::constant(x.narrow(0, 0, place + 1)?));
                let [keys, values] = layer.each_ref().map(table);
                let query = Var::constant(q.value().narrow(0, start + row, 1)?);
                let window = AttentionShape {
                    offsets: &[0, 1],
                    key_offsets: Some(&[0, place + 1]),
                    block_size: None,
                    ..shape
                };
                let out = tape.attention(&query, &keys?, &values?, window)?;
                write_rows(&mut y, start + row, out.value())?;
            }
            continue;
        }
        let keys = gather(tape, &layer[0], &plan.keys)?;
        let values = gather(tape, &layer[1], &plan.keys)?;
        let (offsets, key_offsets) = ([0, len], [0, keys.value().shape()[0]]);
        // A prefix is a sequence of its own; of others, causal attention has no windows.
        let is_prefix = plan.rows == plan.keys && plan.keys[0].start == 0 && plan.keys.len() == 1;
        let is_sequence = shape.block_size.is_some() && is_prefix;
        let window = AttentionShape {
            offsets: &offsets,
            key_offsets: (!is_sequence).then_some(&key_offsets),
            ..shape
        };
        let out = tape.attention(&Var::constant(of_rows(q)?), &keys, &values, window)?;
        write_rows(&mut y, start, out.value())?;
    }
    Ok(y)
}

/// Whether the rows are the last ones of a prefix and see what is before them: with causal attention
/// each is then a row after all of its other keys, and they are the same whatever is computed with
/// them.
fn is_continuation(plan: &RowPlan) -> bool {
    match (&plan.rows[..], &plan.keys[..]) {
        ([rows], [keys]) => keys.start == 0 && rows.start > 0 && rows.end == keys.end,
        _ => false,
    }
}

/// Rows of a table: a view where they are one range.
fn gather(tape: &mut Tape, table: &Tensor, ranges: &[Range<usize>]) -> llada_tensor::Result<Var> {
    if let [range] = ranges {
        return Ok(Var::constant(table.narrow(0, range.start, range.len())?));
    }
    let rows: Vec<u32> = ranges.iter().cloned().flatten().map(index_u32).collect();
    tape.embedding(&Var::constant(table.clone()), &rows)
}

/// Checks plans and caches, notes what the caches will know, and returns the positions as indexes
/// into the rows of all plans.
pub(crate) fn planned_positions(
    batch: &TokenBatch,
    cached: &mut Cached<'_>,
    positions: &[usize],
) -> DiffusionResult<Vec<usize>> {
    let expected = batch.n_sequences();
    for (what, got) in [
        ("plans", cached.plans.len()),
        ("caches", cached.caches.len()),
    ] {
        if got != expected {
            return Err(DiffusionError::LengthMismatch {
                what,
                expected,
                got,
            });
        }
    }
    let lengths = batch.sequences().map(<[u32]>::len);
    for ((length, plan), cache) in lengths.zip(cached.plans).zip(cached.caches.iter()) {
        check_plan(plan, cache, length)?;
    }
    let mut at_rows = Vec::with_capacity(positions.len());
    let (mut positions, mut next) = (positions.iter().peekable(), 0);
    for (bounds, plan) in batch.offsets().windows(2).zip(cached.plans) {
        for place in plan.positions() {
            if positions.next_if(|&&at| at == bounds[0] + place).is_some() {
                at_rows.push(next);
            }
            next += 1;
        }
    }
    if let Some(&&index) = positions.peek() {
        let (op, limit) = ("positions (ascending, among the rows)", batch.n_tokens());
        return Err(llada_tensor::Error::IndexOutOfRange { op, index, limit }.into());
    }
    // Only now can nothing be refused any more.
    let lengths = batch.sequences().map(<[u32]>::len);
    for ((length, plan), cache) in lengths.zip(cached.plans).zip(cached.caches.iter_mut()) {
        cache.known.resize(length, false);
        plan.positions().for_each(|at| cache.known[at] = true);
    }
    Ok(at_rows)
}

/// Ranges are ascending and inside, rows are keys, and the other keys are in the cache.
fn check_plan(plan: &RowPlan, cache: &KvCache, length: usize) -> DiffusionResult<()> {
    let mismatch = |what, got| DiffusionError::LengthMismatch {
        what,
        expected: length,
        got,
    };
    if !cache.known.is_empty() && cache.known.len() != length {
        return Err(mismatch("a cache of another length", cache.known.len()));
    }
    for (ranges, what) in [
        (&plan.rows, "rows that do not ascend within a sequence"),
        (&plan.keys, "keys that do not ascend within a sequence"),
    ] {
        let mut end = 0;
        for range in ranges {
            if range.start < end || range.end < range.start || range.end > length {
                return Err(mismatch(what, range.end));
            }
            end = range.end;
        }
    }
    let marks = |ranges: &[Range<usize>]| {
        let mut marks = vec![false; length];
        ranges
            .iter()
            .for_each(|range| marks[range.clone()].fill(true));
        marks
    };
    let (is_row, is_key) = (marks(&plan.rows), marks(&plan.keys));
    let is_known = |&at: &usize| is_row[at] || cache.known.get(at) == Some(&true);
    if let Some(at) = (0..length).find(|at| is_key[*at] && !is_known(at)) {
        return Err(mismatch("a key that no call has computed", at));
    }
    match (0..length).find(|&at| is_row[at] && !is_key[at]) {
        Some(at) => Err(mismatch("a row that is no key", at)),
        None => Ok(()),
    }
}

pub(crate) fn index_u32(at: usize) -> u32 {
    u32::try_from(at).expect("a batch has fewer than 2^32 tokens")
}

#[cfg(test)]
mod tests;
