//! A launch: the blocks of a grid, on all cores.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::block::{Block, Grid};
use crate::memory::Fault;
use crate::stats::Stats;

/// Runs all blocks; in check mode one after the other, so that what is found is the same each time.
///
/// # Errors
/// The first fault that a thread met.
pub(crate) fn run(grid: &Grid<'_>) -> Result<Stats, Fault> {
    let n_blocks = grid.grid.iter().map(|&n| u64::from(n)).product::<u64>();
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let threads = if grid.checked {
        1
    } else {
        cores.min(n_blocks).max(1)
    };
    let next = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let outcome = Mutex::new(Ok(Stats::default()));
    let work = || {
        let mut block = Block::new(grid);
        let mut warps = block.warps();
        let mut result = Ok(());
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= n_blocks {
                break;
            }
            result = block.run(index, &mut warps);
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
                break;
            }
        }
        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *outcome, result) {
            (Ok(stats), Ok(())) => *stats += block.stats,
            (Ok(_), Err(fault)) => *outcome = Err(fault),
            (Err(_), _) => {}
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcome.map(|stats| Stats {
        launches: 1,
        ..stats
    })
}
