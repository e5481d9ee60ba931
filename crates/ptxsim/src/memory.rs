//! Device memory: allocations, their bounds, and which bytes have been written.

use std::alloc::Layout;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

/// Alignment of an allocation, as the driver gives it.
const ALIGN: usize = 256;
/// Freed bytes that check mode keeps, so that their addresses are not used again soon.
const QUARANTINE: usize = 256 << 20;

/// Host memory that stands for device memory.
#[derive(Debug)]
struct Buffer {
    start: *mut u8,
    layout: Layout,
}

// SAFETY: the buffer is owned bytes; kernels on several threads access it as they would on a device.
unsafe impl Send for Buffer {}
// SAFETY: as above; nothing hands out references into it.
unsafe impl Sync for Buffer {}

impl Buffer {
    fn new(bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(1), ALIGN).ok()?;
        // SAFETY: the layout has at least one byte.
        let start = unsafe { std::alloc::alloc(layout) };
        if start.is_null() {
            return None;
        }
        // SAFETY: the allocation has that many bytes. All bits set are a NaN in every format.
        unsafe { std::ptr::write_bytes(start, 0xff, layout.size()) };
        Some(Self { start, layout })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: `new` allocated it with this layout.
        unsafe { std::alloc::dealloc(self.start, self.layout) };
    }
}

/// One allocation.
#[derive(Debug)]
pub(crate) struct Allocation {
    _buffer: Buffer,
    bytes: usize,
    freed: bool,
    /// A bit for each byte that has been written; empty outside check mode, or once all have been.
    written: Vec<AtomicU64>,
}

impl Allocation {
    fn mark(&mut self, offset: usize, bytes: usize) {
        if offset == 0 && bytes == self.bytes {
            self.written = Vec::new();
        }
        self.mark_shared(offset, bytes);
    }

    fn mark_shared(&self, offset: usize, bytes: usize) {
        if self.written.is_empty() {
            return;
        }
        let end = offset + bytes;
        let mut at = offset;
        while at < end {
            let stop = ((at / 64 + 1) * 64).min(end);
            let count = stop - at;
            let bits = if count == 64 {
                u64::MAX
            } else {
                ((1 << count) - 1) << (at % 64)
            };
            self.written[at / 64].fetch_or(bits, Ordering::Relaxed);
            at = stop;
        }
    }

    fn is_written(&self, offset: usize, bytes: usize) -> bool {
        self.written.is_empty()
            || (offset..offset + bytes)
                .all(|at| self.written[at / 64].load(Ordering::Relaxed) >> (at % 64) & 1 == 1)
    }
}

/// Addresses that a thread has found to be inside one allocation, so that it need not look again.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Known {
    ranges: [(u64, u64); 4],
    next: usize,
}

impl Known {
    #[inline]
    pub(crate) fn contains(&self, start: u64, end: u64) -> bool {
        self.ranges
            .iter()
            .any(|&(from, to)| start >= from && end <= to)
    }

    fn add(&mut self, range: (u64, u64)) {
        self.ranges[self.next] = range;
        self.next = (self.next + 1) % self.ranges.len();
    }
}

/// What an access does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Read,
    Write,
    /// A copy or memset from the host: it may read what was never written.
    Copy,
}

/// All device memory.
#[derive(Debug)]
pub(crate) struct Memory {
    map: BTreeMap<u64, Allocation>,
    quarantine: VecDeque<u64>,
    quarantined: usize,
    pub(crate) used: usize,
    pub(crate) limit: usize,
    pub(crate) check: bool,
}

impl Memory {
    pub(crate) fn new(limit: usize, check: bool) -> Self {
        Self {
            map: BTreeMap::new(),
            quarantine: VecDeque::new(),
            quarantined: 0,
            used: 0,
            limit,
            check,
        }
    }

    /// Allocates; none if the device is full.
    pub(crate) fn allocate(&mut self, bytes: usize) -> Option<u64> {
        if self.used.checked_add(bytes)? > self.limit {
            return None;
        }
        let buffer = Buffer::new(bytes)?;
        let address = buffer.start as u64;
        let words = if self.check { bytes.div_ceil(64) } else { 0 };
        let written = (0..words).map(|_| AtomicU64::new(0)).collect();
        self.map.insert(
            address,
            Allocation {
                _buffer: buffer,
                bytes,
                freed: false,
                written,
            },
        );
        self.used += bytes;
        Some(address)
    }

    /// Frees; false if there is no such allocation.
    pub(crate) fn free(&mut self, address: u64) -> bool {
        let Some(allocation) = self.map.get_mut(&address).filter(|a| !a.freed) else {
            return false;
        };
        self.used -= allocation.bytes;
        if !self.check {
            self.map.remove(&address);
            return true;
        }
        allocation.freed = true;
        self.quarantined += allocation.bytes;
        self.quarantine.push_back(address);
        while self.quarantined > QUARANTINE {
            let Some(oldest) = self.quarantine.pop_front() else {
                break;
            };
            if let Some(gone) = self.map.remove(&oldest) {
                self.quarantined -= gone.bytes;
            }
        }
        true
    }

    /// Says what is wrong with an access, if anything is.
    pub(crate) fn check(
        &self,
        address: u64,
        bytes: usize,
        usage: Use,
        known: &mut Known,
    ) -> Result<(), String> {
        let Some((&start, a)) = self.map.range(..=address).next_back() else {
            return Err("no allocation at or below the address".to_owned());
        };
        let offset = usize::try_from(address - start).unwrap_or(usize::MAX);
        let end = offset.saturating_add(bytes);
        if a.freed && offset < a.bytes {
            return Err(format!(
                "use after free: byte {offset} of a freed allocation of {} bytes",
                a.bytes
            ));
        }
        if end > a.bytes {
            return Err(format!(
                "out of bounds: byte {offset} of the nearest allocation, which has {} bytes at {start:#x}{}",
                a.bytes,
                if a.freed { " and is freed" } else { "" }
            ));
        }
        match usage {
            Use::Write => a.mark_shared(offset, bytes),
            Use::Read if !a.is_written(offset, bytes) => {
                return Err(format!(
                    "uninitialized read: byte {offset} of an allocation of {} bytes",
                    a.bytes
                ));
            }
            _ => {}
        }
        if !self.check {
            known.add((start, start + a.bytes as u64));
        }
        Ok(())
    }

    /// Checks the range of a copy and, for a target, marks it as written.
    pub(crate) fn host_range(
        &mut self,
        address: u64,
        bytes: usize,
        write: bool,
    ) -> Result<(), String> {
        if bytes == 0 {
            return Ok(());
        }
        self.check(address, bytes, Use::Copy, &mut Known::default())?;
        if write && let Some((&start, a)) = self.map.range_mut(..=address).next_back() {
            a.mark(
                usize::try_from(address - start).unwrap_or(usize::MAX),
                bytes,
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
