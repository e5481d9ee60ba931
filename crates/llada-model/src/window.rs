//! Row plans: what a forward pass computes of its sequences, with keys and values of all other
//! positions from a cache.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::slice::from_ref;

use llada_diffusion::{
    Branch, Error as DiffusionError, KvCache, Result as DiffusionResult, RowPlan, TokenBatch,
    read_ranges, write_ranges,
};
use llada_tensor::backend::AttentionShape;
use llada_tensor::ops::embedding::write_rows;
use llada_tensor::{DType, Tape, Tensor, Var};

/// What a forward pass computes and sees of each sequence, with its cache.
pub(crate) struct Window<'p, 'c> {
    pub(crate) plans: &'p [RowPlan],
    pub(crate) caches: &'c mut [&'c mut KvCache],
    pub(crate) branches: &'c mut [Branch],
}

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
    /// All tokens of a batch, of which `positions` are asked for. `is_shifted`: what is said about a
    /// token is the output at the position before it, of the first one that at its own.
    pub(crate) fn new(batch: &TokenBatch, positions: &[usize], is_shifted: bool) -> Self {
        let whole = |sequence: &[u32]| RowPlan::window(0..sequence.len(), sequence.len());
        let plans: Vec<RowPlan> = batch.sequences().map(whole).collect();
        if !is_shifted {
            return Self::planned(batch, &plans, positions);
        }
        let is_first = |at: &usize| batch.offsets().binary_search(at).is_ok();
        let before = |at: &usize| at - usize::from(!is_first(at));
        let rows: Vec<usize> = positions.iter().map(before).collect();
        Self::planned(batch, &plans, &rows)
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

    /// Offsets of the runs of rows that lie in one block of `block_size` positions of one sequence.
    pub(crate) fn runs(&self, block_size: Option<NonZeroUsize>) -> Vec<usize> {
        let block = |row: usize| block_size.map_or(0, |size| self.places[row] as usize / size);
        let mut runs = vec![0];
        for bounds in self.offsets.windows(2) {
            let rows = bounds[0] + 1..bounds[1];
            runs.extend(rows.filter(|&row| block(row) != block(row - 1)));
            if bounds[1] > bounds[0] {
                runs.push(bounds[1]);
            }
        }
        runs
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
/// the cache, the others are there from earlier calls. The rows of a branch are in the cache while
/// it attends alone.
pub(crate) fn attend_cached(
    tape: &mut Tape,
    cached: &mut Window<'_, '_>,
    layer: usize,
    [q, k, v]: [&Var; 3],
    shape: AttentionShape<'_>,
) -> llada_tensor::Result<Tensor> {
    let mut y = Tensor::empty(tape.device(), DType::F32, q.value().shape())?;
    let n_caches = cached.caches.len();
    for (at, (bounds, plan)) in (shape.offsets.windows(2).zip(cached.plans)).enumerate() {
        let (start, len) = (bounds[0], bounds[1] - bounds[0]);
        if len == 0 {
            continue;
        }
        let of_rows = |x: &Var| x.value().narrow(0, start, len);
        let (q, new) = (of_rows(q)?, [of_rows(k)?, of_rows(v)?]);
        let branch = at.checked_sub(n_caches).map(|at| &mut cached.branches[at]);
        let of = branch.as_ref().map_or(at, |branch| branch.cache);
        let tables = tables(&mut *cached.caches[of], layer, &new)?;
        let Some(branch) = branch else {
            put(tables, plan, &new)?;
            write_rows(&mut y, start, &attend(tape, tables, plan, &q, shape)?)?;
            continue;
        };
        let own = |x: &Tensor| read_ranges(x, from_ref(&(0..len)));
        let [keys, values] = new.each_ref().map(own);
        branch.layers.push([keys?, values?]);
        let [keys, values] = tables.each_ref().map(|x| read_ranges(x, &plan.rows));
        let before = [keys?, values?];
        let out = put(tables, plan, &new).and_then(|()| attend(tape, tables, plan, &q, shape));
        put(tables, plan, &before)?;
        write_rows(&mut y, start, &out?)?;
    }
    Ok(y)
}

/// Keys and values of a layer, which a cache gets with its first call.
fn tables<'a>(
    cache: &'a mut KvCache,
    layer: usize,
    new: &[Tensor; 2],
) -> llada_tensor::Result<&'a mut [Tensor; 2]> {
    if cache.layers.len() <= layer {
        let length = cache.known.len();
        let empty = |x: &Tensor| Tensor::empty(x.device(), DType::F32, &[length, x.shape()[1]]);
        let [k, v] = new.each_ref().map(empty);
        cache.layers.push([k?, v?]);
    }
    Ok(&mut cache.layers[layer])
}

/// Writes the rows of a plan.
fn put(tables: &mut [Tensor; 2], plan: &RowPlan, rows: &[Tensor; 2]) -> llada_tensor::Result<()> {
    let mut pairs = tables.iter_mut().zip(rows);
    pairs.try_for_each(|(table, rows)| write_ranges(table, &plan.rows, rows))
}

