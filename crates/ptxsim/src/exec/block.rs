//! A block: its warps, its shared memory and its barriers.

use std::collections::BTreeMap;

use super::Launch;
use super::asynch::{Copies, Mbarrier};
use super::regs::{FULL, LANES, Regs};
use super::shadow::Shadow;
use super::step::finish_reduction;
use super::warp::{Fault, Group, LAUNCH_FAILED, Wait, Warp};
use crate::isa::{Kernel, NONE, Special};
use crate::memory::{Known, Memory};
use crate::stats::Stats;

/// Instructions that a warp runs before others get their turn.
const QUANTUM: u64 = 20_000;
/// Instructions after which a block counts as stuck.
const WATCHDOG: u64 = 1 << 34;
/// Turns without progress after which polling warps count as deadlocked.
const PATIENCE: u32 = 100_000;
/// `CUDA_ERROR_LAUNCH_TIMEOUT`.
const LAUNCH_TIMEOUT: i32 = 702;

/// What the instructions of a block see besides their warp.
pub(crate) struct Env<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) params: &'a [u8],
    pub(crate) memory: &'a Memory,
    pub(crate) known: Known,
    pub(crate) shared: Vec<u8>,
    pub(crate) shadow: Option<Shadow>,
    pub(crate) mbarriers: BTreeMap<u64, Mbarrier>,
    /// Threads that `bar.arrive` has counted, by barrier.
    arrivals: BTreeMap<u32, (u32, Vec<usize>)>,
    pub(crate) stats: Stats,
    pub(crate) stats_on: bool,
    pub(crate) clock: u64,
    /// Index of the instruction that runs.
    pub(crate) line: u32,
}

impl Env<'_> {
    /// Counts threads that arrive without waiting.
    pub(crate) fn arrive(&mut self, id: u32, threads: u32, warp: usize) {
        let (counted, warps) = self.arrivals.entry(id).or_default();
        *counted += threads;
        warps.push(warp);
    }
}

/// What is wrong, and where.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) fault: Fault,
    pub(crate) warp: usize,
    pub(crate) pc: u32,
}

/// The warps of a block and what they share; used for one block after another.
pub(crate) struct Block<'a> {
    pub(crate) env: Env<'a>,
    warps: Vec<Warp>,
    threads: u32,
    check: bool,
    seed: u64,
}

impl<'a> Block<'a> {
    pub(crate) fn new(launch: &'a Launch<'a>) -> Self {
        let kernel = launch.kernel;
        let [x, y, z] = launch.block;
        let threads = x * y * z;
        let n_warps = threads.div_ceil(32) as usize;
        let shared = shared_bytes(kernel, launch.dynamic);
        let warps = (0..n_warps)
            .map(|id| new_warp(launch, id, threads))
            .collect();
        let env = Env {
            kernel,
            params: launch.params,
            memory: launch.memory,
            known: Known::default(),
            shared: vec![0xff; shared],
            shadow: None,
            mbarriers: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            stats: Stats::default(),
            stats_on: launch.stats,
            clock: 0,
            line: 0,
        };
        Self {
            env,
            warps,
            threads,
            check: launch.check,
            seed: launch.seed,
        }
    }

    /// Runs one block to its end.
    pub(crate) fn run(&mut self, index: [u32; 3]) -> Result<(), Located> {
        self.reset(index);
        let mut order: Vec<usize> = (0..self.warps.len()).collect();
        let (mut spent, mut stuck) = (0_u64, 0);
        loop {
            if self.seed != 0 {
                self.shuffle(&mut order);
            }
            let before = self.env.stats.instructions;
            for &w in &order {
                let warp = &mut self.warps[w];
                if let Err(fault) = warp.run(&mut self.env, QUANTUM) {
                    // What follows from garbage is not the cause; a race that explains the garbage is.
                    if !fault.message.starts_with("race") {
                        self.unwritten()?;
                    }
                    return Err(Located {
                        fault,
                        warp: w,
                        pc: self.env.line,
                    });
                }
            }
            let ended = self.warps.iter().all(|warp| warp.groups.is_empty());
            if ended
                || self
                    .warps
                    .iter()
                    .any(|warp| warp.groups.iter().any(|g| g.wait != Wait::Nothing))
            {
                self.unwritten()?;
            }
            if ended {
                return Ok(());
            }
            let released = self.barriers()?;
            let ready = self
                .warps
                .iter()
                .any(|w| w.groups.iter().any(|g| g.wait == Wait::Nothing));
            if !released && !ready {
                return Err(self.deadlock());
            }
            let ran = self.env.stats.instructions - before;
            spent += ran;
            // Warps that only poll run few instructions in a turn.
            stuck = if released || ran > 64 * self.warps.len() as u64 {
                0
            } else {
                stuck + 1
            };
            if spent > WATCHDOG || stuck > PATIENCE {
                return Err(self.timeout());
            }
        }
    }

