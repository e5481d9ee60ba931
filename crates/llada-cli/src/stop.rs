//! Signals that end a command early, with what it has done so far.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result};
use signal_hook::consts;

/// Ctrl-C, the end of a session or of a job, and the two by which Slurm (`--signal=USR1@120`) says
/// that time is nearly over; `mpirun` hands the last two to all ranks at once and kills none.
#[cfg(unix)]
const SIGNALS: [i32; 5] = [
    consts::SIGINT,
    consts::SIGTERM,
    consts::SIGHUP,
    consts::SIGUSR1,
    consts::SIGUSR2,
];
#[cfg(not(unix))]
const SIGNALS: [i32; 2] = [consts::SIGINT, consts::SIGTERM];

/// Sets a flag at Ctrl-C, which does nothing else from now on.
pub(crate) fn on_interrupt(interrupt: &Arc<AtomicBool>) -> Result<()> {
    let registered = signal_hook::flag::register(consts::SIGINT, Arc::clone(interrupt));
    registered.context("catching Ctrl-C")?;
    Ok(())
}

/// A flag that is set by any of these signals, whose own effect is gone from now on.
pub(crate) fn on_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in SIGNALS {
        let registered = signal_hook::flag::register(signal, Arc::clone(&stop));
        registered.with_context(|| format!("catching signal {signal}"))?;
    }
    Ok(stop)
}
