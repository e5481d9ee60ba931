//! Whether the processor itself executes AMX instructions.
#![expect(
    unsafe_code,
    reason = "a feature register and a system call; see the SAFETY comments"
)]

use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

/// Tiles, bf16 and int8, enabled by the system and granted to this process.
pub(crate) fn has_amx() -> bool {
    cpu_has_amx() && system_saves_tiles() && ask_for_tiles()
}

fn cpu_has_amx() -> bool {
    const BF16_TILE_INT8: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & BF16_TILE_INT8 == BF16_TILE_INT8
}

fn system_saves_tiles() -> bool {
    let os_saves = __cpuid(1).ecx >> 27 & 1 == 1;
    // SAFETY: xgetbv exists when OSXSAVE is set, which is checked first.
    os_saves && unsafe { xcr0() } >> 17 & 3 == 3
}

#[target_feature(enable = "xsave")]
fn xcr0() -> u64 {
    // SAFETY: the caller has checked OSXSAVE.
    unsafe { _xgetbv(0) }
}

fn ask_for_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XTILEDATA: libc::c_long = 18;
    // SAFETY: this call only changes a permission of this process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0 }
}