    fn unwritten(&mut self) -> Result<(), Located> {
        match self.env.shadow.as_mut().and_then(Shadow::take_unwritten) {
            Some((fault, warp, pc)) => Err(Located { fault, warp, pc }),
            None => Ok(()),
        }
    }

    fn reset(&mut self, index: [u32; 3]) {
        self.env.shared.fill(0xff);
        self.env.mbarriers.clear();
        self.env.arrivals.clear();
        if self.check {
            self.env.shadow = Some(Shadow::new(self.env.shared.len(), self.warps.len()));
        }
        for warp in &mut self.warps {
            warp.groups = vec![Group {
                pc: 0,
                mask: warp.threads,
                wait: Wait::Nothing,
            }];
            warp.copies.reset();
            warp.local.fill(0xff);
            for &(special, reg) in &self.env.kernel.specials {
                if let Special::Ctaid(axis) = special {
                    *warp.regs.word_mut(reg) = [index[usize::from(axis)]; LANES];
                }
            }
        }
        if self.seed != 0 {
            let [x, y, z] = index.map(u64::from);
            self.seed = self.seed.wrapping_add(x ^ y << 20 ^ z << 40) | 1;
        }
    }

    /// Fisher and Yates, with a multiplicative generator.
    fn shuffle(&mut self, order: &mut [usize]) {
        for i in (1..order.len()).rev() {
            self.seed = self
                .seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            order.swap(i, (self.seed >> 33) as usize % (i + 1));
        }
    }

    /// Releases every barrier that is complete; says whether one was.
    fn barriers(&mut self) -> Result<bool, Located> {
        let mut waiting: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        for warp in &self.warps {
            for group in &warp.groups {
                if let Wait::Barrier { id, count } = group.wait {
                    let entry = waiting.entry(id).or_insert((0, count));
                    entry.0 += group.mask.count_ones();
                    entry.1 = entry.1.max(count);
                }
            }
        }
        let alive: u32 = self
            .warps
            .iter()
            .map(|warp| warp.alive().count_ones())
            .sum();
        let mut any = false;
        for (id, (arrived, count)) in waiting {
            let counted = self.env.arrivals.get(&id).map_or(0, |entry| entry.0);
            // A barrier of a count is for whole warps: a last, partial one counts as whole.
            let partial = (32 - self.threads % 32) % 32;
            let needed = if count == 0 { alive } else { count };
            if arrived + counted >= needed
                || (count != 0 && partial != 0 && arrived + counted + partial >= needed)
            {
                self.release(id, count, alive)?;
                any = true;
            }
        }
        Ok(any)
    }

    fn release(&mut self, id: u32, count: u32, alive: u32) -> Result<(), Located> {
        if self.check {
            self.check_barrier(id, count, alive)?;
        }
        let mut met: Vec<usize> = self
            .env
            .arrivals
            .remove(&id)
            .map_or_else(Vec::new, |entry| entry.1);
        let (mut votes, mut threads) = (0, 0);
        for (w, warp) in self.warps.iter().enumerate() {
            for group in &warp.groups {
                if matches!(group.wait, Wait::Barrier { id: other, .. } if other == id) {
                    votes += (warp.votes & group.mask).count_ones();
                    threads += group.mask.count_ones();
                    met.push(w);
                }
            }
        }
        met.sort_unstable();
        met.dedup();
        for warp in &mut self.warps {
            for i in 0..warp.groups.len() {
                let group = warp.groups[i];
                if matches!(group.wait, Wait::Barrier { id: other, .. } if other == id) {
                    let op = &self.env.kernel.code[group.pc as usize].op;
                    finish_reduction(&mut warp.regs, op, votes, threads, group.mask);
                    warp.groups[i].pc += 1;
                    warp.groups[i].wait = Wait::Nothing;
                }
            }
        }
        if let Some(shadow) = &mut self.env.shadow {
            shadow.meet(&met);
        }
        self.env.stats.barriers += 1;
        Ok(())
    }

    /// In check mode: a barrier of a whole block takes all its threads, and a warp meets it as one.
    fn check_barrier(&self, id: u32, count: u32, alive: u32) -> Result<(), Located> {
        for (w, warp) in self.warps.iter().enumerate() {
            let mut here = warp
                .groups
                .iter()
                .filter(|g| matches!(g.wait, Wait::Barrier { id: other, .. } if other == id));
            let Some(first) = here.next() else { continue };
            let lane = first.mask.trailing_zeros() as usize;
            if let Some(second) = here.next() {
                let message = format!(
                    "divergent barrier {id}: lanes {:#010x} and {:#010x} of warp {w} wait at different places",
                    first.mask, second.mask
                );
                return Err(Located {
                    fault: Fault {
                        code: LAUNCH_FAILED,
                        lane,
                        message,
                    },
                    warp: w,
                    pc: first.pc,
                });
            }
            if count == 0 && alive < self.threads {
                let message = format!(
                    "divergent barrier {id}: {} of {} threads had exited before it",
                    self.threads - alive,
                    self.threads
                );
                return Err(Located {
                    fault: Fault {
                        code: LAUNCH_FAILED,
                        lane,
                        message,
                    },
                    warp: w,
                    pc: first.pc,
                });
            }
        }
        Ok(())
    }

