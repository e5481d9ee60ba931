//! AMX in software, so that AMX kernels are tested on machines that lack it. A dev-dependency only.
//!
//! A processor without AMX raises an invalid-opcode fault on its instructions, which Linux delivers
//! as `SIGILL`. [`emulate`] installs a handler that executes the instruction on tile registers in
//! software, one set per thread, and goes on behind it. The code under test is the machine code
//! that ships: neither it nor its callers can tell, but for the time, up to ten microseconds per
//! instruction.
//!
//! It knows AMX-TILE (`LDTILECFG`, `STTILECFG`, `TILELOADD`, `TILELOADDT1`, `TILESTORED`,
//! `TILEZERO`, `TILERELEASE`), AMX-BF16 (`TDPBF16PS`) and AMX-INT8 (`TDPBSSD`, `TDPBSUD`,
//! `TDPBUSD`, `TDPBUUD`), with palette 1: eight tiles of 16 rows of 64 bytes.
//! What these do is written from Intel's manual (volume 2, and "Intel AMX" in volume 1), bit for
//! bit but for the payload of a NaN.
//! A thread begins without a configuration here; on a processor with AMX, Linux hands it that of the
//! thread that made it.
//!
//! Anything else that is illegal kills the process as before, and so does an AMX instruction that
//! the real processor would refuse: a wrong configuration, say, or tiles whose shapes do not fit.
//!
//! ```
//! match amxsim::emulate() {
//!     amxsim::Amx::Missing => println!("skipped: no AMX, and none can be emulated here"),
//!     _ => { /* AMX instructions work from here on, in every thread. */ }
//! }
//! ```

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod decode;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod dot;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod native;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod signal;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tiles;

use std::sync::OnceLock;

/// How AMX instructions are executed in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amx {
    /// By the processor; nothing was installed.
    Native,
    /// By this crate.
    Emulated,
    /// Not at all: the system is not x86-64 Linux.
    Missing,
}

/// Makes AMX instructions work in every thread of this process, now and later.
///
/// The first call asks Linux for the tiles of the processor or, without those, installs the
/// handler of `SIGILL`; later calls only say what the first one found.
/// A handler of `SIGILL` that is installed afterward replaces this one.
pub fn emulate() -> Amx {
    static AMX: OnceLock<Amx> = OnceLock::new();
    *AMX.get_or_init(start)
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn start() -> Amx {
    if native::has_amx() {
        Amx::Native
    } else if signal::install() {
        Amx::Emulated
    } else {
        Amx::Missing
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn start() -> Amx {
    Amx::Missing
}
