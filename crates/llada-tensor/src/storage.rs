//! Memory of tensors: the host's, or that of a device which the host cannot address.
//!
//! Host memory is aligned and recycled through a pool. Large buffers ask for huge pages: products
//! write tiles whose rows are far apart, which would need more page translations than the
//! processor caches.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use memmap2::MmapMut;

use crate::{Error, Result};

/// Where the elements of a tensor are.
#[derive(Debug)]
pub enum Storage {
    /// In host memory.
    Host(Buffer),
    /// In the memory of a device.
    Device(Box<dyn DeviceMemory>),
}

/// Memory that only a device can address, made by its backend. Copies are in order with the ops of
/// the device; a read waits for what was asked before it.
pub trait DeviceMemory: Debug + Send + Sync {
    /// `self[at..at + bytes.len()] = bytes`.
    ///
    /// # Errors
    /// If the device fails.
    fn write(&mut self, at: usize, bytes: &[u8]) -> Result<()>;

    /// `out = self[at..at + out.len()]`.
    ///
    /// # Errors
    /// If the device fails.
    fn read(&self, at: usize, out: &mut [u8]) -> Result<()>;

    /// `self[at..at + len] = source[source_at..source_at + len]`, without the host.
    ///
    /// # Errors
    /// If `source` is memory of another kind of device, or the device fails.
    fn copy(
        &mut self,
        at: usize,
        source: &dyn DeviceMemory,
        source_at: usize,
        len: usize,
    ) -> Result<()>;

    /// Zeros `len` bytes from `at` on.
    ///
    /// # Errors
    /// If the device fails.
    fn clear(&mut self, at: usize, len: usize) -> Result<()>;

    /// For the backend to find its own type again.
    fn as_any(&self) -> &dyn Any;
}

impl Storage {
    /// Bytes on the host.
    ///
    /// # Errors
    /// [`Error::NotOnHost`].
    pub(crate) fn host(&self, op: &'static str) -> Result<&Buffer> {
        match self {
            Self::Host(buffer) => Ok(buffer),
            Self::Device(_) => Err(Error::NotOnHost { op }),
        }
    }
}

/// One cache line, the unit of allocation: every buffer starts on a 64-byte boundary.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct CacheLine([u8; 64]);

const LINE_BYTES: usize = 64;
/// Buffers from this size on are mapped with huge pages.
const HUGE_BYTES: usize = 2 << 20;
const ZERO_LINE: CacheLine = CacheLine([0; 64]);

/// Recycles buffers, so that a training or sampling loop allocates nothing after its first
/// iterations. Buffers come back when the last tensor that uses them is dropped.
#[derive(Debug, Default)]
pub struct Pool {
    free: Mutex<Free>,
}

/// Unused memory by its size in lines.
type Free = BTreeMap<usize, Vec<Memory>>;

impl Pool {
    fn lock(&self) -> std::sync::MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of at least `bytes` bytes with unspecified contents.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Buffer {
        let n_lines = size_class(bytes.div_ceil(LINE_BYTES));
        let recycled = self.lock().get_mut(&n_lines).and_then(Vec::pop);
        let memory = recycled.unwrap_or_else(|| Memory::new(n_lines));
        let home = Arc::downgrade(self);
        Buffer {
            memory,
            bytes,
            home,
        }
    }
}

/// Rounds up to one of eight sizes per power of two, so that batches of slightly different
/// lengths reuse each other's buffers at a cost of at most 12.5 % of memory.
fn size_class(n_lines: usize) -> usize {
    let step = (n_lines.next_power_of_two() / 16).max(1);
    n_lines.div_ceil(step) * step
}

#[derive(Debug)]
enum Memory {
    Lines(Vec<CacheLine>),
    Mapped(MmapMut),
}

impl Memory {
    fn new(n_lines: usize) -> Self {
        let bytes = n_lines * LINE_BYTES;
        if bytes >= HUGE_BYTES
            && let Ok(map) = MmapMut::map_anon(bytes)
        {
            #[cfg(target_os = "linux")]
            // A kernel without huge pages refuses: the memory is as good, only slower.
            let _ = map.advise(memmap2::Advice::HugePage);
            return Self::Mapped(map);
        }
        Self::Lines(vec![ZERO_LINE; n_lines])
    }

    fn n_lines(&self) -> usize {
        self.bytes().len() / LINE_BYTES
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Lines(lines) => bytemuck::cast_slice(lines),
            Self::Mapped(map) => map,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Lines(lines) => bytemuck::cast_slice_mut(lines),
            Self::Mapped(map) => map,
        }
    }
}

/// Host memory on a 64-byte boundary.
#[derive(Debug)]
pub struct Buffer {
    memory: Memory,
    bytes: usize,
    home: Weak<Pool>,
}

impl Buffer {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory.bytes()[..self.bytes]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory.bytes_mut()[..self.bytes]
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
        let memory = std::mem::replace(&mut self.memory, Memory::Lines(Vec::new()));
        let n_lines = memory.n_lines();
        if let Some(pool) = self.home.upgrade().filter(|_| n_lines > 0) {
            pool.lock().entry(n_lines).or_default().push(memory);
        }
    }
}

/// Values on a 64-byte boundary for one task, zero at first: a load of 64 bytes that crosses a line
/// takes twice as long, and loads of tiles are 16 such.
#[derive(Debug)]
pub(crate) struct Scratch<T> {
    lines: Vec<CacheLine>,
    len: usize,
    values: PhantomData<T>,
}

impl<T: bytemuck::Pod> Scratch<T> {
    pub(crate) fn new(len: usize) -> Self {
        Self {
            lines: vec![ZERO_LINE; (len * size_of::<T>()).div_ceil(LINE_BYTES)],
            len,
            values: PhantomData,
        }
    }
}

impl<T: bytemuck::Pod> Deref for Scratch<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<T: bytemuck::Pod> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

#[cfg(test)]
mod tests;