    fn deadlock(&self) -> Located {
        // A collective that waits for lanes explains more than the barriers that wait for it.
        let places = || {
            self.warps
                .iter()
                .enumerate()
                .flat_map(|(w, warp)| warp.groups.iter().map(move |g| (w, g)))
        };
        let found = places()
            .find(|(_, group)| matches!(group.wait, Wait::Lanes(_)))
            .or_else(|| places().next());
        let Some((w, group)) = found else {
            let fault = Fault {
                code: LAUNCH_FAILED,
                lane: 0,
                message: "deadlock".to_owned(),
            };
            return Located {
                fault,
                warp: 0,
                pc: 0,
            };
        };
        let lane = group.mask.trailing_zeros() as usize;
        let message = match group.wait {
            Wait::Lanes(wanted) => format!(
                "deadlock: a warp-wide instruction waits for lanes {wanted:#010x}, but only {:#010x} are here",
                group.mask
            ),
            Wait::Barrier { id, count } => format!(
                "deadlock: barrier {id} waits for {} threads that will not come",
                if count == 0 {
                    "all".to_owned()
                } else {
                    count.to_string()
                }
            ),
            Wait::Nothing => "deadlock".to_owned(),
        };
        Located {
            fault: Fault {
                code: LAUNCH_FAILED,
                lane,
                message,
            },
            warp: w,
            pc: group.pc,
        }
    }

    fn timeout(&self) -> Located {
        let first = self
            .warps
            .iter()
            .enumerate()
            .find_map(|(w, warp)| warp.groups.first().map(|g| (w, *g)));
        let (warp, pc, lane) = first.map_or((0, 0, 0), |(w, g)| {
            (w, g.pc, g.mask.trailing_zeros() as usize)
        });
        let message = "the block does not end: it polls, or loops forever".to_owned();
        Located {
            fault: Fault {
                code: LAUNCH_TIMEOUT,
                lane,
                message,
            },
            warp,
            pc,
        }
    }
}

/// Shared memory of a block: static, then dynamic.
pub(crate) fn shared_bytes(kernel: &Kernel, dynamic: usize) -> usize {
    if dynamic == 0 {
        kernel.static_shared
    } else {
        kernel.static_shared.next_multiple_of(16) + dynamic
    }
}

fn new_warp(launch: &Launch<'_>, id: usize, threads: u32) -> Warp {
    let kernel = launch.kernel;
    let mut regs = Regs::new(kernel);
    let first = id as u32 * 32;
    let mask = if threads - first >= 32 {
        FULL
    } else {
        (1 << (threads - first)) - 1
    };
    let [x, y, _] = launch.block;
    let n_warps = threads.div_ceil(32);
    for &(special, reg) in &kernel.specials {
        let value: [u32; LANES] = std::array::from_fn(|lane| {
            let (l, t) = (lane as u32, first + lane as u32);
            match special {
                Special::Tid(0) => t % x,
                Special::Tid(1) => t / x % y,
                Special::Tid(_) => t / x / y,
                Special::Ntid(axis) => launch.block[usize::from(axis)],
                Special::Nctaid(axis) => launch.grid[usize::from(axis)],
                Special::LaneId => l,
                Special::WarpId => id as u32,
                Special::NwarpId => n_warps,
                Special::LaneMaskEq => 1 << l,
                Special::LaneMaskLt => (1 << l) - 1,
                Special::LaneMaskLe => FULL >> (31 - l),
                Special::LaneMaskGt => !(FULL >> (31 - l)),
                Special::LaneMaskGe => !((1 << l) - 1),
                Special::DynamicSmem => launch.dynamic as u32,
                Special::TotalSmem => shared_bytes(kernel, launch.dynamic) as u32,
                Special::Ctaid(_) | Special::Zero => 0,
                Special::One => 1,
            }
        });
        if reg != NONE {
            *regs.word_mut(reg) = value;
        }
    }
    Warp {
        id,
        regs,
        groups: Vec::new(),
        threads: mask,
        local: vec![0; kernel.local_bytes * LANES],
        copies: Copies::default(),
        votes: 0,
    }
}

/// Where in the source an instruction is.
pub(crate) fn place(kernel: &Kernel, pc: u32) -> String {
    let Some(inst) = kernel.code.get(pc as usize) else {
        return String::new();
    };
    let (file, line) = inst.loc;
    let source = kernel
        .files
        .get(&file)
        .map_or(String::new(), |name| format!(", {name}:{line}"));
    format!("PTX line {}{source}", inst.line)
}
