//! Runs a kernel: the blocks of a grid, in order or on several threads.

mod asynch;
mod atomic;
pub(crate) mod block;
mod collective;
mod convert;
mod float;
mod half;
mod int;
mod memory;
mod mma;
pub(crate) mod regs;
mod shadow;
mod step;
mod warp;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::isa::Kernel;
use crate::memory::Memory;
use crate::stats::Stats;

/// One launch.
pub(crate) struct Launch<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) params: &'a [u8],
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub(crate) dynamic: usize,
    pub(crate) memory: &'a Memory,
    pub(crate) check: bool,
    pub(crate) stats: bool,
    /// Shuffles the order of warps, unless 0.
    pub(crate) seed: u64,
    pub(crate) threads: usize,
}

/// Why a launch failed: the `CUresult`, and a text that names the place.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) code: i32,
    pub(crate) message: String,
}

/// Runs all blocks.
pub(crate) fn run(launch: &Launch<'_>) -> Result<Stats, Failure> {
    let [x, y, z] = launch.grid.map(u64::from);
    let total = x * y * z;
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let result = Mutex::new((
        Stats {
            launches: 1,
            ..Stats::default()
        },
        None::<(u64, Failure)>,
    ));
    let worker = || {
        let mut block = block::Block::new(launch);
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= total {
                break;
            }
            let index = [number % x, number / x % y, number / x / y].map(|i| i as u32);
            if let Err(located) = block.run(index) {
                stop.store(true, Ordering::Relaxed);
                let failure = report(launch, index, &located);
                if let Ok(mut result) = result.lock()
                    && result.1.as_ref().is_none_or(|(first, _)| number < *first)
                {
                    result.1 = Some((number, failure));
                }
            }
        }
        if let Ok(mut result) = result.lock() {
            result.0.add(&block.env.stats);
        }
    };
    // The order of blocks shows when they add floats atomically, or when something is being looked for.
    // Few threads of the device are not worth one of the host.
    let work = total * u64::from(launch.block.iter().product::<u32>());
    let alone = launch.check || launch.kernel.float_atomics || total < 2 || work < 1024;
    let threads = if alone {
        1
    } else {
        launch
            .threads
            .min(usize::try_from(total).unwrap_or(usize::MAX))
    };
    if threads < 2 {
        worker();
    } else {
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(worker);
            }
            worker();
        });
    }
    let (stats, failure) = result
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    match failure {
        Some((_, failure)) => Err(failure),
        None => Ok(stats),
    }
}

fn report(launch: &Launch<'_>, index: [u32; 3], located: &block::Located) -> Failure {
    let kernel = launch.kernel;
    let thread = located.warp * regs::LANES + located.fault.lane;
    let [x, y, _] = launch.block.map(|n| n as usize);
    let [bx, by, bz] = index;
    let message = format!(
        "kernel {}: {} ({}; block ({bx}, {by}, {bz}), thread ({}, {}, {}))",
        kernel.name,
        rename(kernel, &located.fault.message),
        block::place(kernel, located.pc),
        thread % x,
        thread / x % y,
        thread / x / y,
    );
    Failure {
        code: located.fault.code,
        message,
    }
}

/// Turns `(instruction 12)` in a message into its place in the source.
fn rename(kernel: &Kernel, message: &str) -> String {
    let Some((head, tail)) = message.split_once("(instruction ") else {
        return message.to_owned();
    };
    let Some((number, rest)) = tail.split_once(')') else {
        return message.to_owned();
    };
    match number.parse() {
        Ok(pc) => format!("{head}({}){rest}", block::place(kernel, pc)),
        Err(_) => message.to_owned(),
    }
}
