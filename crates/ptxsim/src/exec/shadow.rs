//! What check mode knows about each byte of shared memory: who wrote and read it last, and when.
//!
//! Each warp has a clock that its barriers advance, and knows how far the others' clocks had come when
//! it last met them. An access is in order with an earlier one if the warp knows of it since.

use super::memory::{ILLEGAL_ADDRESS, lanes};
use super::regs::LANES;
use super::warp::{Fault, LAUNCH_FAILED};

/// An access: who, at which tick of the warp's clock, by which instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    thread: u16,
    tick: u32,
    line: u32,
}

const NOBODY: Record = Record {
    thread: u16::MAX,
    tick: 0,
    line: 0,
};

/// One byte. Two readers suffice: of two different threads, at least one is not the writer to come.
#[derive(Debug, Clone, Copy)]
struct Byte {
    write: Record,
    reads: [Record; 2],
    written: bool,
    flying: bool,
}

const FRESH: Byte = Byte {
    write: NOBODY,
    reads: [NOBODY; 2],
    written: false,
    flying: false,
};

/// Shared memory of a block under watch.
#[derive(Debug)]
pub(crate) struct Shadow {
    bytes: Vec<Byte>,
    /// `seen[w][v]`: the tick of warp `v` up to which warp `w` is in order with it.
    seen: Vec<Vec<u32>>,
    /// Clocks at the last release of an mbarrier.
    released: Vec<u32>,
    /// The first read of bytes that nobody had written: an error of its own, unless a write that races with
    /// it explains it. Warp and instruction come with it.
    unwritten: Option<(Fault, usize, u32)>,
}

impl Shadow {
    pub(crate) fn new(bytes: usize, warps: usize) -> Self {
        Self {
            bytes: vec![FRESH; bytes],
            seen: clocks(warps),
            released: vec![0; warps],
            unwritten: None,
        }
    }

    /// The read of unwritten bytes that nothing has explained.
    pub(crate) fn take_unwritten(&mut self) -> Option<(Fault, usize, u32)> {
        self.unwritten.take()
    }

    fn tick(&self, warp: usize) -> u32 {
        self.seen[warp][warp]
    }

    /// All of these warps meet at a barrier.
    pub(crate) fn meet(&mut self, warps: &[usize]) {
        let mut joined = vec![0; self.seen.len()];
        for &warp in warps {
            for (to, &from) in joined.iter_mut().zip(&self.seen[warp]) {
                *to = (*to).max(from);
            }
        }
        for &warp in warps {
            self.seen[warp].copy_from_slice(&joined);
            self.seen[warp][warp] += 1;
        }
    }

    /// The lanes of a warp meet.
    pub(crate) fn sync_warp(&mut self, warp: usize) {
        self.seen[warp][warp] += 1;
    }

    /// A warp arrives at an mbarrier.
    pub(crate) fn release(&mut self, warp: usize) {
        for (to, &from) in self.released.iter_mut().zip(&self.seen[warp]) {
            *to = (*to).max(from);
        }
        self.seen[warp][warp] += 1;
    }

    /// A warp has waited for an mbarrier. All mbarriers count as one: some races are missed.
    pub(crate) fn acquire(&mut self, warp: usize) {
        for (to, &from) in self.seen[warp].iter_mut().zip(&self.released) {
            *to = (*to).max(from);
        }
        self.seen[warp][warp] += 1;
    }

    /// Whether `record` is another thread's, and not in order with what `warp` does now.
    fn races(&self, record: Record, warp: usize, thread: u16) -> bool {
        if record.thread == u16::MAX || record.thread == thread {
            return false;
        }
        let other = usize::from(record.thread) / LANES;
        if other == warp {
            record.tick >= self.tick(warp)
        } else {
            record.tick > self.seen[warp][other]
        }
    }

    /// Checks and records an access of a warp.
    pub(crate) fn touch(
        &mut self,
        warp: usize,
        at: &[u64; LANES],
        bytes: usize,
        mask: u32,
        write: bool,
        line: u32,
    ) -> Result<(), Fault> {
        let tick = self.tick(warp);
        for lane in lanes(mask) {
            let thread = u16::try_from(warp * LANES + lane).unwrap_or(u16::MAX - 1);
            let record = Record { thread, tick, line };
            let start = at[lane] as usize;
            for place in start..start + bytes {
                let byte = self.bytes[place];
                if let Some((code, what)) = self.complaint(byte, warp, thread, write) {
                    return Err(Fault {
                        code,
                        lane,
                        message: format!("{what}, at byte {place:#x} of shared memory"),
                    });
                }
                if !write && !byte.written && self.unwritten.is_none() {
                    let message =
                        format!("uninitialized read of shared memory, at byte {place:#x}");
                    self.unwritten = Some((
                        Fault {
                            code: ILLEGAL_ADDRESS,
                            lane,
                            message,
                        },
                        warp,
                        line,
                    ));
                }
                let byte = &mut self.bytes[place];
                if write {
                    byte.write = record;
                    byte.written = true;
                } else if byte.reads[0].thread != thread {
                    byte.reads[1] = byte.reads[0];
                    byte.reads[0] = record;
                } else {
                    byte.reads[0] = record;
                }
            }
        }
        Ok(())
    }

    fn complaint(
        &self,
        byte: Byte,
        warp: usize,
        thread: u16,
        write: bool,
    ) -> Option<(i32, String)> {
        if byte.flying {
            let what = if write { "write to" } else { "read of" };
            return Some((
                LAUNCH_FAILED,
                format!("missing wait: {what} bytes that a cp.async may still be copying"),
            ));
        }
        let race = |record: Record, kind: &str| {
            let line = record.line;
            (
                LAUNCH_FAILED,
                format!(
                    "race: {kind} thread {} (instruction {line}) without a barrier",
                    record.thread
                ),
            )
        };
        if self.races(byte.write, warp, thread) {
            let kind = if write {
                "write after a write by"
            } else {
                "read after a write by"
            };
            return Some(race(byte.write, kind));
        }
        if write {
            let read = byte
                .reads
                .into_iter()
                .find(|&read| self.races(read, warp, thread))?;
            return Some(race(read, "write after a read by"));
        }
        None
    }

    /// An atomic has read: make it no reader, so that other atomics are no race.
    pub(crate) fn forgive_atomic(&mut self, at: &[u64; LANES], bytes: usize, mask: u32) {
        for lane in lanes(mask) {
            let start = at[lane] as usize;
            for byte in &mut self.bytes[start..start + bytes] {
                byte.reads = [NOBODY; 2];
            }
        }
    }

    /// A `cp.async` to these bytes is under way.
    pub(crate) fn fly(&mut self, at: &[u64; LANES], bytes: usize, mask: u32) {
        for lane in lanes(mask) {
            let start = at[lane] as usize;
            for byte in &mut self.bytes[start..start + bytes] {
                byte.flying = true;
            }
        }
    }

    /// It has landed, as a write of the thread that waited for it.
    pub(crate) fn land(&mut self, warp: usize, lane: usize, start: usize, bytes: usize) {
        let thread = u16::try_from(warp * LANES + lane).unwrap_or(u16::MAX - 1);
        let tick = self.tick(warp);
        for byte in &mut self.bytes[start..start + bytes] {
            byte.flying = false;
            byte.written = true;
            byte.write = Record {
                thread,
                tick,
                line: byte.write.line,
            };
        }
    }
}

/// Clocks start at 1, and nobody knows anybody's.
fn clocks(warps: usize) -> Vec<Vec<u32>> {
    (0..warps)
        .map(|warp| (0..warps).map(|other| u32::from(other == warp)).collect())
        .collect()
}