/// Attention of the rows of a plan, `[N, H * E]`, to its keys in the tables.
fn attend(
    tape: &mut Tape,
    tables: &[Tensor; 2],
    plan: &RowPlan,
    q: &Tensor,
    shape: AttentionShape<'_>,
) -> llada_tensor::Result<Tensor> {
    if let Some(block_size) = shape.block_size
        && let Some(rows) = continuation(plan)
    {
        let mut y = Tensor::empty(tape.device(), DType::F32, q.shape())?;
        let mut place = rows.start;
        while place < rows.end {
            let end = (place / block_size + 1) * block_size.get();
            let (row, n_keys) = (place - rows.start, end.min(rows.end));
            let table = |x: &Tensor| Ok(Var::constant(x.narrow(0, 0, n_keys)?));
            let [keys, values] = tables.each_ref().map(table);
            let n_rows = n_keys - place;
            let query = Var::constant(q.narrow(0, row, n_rows)?);
            let window = AttentionShape {
                offsets: &[0, n_rows],
                key_offsets: Some(&[0, n_keys]),
                block_size: None,
                ..shape
            };
            let out = tape.attention(&query, &keys?, &values?, window)?;
            write_rows(&mut y, row, out.value())?;
            place = n_keys;
        }
        return Ok(y);
    }
    let keys = gather(tape, &tables[0], &plan.keys)?;
    let values = gather(tape, &tables[1], &plan.keys)?;
    let (offsets, key_offsets) = ([0, q.shape()[0]], [0, keys.value().shape()[0]]);
    // A prefix is a sequence of its own; of others, causal attention has no windows.
    let is_prefix = plan.rows == plan.keys && plan.keys[0].start == 0 && plan.keys.len() == 1;
    let is_sequence = shape.block_size.is_some() && is_prefix;
    let window = AttentionShape {
        offsets: &offsets,
        key_offsets: (!is_sequence).then_some(&key_offsets),
        ..shape
    };
    let out = tape.attention(&Var::constant(q.clone()), &keys, &values, window)?;
    Ok(out.value().clone())
}

/// The rows, if they are the last ones of a prefix and see what is before them: with attention that
/// is causal by blocks each block of them is then one after all of its other keys, and they are the
/// same whatever is computed with them.
fn continuation(plan: &RowPlan) -> Option<Range<usize>> {
    match (&plan.rows[..], &plan.keys[..]) {
        ([rows], [keys]) if keys.start == 0 && rows.start > 0 && rows.end == keys.end => {
            Some(rows.clone())
        }
        _ => None,
    }
}

/// The plans with the position before each range of rows, whose output is about its first token in a
/// model with shifted logits.
pub(crate) fn with_rows_before(plans: &[RowPlan]) -> DiffusionResult<Vec<RowPlan>> {
    let widened = |plan: &RowPlan| {
        let mut rows: Vec<Range<usize>> = Vec::new();
        for range in plan.rows.iter().filter(|range| !range.is_empty()) {
            let before = range.start.saturating_sub(1);
            if !plan.keys.iter().any(|keys| keys.contains(&before)) {
                return Err(DiffusionError::Unsupported {
                    what: "rows without the position before them, where the output is about the \
                           next token",
                });
            }
            match rows.last_mut() {
                Some(last) if last.end >= before => last.end = range.end,
                _ => rows.push(before..range.end),
            }
        }
        let keys = plan.keys.clone();
        Ok(RowPlan { rows, keys })
    };
    plans.iter().map(widened).collect()
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
/// into the rows of all plans; `is_shifted` as of [`Input::new`].
pub(crate) fn planned_positions(
    batch: &TokenBatch,
    cached: &mut Window<'_, '_>,
    positions: &[usize],
    is_shifted: bool,
) -> DiffusionResult<Vec<usize>> {
    let expected = batch.n_sequences();
    let n_caches = cached.caches.len();
    for (what, got) in [
        ("plans", cached.plans.len()),
        ("caches", n_caches + cached.branches.len()),
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
    for (at, (length, plan)) in lengths.zip(cached.plans).enumerate() {
        let branch = at.checked_sub(n_caches).map(|at| &cached.branches[at]);
        let of = branch.map_or(at, |branch| branch.cache);
        let Some(cache) = cached.caches.get(of) else {
            return Err(DiffusionError::LengthMismatch {
                what: "a branch of none of the caches",
                expected: n_caches,
                got: of,
            });
        };
        let new: &[Range<usize>] = match branch {
            Some(_) => &cached.plans[of].rows,
            None => &[],
        };
        check_plan(plan, cache, new, length)?;
    }
    let mut at_rows = Vec::with_capacity(positions.len());
    let (mut positions, mut next) = (positions.iter().peekable(), 0);
    for (bounds, plan) in batch.offsets().windows(2).zip(cached.plans) {
        for place in plan.positions() {
            if positions.next_if(|&&at| at == bounds[0] + place).is_some() {
                at_rows.push(next - usize::from(is_shifted && place > 0));
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
    for (plan, branch) in cached.plans[n_caches..].iter().zip(&mut *cached.branches) {
        branch.rows.clone_from(&plan.rows);
        branch.layers.clear();
    }
    Ok(at_rows)
}

/// Ranges are ascending and inside, rows are keys, and the other keys are in the cache, or are `new`
/// in it with this call.
fn check_plan(
    plan: &RowPlan,
    cache: &KvCache,
    new: &[Range<usize>],
    length: usize,
) -> DiffusionResult<()> {
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
    let is_new = |at: usize| new.iter().any(|range| range.contains(&at));
    let is_known = |&at: &usize| is_row[at] || cache.known.get(at) == Some(&true) || is_new(at);
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
