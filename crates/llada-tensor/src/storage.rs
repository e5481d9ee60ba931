//! Aligned host memory, recycled through a pool.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// One cache line, the unit of allocation: every buffer starts on a 64-byte boundary.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct CacheLine([u8; 64]);

const LINE_BYTES: usize = 64;
const ZERO_LINE: CacheLine = CacheLine([0; 64]);

/// Recycles buffers, so that a training or sampling loop allocates nothing after its first
/// iterations. Buffers come back when the last tensor that uses them is dropped.
#[derive(Debug, Default)]
pub struct Pool {
    free: Mutex<BTreeMap<usize, Vec<Vec<CacheLine>>>>,
}

impl Pool {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Vec<Vec<CacheLine>>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of at least `bytes` bytes with unspecified contents.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Buffer {
        let n_lines = size_class(bytes.div_ceil(LINE_BYTES));
        let recycled = self.lock().get_mut(&n_lines).and_then(Vec::pop);
        let lines = recycled.unwrap_or_else(|| vec![ZERO_LINE; n_lines]);
        Buffer {
            lines,
            bytes,
            home: Arc::downgrade(self),
        }
    }
}

/// Rounds up to one of eight sizes per power of two, so that batches of slightly different
/// lengths reuse each other's buffers at a cost of at most 12.5 % of memory.
fn size_class(n_lines: usize) -> usize {
    let step = (n_lines.next_power_of_two() / 16).max(1);
    n_lines.div_ceil(step) * step
}

/// Bytes on a 64-byte boundary.
#[derive(Debug)]
pub(crate) struct Buffer {
    lines: Vec<CacheLine>,
    bytes: usize,
    home: Weak<Pool>,
}

impl Buffer {
    pub(crate) fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.bytes]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.bytes]
    }

    pub(crate) fn f32s(&self) -> &[f32] {
        bytemuck::cast_slice(self.bytes())
    }

    pub(crate) fn f32s_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.bytes_mut())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if let Some(pool) = self.home.upgrade().filter(|_| !lines.is_empty()) {
            pool.lock().entry(lines.len()).or_default().push(lines);
        }
    }
}

#[cfg(test)]
mod tests;
