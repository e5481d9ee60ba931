//! A block of threads: its warps take turns, and meet at barriers.

use crate::exec;
use crate::inst::{Kernel, Module, Step};
use crate::memory::{Fault, Global};
use crate::shared::{Accessor, Shared};
use crate::stats::Stats;
use crate::warp::{State, Warp};

/// What all blocks of a launch share.
#[derive(Debug)]
pub(crate) struct Grid<'a> {
    pub(crate) module: &'a Module,
    pub(crate) kernel: &'a Kernel,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) dynamic_bytes: u32,
    pub(crate) parameters: Vec<u8>,
    pub(crate) global: Global,
    /// Check mode.
    pub(crate) checked: bool,
    /// Whether conflicts and sectors are counted.
    pub(crate) counts: bool,
    /// Shuffles the order of warps.
    pub(crate) seed: u64,
}

/// One block, as it runs.
#[derive(Debug)]
pub(crate) struct Block<'a> {
    pub(crate) grid: &'a Grid<'a>,
    pub(crate) kernel: &'a Kernel,
    pub(crate) global: Global,
    pub(crate) ctaid: [u32; 3],
    pub(crate) shared: Shared,
    pub(crate) checked: bool,
    pub(crate) counts: bool,
    /// Barriers that were passed.
    epoch: u32,
    pub(crate) stats: Stats,
}

impl<'a> Block<'a> {
    pub(crate) fn new(grid: &'a Grid<'a>) -> Self {
        let bytes = grid.kernel.shared_bytes as usize + grid.dynamic_bytes as usize;
        Self {
            grid,
            kernel: grid.kernel,
            global: grid.global,
            ctaid: [0; 3],
            shared: Shared::new(bytes, grid.checked),
            checked: grid.checked,
            counts: grid.counts,
            epoch: 0,
            stats: Stats::default(),
        }
    }

    /// Warps for [`Self::run`].
    pub(crate) fn warps(&self) -> Vec<Warp> {
        let threads: u32 = self.grid.block.iter().product();
        let warp = |index: u32| Warp::new(self.kernel, index, threads - 32 * index);
        (0..threads.div_ceil(32)).map(warp).collect()
    }

    /// Runs the block with the given index from its start to its end.
    pub(crate) fn run(&mut self, index: u64, warps: &mut [Warp]) -> Result<(), Fault> {
        let [x, y, _] = self.grid.grid.map(u64::from);
        self.ctaid = [index % x, index / x % y, index / (x * y)].map(|i| i as u32);
        self.epoch = 0;
        self.shared.reset();
        warps.iter_mut().for_each(Warp::reset);
        let mut order: Vec<usize> = (0..warps.len()).collect();
        shuffle(&mut order, self.grid.seed ^ index);
        loop {
            for &i in &order {
                if warps[i].state == State::Ready {
                    run_warp(self, &mut warps[i])?;
                }
            }
            if warps.iter().all(|warp| warp.state == State::Done) {
                return Ok(());
            }
            self.pass_barriers(warps)?;
        }
    }

    /// Lets warps go on whose barrier is complete.
    fn pass_barriers(&mut self, warps: &mut [Warp]) -> Result<(), Fault> {
        let barriers = warps.iter().filter_map(|warp| match warp.state {
            State::AtBarrier(id, threads) => Some((id, threads)),
            _ => None,
        });
        let mut barriers: Vec<(u32, Option<u32>)> = barriers.collect();
        barriers.sort_unstable();
        barriers.dedup();
        let mut passed = false;
        for (id, threads) in barriers {
            let at = |warp: &Warp| matches!(warp.state, State::AtBarrier(at, _) if at == id);
            let arrived = warps.iter().filter(|warp| at(warp)).count() as u32;
            let living = warps
                .iter()
                .filter(|warp| warp.state != State::Done)
                .count() as u32;
            let needed = threads.map_or(living, |threads| threads.div_ceil(32));
            if self.checked && threads.is_none() && living != warps.len() as u32 {
                let text = format!("barrier {id} after some warps of the block have exited");
                return Err(self.somewhere(Fault::Launch(text)));
            }
            if arrived >= needed {
                for warp in warps.iter_mut().filter(|warp| at(warp)) {
                    warp.state = State::Ready;
                }
                passed = true;
            }
        }
        self.epoch += 1;
        match passed {
            true => Ok(()),
            false => Err(self.somewhere(Fault::Launch(
                "deadlock: warps wait at different barriers".to_owned(),
            ))),
        }
    }

    pub(crate) fn accessor(&self, warp: &Warp) -> Accessor {
        Accessor {
            warp: warp.index as u16,
            epoch: self.epoch,
        }
    }

    /// Lets all but the last `n` groups of asynchronous copies land.
    pub(crate) fn land(&mut self, warp: &mut Warp, n: usize) -> Result<(), Fault> {
        while warp.closed.len() > n {
            let group = warp.closed.pop_front().unwrap_or_default();
            let who = self.accessor(warp);
            for flight in group {
                let mut bytes = [0; 16];
                if flight.source_bytes > 0 {
                    let from = self.global.at(flight.global, flight.source_bytes, false)?;
                    // SAFETY: `at` has checked so many bytes, at most 16.
                    unsafe {
                        from.copy_to_nonoverlapping(
                            bytes.as_mut_ptr(),
                            flight.source_bytes as usize,
                        );
                    }
                }
                self.shared
                    .land(flight.shared, &bytes[..flight.bytes as usize], who);
            }
        }
        Ok(())
    }

    /// At the end of a warp, everything lands.
    pub(crate) fn land_all(&mut self, warp: &mut Warp) -> Result<(), Fault> {
        let open = std::mem::take(&mut warp.open);
        warp.closed.push_back(open);
        self.land(warp, 0)
    }

    fn somewhere(&self, fault: Fault) -> Fault {
        let [x, y, z] = self.ctaid;
        fault.at(&format!("{} in block ({x}, {y}, {z})", self.kernel.name))
    }

    /// A fault with its kernel, line, block and thread.
    pub(crate) fn located(&self, fault: Fault, step: &Step, warp: &Warp, active: u32) -> Fault {
        let file = step.source.and_then(|(file, line)| {
            let (_, name) = self
                .grid
                .module
                .files
                .iter()
                .find(|(number, _)| *number == file)?;
            Some(format!("{name}:{line}, "))
        });
        let first = active.trailing_zeros();
        self.somewhere(fault.at(&format!(
            "{}PTX line {}, warp {}, lanes {active:#010x} (thread {})",
            file.unwrap_or_default(),
            step.line,
            warp.index,
            warp.index * 32 + first
        )))
    }
}

/// A permutation that depends on the seed; as it is for seed and index 0.
fn shuffle(order: &mut [usize], seed: u64) {
    let mut state = seed;
    for i in (1..order.len()).rev() {
        if seed == 0 {
            return;
        }
        // Knuth's multiplier; the upper bits are the good ones.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        order.swap(i, ((state >> 33) % (i as u64 + 1)) as usize);
    }
}

/// The interpreter as it is compiled for the machine's vectors.
fn run_warp(block: &mut Block<'_>, warp: &mut Warp) -> Result<(), Fault> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the processor has these instructions.
        return unsafe { run_warp_avx2(block, warp) };
    }
    exec::run(block, warp)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,f16c,lzcnt,popcnt")]
fn run_warp_avx2(block: &mut Block<'_>, warp: &mut Warp) -> Result<(), Fault> {
    exec::run(block, warp)
}
