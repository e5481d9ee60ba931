//! Device memory: one arena that allocations are cut from, with a shadow that knows of each byte
//! whether it may be read.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::MmapMut;

/// First address of device memory. The windows of shared and local memory in the generic address
/// space lie below it.
pub(crate) const GLOBAL: u64 = 0x10_0000_0000;
/// Window of the shared memory of a block.
pub(crate) const SHARED: u64 = 0x4_0000_0000;
/// Window of the local memory of a thread.
pub(crate) const LOCAL: u64 = 0x8_0000_0000;
/// Size of a window.
pub(crate) const WINDOW: u64 = 0x1_0000_0000;

/// Addresses of allocations are multiples of this.
const ALIGN: u64 = 512;

/// What the shadow says of a byte.
const NEVER: u8 = 0;
const FRESH: u8 = 1;
const WRITTEN: u8 = 2;
const FREED: u8 = 3;

/// An access that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    Address(String),
    Misaligned(String),
    Launch(String),
}

impl Fault {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Address(text) | Self::Misaligned(text) | Self::Launch(text) => text,
        }
    }

    /// The same kind with more text in front.
    pub(crate) fn at(self, place: &str) -> Self {
        match self {
            Self::Address(text) => Self::Address(format!("{place}: {text}")),
            Self::Misaligned(text) => Self::Misaligned(format!("{place}: {text}")),
            Self::Launch(text) => Self::Launch(format!("{place}: {text}")),
        }
    }
}

/// Device memory and what is allocated in it.
#[derive(Debug)]
pub(crate) struct Arena {
    memory: MmapMut,
    shadow: MmapMut,
    checked: bool,
    /// Size of each living allocation by its address.
    allocations: BTreeMap<u64, u64>,
    /// Gaps by their address.
    gaps: BTreeMap<u64, u64>,
}

/// The arena as kernels see it: threads of the simulator share it as blocks of a grid do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Global {
    memory: *mut u8,
    shadow: *mut u8,
    bytes: u64,
    checked: bool,
}

// SAFETY: the memory outlives the launch that it was made for, and whoever races in it does so in
// the kernel: bytes are read and written by unaligned copies of plain integers.
unsafe impl Send for Global {}
// SAFETY: as above.
unsafe impl Sync for Global {}

impl Arena {
    pub(crate) fn new(bytes: u64) -> std::io::Result<Self> {
        let bytes = bytes.next_multiple_of(ALIGN);
        let map = || MmapMut::map_anon(usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(Self {
            memory: map()?,
            shadow: map()?,
            checked: false,
            allocations: BTreeMap::new(),
            gaps: BTreeMap::from([(GLOBAL, bytes)]),
        })
    }

    pub(crate) fn total(&self) -> u64 {
        self.memory.len() as u64
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        self.total() - self.allocations.values().sum::<u64>()
    }

    /// Whether kernels' accesses are looked up in the shadow; what they wrote before that counts as
    /// never written.
    pub(crate) fn set_checked(&mut self, checked: bool) {
        self.checked = checked;
    }

    pub(crate) fn global(&mut self) -> Global {
        Global {
            memory: self.memory.as_mut_ptr(),
            shadow: self.shadow.as_mut_ptr(),
            bytes: self.total(),
            checked: self.checked,
        }
    }

    /// The first gap that is large enough; its bytes are those of a NaN. A gap of [`ALIGN`] bytes
    /// stays behind each allocation, so that running past its end is found.
    pub(crate) fn allocate(&mut self, bytes: u64) -> Option<u64> {
        let size = bytes
            .max(1)
            .checked_next_multiple_of(ALIGN)?
            .checked_add(ALIGN)?;
        let (&start, &gap) = self.gaps.iter().find(|(_, gap)| **gap >= size)?;
        self.gaps.remove(&start);
        if gap > size {
            self.gaps.insert(start + size, gap - size);
        }
        self.allocations.insert(start, size);
        let at = (start - GLOBAL) as usize;
        let (bytes, size) = (bytes as usize, size as usize);
        self.memory[at..at + bytes].fill(0xff);
        self.shadow[at..at + bytes].fill(FRESH);
        self.shadow[at + bytes..at + size].fill(NEVER);
        Some(start)
    }

    /// Gives an allocation back; false if there is none at this address.
    pub(crate) fn free(&mut self, address: u64) -> bool {
        let Some(size) = self.allocations.remove(&address) else {
            return false;
        };
        let at = (address - GLOBAL) as usize;
        self.shadow[at..at + size as usize].fill(FREED);
        let (mut start, mut size) = (address, size);
        if let Some((&before, &gap)) = self.gaps.range(..address).next_back()
            && before + gap == address
        {
            self.gaps.remove(&before);
            (start, size) = (before, size + gap);
        }
        if let Some(gap) = self.gaps.remove(&(start + size)) {
            size += gap;
        }
        self.gaps.insert(start, size);
        true
    }
}

impl Global {
    /// A checked pointer to `n` bytes.
    ///
    /// # Errors
    /// A fault that says what is there instead.
    #[inline(always)]
    pub(crate) fn at(&self, address: u64, n: u32, write: bool) -> Result<*mut u8, Fault> {
        let offset = address.wrapping_sub(GLOBAL);
        if offset >= self.bytes || self.bytes - offset < u64::from(n) {
            return Err(outside(address, n));
        }
        // Parts of words are the beginnings of asynchronous copies, which were looked at whole.
        if n.is_power_of_two() && !address.is_multiple_of(u64::from(n)) {
            return Err(misaligned("global", address, n));
        }
        if self.checked {
            self.check(offset, n, write)?;
        }
        // SAFETY: inside of the arena.
        Ok(unsafe { self.memory.add(offset as usize) })
    }

