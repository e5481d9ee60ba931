//! Windows of sequences: what a forward pass computes, with keys and values of all other positions
//! from a cache.

use std::ops::Range;

use llada_diffusion::{Cached, Error as DiffusionError, Result as DiffusionResult, TokenBatch};
use llada_tensor::backend::AttentionShape;
use llada_tensor::ops::embedding::write_rows;
use llada_tensor::{DType, Tape, Tensor, Var};

use crate::network::index_u32;

/// The tokens of a forward pass.
pub(crate) struct Input {
    /// `[T]`
    pub(crate) ids: Vec<u32>,
    /// `[T]`: the position of each token in its sequence.
    pub(crate) places: Vec<u32>,
    /// `[B + 1]`
    pub(crate) offsets: Vec<usize>,
}

impl Input {
    /// All tokens of a batch.
    pub(crate) fn new(batch: &TokenBatch) -> Self {
        let windows: Vec<Range<usize>> = batch.sequences().map(|s| 0..s.len()).collect();
        Self::windows(batch, &windows)
    }

    /// One window of each sequence.
    pub(crate) fn windows(batch: &TokenBatch, windows: &[Range<usize>]) -> Self {
        let (mut ids, mut places, mut offsets) = (Vec::new(), Vec::new(), vec![0]);
        for (sequence, window) in batch.sequences().zip(windows) {
            ids.extend_from_slice(&sequence[window.clone()]);
            places.extend(window.clone().map(index_u32));
            offsets.push(ids.len());
        }
        Self {
            ids,
            places,
            offsets,
        }
    }
}

/// Attention of each sequence's window to all of its keys: those of the window are written into
/// the cache, the others are there from earlier calls.
pub(crate) fn attend_cached(
    tape: &mut Tape,
    cached: &mut Cached<'_>,
    layer: usize,
    [q, k, v]: [&Var; 3],
    shape: AttentionShape<'_>,
) -> llada_tensor::Result<Tensor> {
    let mut y = Tensor::empty(tape.device(), DType::F32, q.value().shape());
    let windows = cached.windows.iter().zip(cached.caches.iter_mut());
    for (bounds, (window, cache)) in shape.offsets.windows(2).zip(windows) {
        let (start, len) = (bounds[0], bounds[1] - bounds[0]);
        let of_window = |x: &Var| x.value().narrow(0, start, len);
        let new = [of_window(k)?, of_window(v)?];
        if cache.layers.len() <= layer {
            let empty = |x: &Tensor| Tensor::empty(x.device(), DType::F32, x.shape());
            cache.layers.push([empty(&new[0]), empty(&new[1])]);
        }
        let layer = &mut cache.layers[layer];
        for (table, new) in layer.iter_mut().zip(&new) {
            write_rows(table, window.start, new)?;
        }
        let [keys, values] = layer.each_ref().map(|x| Var::constant(x.clone()));
        let one = AttentionShape {
            offsets: &[0, len],
            key_offsets: Some(&[0, keys.value().shape()[0]]),
            ..shape
        };
        let out = tape.attention(&Var::constant(of_window(q)?), &keys, &values, one)?;
        write_rows(&mut y, start, out.value())?;
    }
    Ok(y)
}

/// Checks windows and caches, and returns the positions as indexes into all windows.
pub(crate) fn window_positions(
    batch: &TokenBatch,
    cached: &Cached<'_>,
    positions: &[usize],
) -> DiffusionResult<Vec<usize>> {
    let n = batch.n_sequences();
    for (what, got) in [
        ("windows", cached.windows.len()),
        ("caches", cached.caches.len()),
    ] {
        if got != n {
            let expected = n;
            return Err(DiffusionError::LengthMismatch {
                what,
                expected,
                got,
            });
        }
    }
    let mut at_windows = Vec::with_capacity(positions.len());
    let (mut positions, mut start) = (positions.iter().peekable(), 0);
    let sequences = batch.offsets().windows(2).zip(cached.windows);
    for ((bounds, window), cache) in sequences.zip(cached.caches.iter()) {
        let length = bounds[1] - bounds[0];
        let expected = if cache.layers.is_empty() {
            length
        } else {
            window.len()
        };
        let known = cache
            .layers
            .first()
            .map_or(length, |[keys, _]| keys.shape()[0]);
        let what = "a cache of another length, or a first window that is not all of its sequence";
        if window.end > length || window.len() != expected || known != length {
            let (expected, got) = (length, window.len());
            return Err(DiffusionError::LengthMismatch {
                what,
                expected,
                got,
            });
        }
        while let Some(&at) = positions.next_if(|&&at| at < bounds[1]) {
            let place = at - bounds[0];
            if !window.contains(&place) {
                let (op, limit) = ("positions", window.end);
                let index = place;
                return Err(llada_tensor::Error::IndexOutOfRange { op, index, limit }.into());
            }
            at_windows.push(start + place - window.start);
        }
        start += window.len();
    }
    Ok(at_windows)
}
