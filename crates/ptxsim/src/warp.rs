//! A warp: its registers, and which of its lanes are where.

use std::collections::VecDeque;

use crate::inst::{Kernel, Place, S32, S64, SPred};

/// Threads of a warp.
pub(crate) const LANES: usize = 32;
/// All of them.
pub(crate) const FULL: u32 = u32::MAX;

pub(crate) type Lanes32 = [u32; LANES];
pub(crate) type Lanes64 = [u64; LANES];

/// Lanes that are at the same instruction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub(crate) pc: u32,
    pub(crate) mask: u32,
    /// At an instruction that needs lanes which are not here yet.
    pub(crate) waits: bool,
}

/// An asynchronous copy that has not landed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flight {
    pub(crate) shared: u64,
    pub(crate) global: u64,
    pub(crate) bytes: u32,
    pub(crate) source_bytes: u32,
}

/// Where a warp stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// At a barrier, with its number and the threads that it waits for.
    AtBarrier(u32, Option<u32>),
    Done,
}

#[derive(Debug)]
pub(crate) struct Warp {
    pub(crate) index: u32,
    pub(crate) r32: Vec<Lanes32>,
    pub(crate) r64: Vec<Lanes64>,
    pub(crate) predicates: Vec<u32>,
    pub(crate) carry: u32,
    pub(crate) groups: Vec<Group>,
    /// Lanes that exist.
    pub(crate) lanes: u32,
    pub(crate) state: State,
    /// Local memory, lane after lane.
    pub(crate) local: Vec<u8>,
    /// Copies of the open group, and of the groups that were closed.
    pub(crate) open: Vec<Flight>,
    pub(crate) closed: VecDeque<Vec<Flight>>,
}

impl Warp {
    pub(crate) fn new(kernel: &Kernel, index: u32, n_threads: u32) -> Self {
        let [n32, n64, n_predicates] = kernel.n_registers;
        let mut warp = Self {
            index,
            r32: vec![[0; LANES]; n32],
            r64: vec![[0; LANES]; n64],
            predicates: vec![0; n_predicates],
            carry: 0,
            groups: Vec::new(),
            lanes: if n_threads >= 32 {
                FULL
            } else {
                (1 << n_threads) - 1
            },
            state: State::Ready,
            local: vec![0xff; kernel.local_bytes as usize * LANES],
            open: Vec::new(),
            closed: VecDeque::new(),
        };
        warp.reset();
        warp
    }

    /// To the start of the next block. Registers keep what they had, as on hardware.
    pub(crate) fn reset(&mut self) {
        self.groups.clear();
        self.groups.push(Group {
            pc: 0,
            mask: self.lanes,
            waits: false,
        });
        self.state = State::Ready;
        self.open.clear();
        self.closed.clear();
    }

    #[inline(always)]
    pub(crate) fn get(&self, source: S32) -> Lanes32 {
        match source {
            S32::R(at) => self.r32[at as usize],
            S32::I(bits) => [bits; LANES],
        }
    }

    #[inline(always)]
    pub(crate) fn get64(&self, source: S64) -> Lanes64 {
        match source {
            S64::R(at) => self.r64[at as usize],
            S64::I(bits) => [bits; LANES],
        }
    }

    #[inline(always)]
    pub(crate) fn predicate(&self, source: SPred) -> u32 {
        let bits = self.predicates[source.register as usize];
        if source.negated { !bits } else { bits }
    }

    #[inline(always)]
    pub(crate) fn set(&mut self, d: u32, values: &Lanes32, mask: u32) {
        let register = &mut self.r32[d as usize];
        if mask == FULL {
            *register = *values;
            return;
        }
        for lane in 0..LANES {
            let keep = (mask >> lane & 1).wrapping_sub(1);
            register[lane] = (register[lane] & keep) | (values[lane] & !keep);
        }
    }

    #[inline(always)]
    pub(crate) fn set64(&mut self, d: u32, values: &Lanes64, mask: u32) {
        let register = &mut self.r64[d as usize];
        if mask == FULL {
            *register = *values;
            return;
        }
        for lane in 0..LANES {
            let keep = u64::from(mask >> lane & 1).wrapping_sub(1);
            register[lane] = (register[lane] & keep) | (values[lane] & !keep);
        }
    }

    #[inline(always)]
    pub(crate) fn set_predicate(&mut self, d: u32, bits: u32, mask: u32) {
        let register = &mut self.predicates[d as usize];
        *register = (*register & !mask) | (bits & mask);
    }

    /// A source of any class, zero-extended.
    pub(crate) fn place(&self, place: Place) -> Lanes64 {
        match place {
            Place::B16(at) | Place::B32(at) => self.r32[at as usize].map(u64::from),
            Place::B64(at) => self.r64[at as usize],
            Place::Constant(bits) => [bits; LANES],
        }
    }

    /// Writes a destination of any class; bits that it does not have are dropped.
    pub(crate) fn set_place(&mut self, place: Place, values: &Lanes64, mask: u32) {
        match place {
            Place::B16(at) => self.set(at, &values.map(|x| x as u32 & 0xffff), mask),
            Place::B32(at) => self.set(at, &values.map(|x| x as u32), mask),
            Place::B64(at) => self.set64(at, values, mask),
            Place::Constant(_) => {}
        }
    }

    /// The group that runs next: that of the lowest instruction among those that do not wait.
    pub(crate) fn next_group(&self) -> Option<usize> {
        let ready = (0..self.groups.len()).filter(|&i| !self.groups[i].waits);
        ready.min_by_key(|&i| self.groups[i].pc)
    }

    /// Joins groups that have come to the same instruction.
    pub(crate) fn merge(&mut self) {
        let mut i = 0;
        while i < self.groups.len() {
            let mut j = i + 1;
            while j < self.groups.len() {
                if self.groups[i].pc == self.groups[j].pc {
                    self.groups[i].mask |= self.groups[j].mask;
                    // There are more lanes now than when it began to wait.
                    self.groups[i].waits = false;
                    self.groups.swap_remove(j);
                } else {
                    j += 1;
                }
            }
            i += 1;
        }
    }

    /// Lanes that have not exited.
    pub(crate) fn living(&self) -> u32 {
        self.groups.iter().fold(0, |all, group| all | group.mask)
    }
}