    /// An atomic operation on a word of 4 or 8 bytes; returns what was there.
    ///
    /// # Errors
    /// As [`Self::at`].
    pub(crate) fn update(
        &self,
        address: u64,
        n: u32,
        new: impl Fn(u64) -> u64,
    ) -> Result<u64, Fault> {
        let at = self.at(address, n, false)?;
        if n == 8 {
            // SAFETY: checked and aligned by `at`; kernels access it by atomics or race anyhow.
            let word = unsafe { AtomicU64::from_ptr(at.cast()) };
            return Ok(word
                .fetch_update(SeqCst, SeqCst, |old| Some(new(old)))
                .unwrap_or_default());
        }
        // SAFETY: as above.
        let word = unsafe { AtomicU32::from_ptr(at.cast()) };
        let update = |old: u32| Some(new(u64::from(old)) as u32);
        Ok(u64::from(
            word.fetch_update(SeqCst, SeqCst, update)
                .unwrap_or_default(),
        ))
    }

    /// Asks the shadow.
    #[inline(never)]
    fn check(&self, offset: u64, n: u32, write: bool) -> Result<(), Fault> {
        // SAFETY: inside of the arena, checked by the caller; no reference to it lives longer.
        let shadow =
            unsafe { std::slice::from_raw_parts_mut(self.shadow.add(offset as usize), n as usize) };
        let address = GLOBAL + offset;
        let what = match shadow.iter().copied().find(|&state| state != WRITTEN) {
            Some(NEVER) => "memory that is not allocated",
            Some(FREED) => "memory that was freed",
            Some(FRESH) if !write => "memory that was never written",
            _ => {
                shadow.fill(WRITTEN);
                return Ok(());
            }
        };
        let verb = if write { "write to" } else { "read of" };
        Err(Fault::Address(format!(
            "{verb} {what}, {n} bytes at {address:#x}"
        )))
    }

    /// Whether a range lies in living allocations.
    pub(crate) fn is_allocated(&self, address: u64, n: u64) -> bool {
        let offset = address.wrapping_sub(GLOBAL);
        if offset >= self.bytes || self.bytes - offset < n {
            return false;
        }
        // SAFETY: inside of the arena.
        let shadow =
            unsafe { std::slice::from_raw_parts(self.shadow.add(offset as usize), n as usize) };
        shadow
            .iter()
            .all(|&state| state == FRESH || state == WRITTEN)
    }

    /// A copy by the host or between allocations; `false` if a range is not allocated.
    pub(crate) fn copy_in(&self, address: u64, bytes: &[u8]) -> bool {
        if !self.is_allocated(address, bytes.len() as u64) {
            return false;
        }
        let offset = (address - GLOBAL) as usize;
        // SAFETY: inside of the arena, checked above.
        unsafe {
            self.memory
                .add(offset)
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            self.shadow.add(offset).write_bytes(WRITTEN, bytes.len());
        }
        true
    }

    /// As [`Self::copy_in`].
    pub(crate) fn copy_out(&self, address: u64, bytes: &mut [u8]) -> bool {
        if !self.is_allocated(address, bytes.len() as u64) {
            return false;
        }
        let offset = (address - GLOBAL) as usize;
        // SAFETY: inside of the arena, checked above.
        unsafe {
            self.memory
                .add(offset)
                .copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len());
        }
        true
    }

    /// As [`Self::copy_in`], within the device; what was never written stays so.
    pub(crate) fn copy(&self, to: u64, from: u64, n: u64) -> bool {
        if !self.is_allocated(to, n) || !self.is_allocated(from, n) {
            return false;
        }
        let (to, from) = ((to - GLOBAL) as usize, (from - GLOBAL) as usize);
        // SAFETY: inside of the arena, checked above; ranges may overlap.
        unsafe {
            self.memory
                .add(to)
                .copy_from(self.memory.add(from), n as usize);
            self.shadow
                .add(to)
                .copy_from(self.shadow.add(from), n as usize);
        }
        true
    }
}

pub(crate) fn outside(address: u64, n: u32) -> Fault {
    Fault::Address(format!(
        "access outside of any memory, {n} bytes at {address:#x}"
    ))
}

pub(crate) fn misaligned(space: &str, address: u64, n: u32) -> Fault {
    Fault::Misaligned(format!(
        "misaligned access to {space} memory, {n} bytes at {address:#x}"
    ))
}
