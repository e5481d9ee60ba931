//! AMX: the 32 x 32 block products on the panels of [`super::tiles`] and of [`super::int8`].

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::int8::Ahead;

/// Whether something else than the processor executes AMX instructions, see [`assume_amx`].
static ASSUMED: AtomicBool = AtomicBool::new(false);

/// See [`super::CpuLevel::assume_amx`].
///
/// # Safety
/// AMX instructions work in every thread of this process from now on.
pub(crate) unsafe fn assume_amx() {
    // Panels are packed by AVX512-BF16, which nothing emulates.
    ASSUMED.store(super::has_avx512_bf16(), Ordering::Relaxed);
}

/// Whether the processor has AMX bf16 and the system lets this process use it.
pub(crate) fn has_amx() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    if ASSUMED.load(Ordering::Relaxed) {
        return true;
    }
    *HAS.get_or_init(|| {
        super::has_avx512_bf16()
            && is_x86_feature_detected!("xsave")
            && cpu_has_tiles()
            && ask_kernel_for_tiles()
    })
}

fn cpu_has_tiles() -> bool {
    let leaf = __cpuid_count(7, 0);
    let (bf16, tile) = (leaf.edx >> 22 & 1 == 1, leaf.edx >> 24 & 1 == 1);
    let os_saves = __cpuid(1).ecx >> 27 & 1 == 1;
    // SAFETY: xgetbv exists when OSXSAVE is set, which is checked first.
    let enabled = || unsafe { xcr0() } >> 17 & 3 == 3;
    bf16 && tile && os_saves && enabled()
}

/// Whether AMX has products of bytes, where [`has_amx`] holds.
pub(crate) fn has_int8() -> bool {
    ASSUMED.load(Ordering::Relaxed) || __cpuid_count(7, 0).edx >> 25 & 1 == 1
}

#[target_feature(enable = "xsave")]
fn xcr0() -> u64 {
    // SAFETY: the caller has checked OSXSAVE.
    unsafe { _xgetbv(0) }
}

/// Linux hands out the tile state on request: `arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)`.
#[cfg(target_os = "linux")]
fn ask_kernel_for_tiles() -> bool {
    let mut result: i64 = 158;
    // SAFETY: system call 158 with these arguments only changes a permission of this process;
    // it clobbers rcx and r11 as every system call.
    unsafe {
        asm!("syscall", inout("rax") result, in("rdi") 0x1023, in("rsi") 18,
            out("rcx") _, out("r11") _, options(nostack));
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn ask_kernel_for_tiles() -> bool {
    false
}

/// Palette 1, all eight tiles with 16 rows of 64 bytes.
#[repr(C, align(64))]
struct TileConfig([u8; 64]);

const CONFIG: TileConfig = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = 16;
        tile += 1;
    }
    TileConfig(bytes)
};

/// `c (+)= a b` for a 32 x 32 block over `$steps` steps of 2 KiB a side, `$ldc` bytes between rows of
/// `c`: four accumulators, and each step loads two tiles of each side for four products.
/// Beside each step, `$ahead` bytes of what comes next are fetched into the second-level cache.
macro_rules! block {
    ($product:literal, [$a:expr, $b:expr, $steps:expr], $c:expr, $ldc:expr, $accumulate:expr, $ahead:expr) => {
        asm!(
            "test {acc}, {acc}",
            "jnz 2f",
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "jmp 3f",
            "2:",
            "tileloadd tmm0, [{c} + {ldc}]",
            "tileloadd tmm1, [{c} + {ldc} + 64]",
            "tileloadd tmm2, [{lower} + {ldc}]",
            "tileloadd tmm3, [{lower} + {ldc} + 64]",
            ".p2align 5",
            "3:",
            "tileloadd tmm6, [{b} + {row}]",
            "tileloadd tmm4, [{a} + {row}]",
            concat!($product, " tmm0, tmm4, tmm6"),
            "tileloadd tmm7, [{b} + {row} + 1024]",
            concat!($product, " tmm1, tmm4, tmm7"),
            "tileloadd tmm5, [{a} + {row} + 1024]",
            concat!($product, " tmm2, tmm5, tmm6"),
            concat!($product, " tmm3, tmm5, tmm7"),
            "mov {acc:e}, {units:e}",
            "jmp 5f",
            "4:",
            "prefetcht1 [{next}]",
            "prefetcht1 [{next} + 64]",
            "prefetcht1 [{next} + 128]",
            "prefetcht1 [{next} + 192]",
            "add {next}, 256",
            "5:",
            "dec {acc:e}",
            "jns 4b",
            "add {a}, 2048",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 3b",
            "tilestored [{c} + {ldc}], tmm0",
            "tilestored [{c} + {ldc} + 64], tmm1",
            "tilestored [{lower} + {ldc}], tmm2",
            "tilestored [{lower} + {ldc} + 64], tmm3",
            a = inout(reg) $a => _,
            b = inout(reg) $b => _,
            steps = inout(reg) $steps => _,
            next = inout(reg) $ahead.data => _,
            units = in(reg) $ahead.step_bytes / Ahead::UNIT,
            c = in(reg) $c,
            lower = in(reg) $c.byte_add(16 * $ldc),
            ldc = in(reg) $ldc,
            row = in(reg) 64usize,
            acc = inout(reg) usize::from($accumulate) => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// The tile registers of this thread, configured; released on drop.
#[derive(Debug)]
pub(crate) struct Tiles(());

impl Tiles {
    /// # Safety
    /// [`has_amx`] holds.
    pub(crate) unsafe fn configure() -> Self {
        // SAFETY: AMX is there; the configuration is 64 valid bytes.
        unsafe { asm!("ldtilecfg [{0}]", in(reg) CONFIG.0.as_ptr(), options(nostack)) };
        Self(())
    }

    /// `c (+)= a b` for a 32 x 32 block over `steps` steps of [`super::tiles`]; the last argument is
    /// whether `c` is added to, and what comes next.
    ///
    /// # Safety
    /// - `a` and `b` are readable for `steps * STEP_ELEMENTS` bf16.
    /// - `c` is readable and writable for 32 rows of 32 `f32` at a stride of `ldc` `f32`.
    #[inline]
    pub(crate) unsafe fn block(
        &self,
        [a, b]: [*const u16; 2],
        steps: usize,
        c: *mut f32,
        ldc: usize,
        (accumulate, ahead): (bool, Ahead),
    ) {
        debug_assert!(steps > 0, "the loop body runs before the count is tested");
        // SAFETY: the caller's promise covers every load and store; tiles are configured because
        // `self` exists, and none is live outside of this block.
        unsafe {
            block!("tdpbf16ps", [a, b, steps], c, 4 * ldc, accumulate, ahead);
        }
    }

    /// `c (+)= a b` for a 32 x 32 block of integers over `steps` steps of [`super::int8`].
    ///
    /// # Safety
    /// - `a` and `b` are readable for `steps * STEP_BYTES` bytes.
    /// - `c` is readable and writable for 32 rows of 32 `i32`.
    #[inline]
    pub(crate) unsafe fn block_int8(
        &self,
        a: *const u8,
        b: *const i8,
        steps: usize,
        c: *mut i32,
        (accumulate, ahead): (bool, Ahead),
    ) {
        debug_assert!(steps > 0, "the loop body runs before the count is tested");
        // SAFETY: as in `block`.
        unsafe {
            block!("tdpbusd", [a, b, steps], c, 128usize, accumulate, ahead);
        }
    }
}

/// Tiles of 16 rows by 16 columns over the `group` values of k of a group: sums in 0, the left side
/// (rows of `group` bytes) in 1, the right side (quads of 16 columns) in 2.
const fn group_config(group: u8) -> TileConfig {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let row_bytes = [64, group, 64];
    let rows = [16, 16, group / 4];
    let mut tile = 0;
    while tile < 3 {
        bytes[16 + 2 * tile] = row_bytes[tile];
        bytes[48 + tile] = rows[tile];
        tile += 1;
    }
    TileConfig(bytes)
}

const GROUP_CONFIGS: [TileConfig; 2] = [group_config(16), group_config(32)];

/// The integers of one group: `$product` of 16 rows and 16 columns.
macro_rules! group {
    ($product:literal, [$left:expr, $left_stride:expr], [$right:expr, $right_stride:expr], $sums:expr) => {
        asm!(
            "tilezero tmm0",
            "tileloadd tmm1, [{left} + {left_stride}]",
            "tileloadd tmm2, [{right} + {right_stride}]",
            concat!($product, " tmm0, tmm1, tmm2"),
            "tilestored [{sums} + {row}], tmm0",
            left = in(reg) $left,
            left_stride = in(reg) $left_stride,
            right = in(reg) $right,
            right_stride = in(reg) $right_stride,
            sums = in(reg) $sums,
            row = in(reg) 64usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _,
            options(nostack),
        )
    };
}

/// The tile registers of this thread, configured for groups of 16 or 32 values of k; released on drop.
#[derive(Debug)]
pub(crate) struct GroupTiles(());

impl GroupTiles {
    /// # Safety
    /// [`has_amx`] and [`has_int8`] hold.
    pub(crate) unsafe fn configure(group: usize) -> Self {
        let config = &GROUP_CONFIGS[usize::from(group == 32)];
        // SAFETY: AMX is there; the configuration is 64 valid bytes.
        unsafe { asm!("ldtilecfg [{0}]", in(reg) config.0.as_ptr(), options(nostack)) };
        Self(())
    }

    /// `sums = left right` over a group.
    ///
    /// # Safety
    /// Readable are 16 rows of the group's values at `left`, `left_stride` bytes apart, and at `right`
    /// its quads of 16 columns, `right_stride` bytes apart.
    #[inline(always)]
    pub(crate) unsafe fn group<const SIGNED: bool>(
        &self,
        (left, left_stride): (*const i8, usize),
        (right, right_stride): (*const u8, usize),
        sums: &mut [i32; 256],
    ) {
        let sums = sums.as_mut_ptr();
        // SAFETY: the caller's promise covers the loads; tiles are configured because `self` exists.
        unsafe {
            match SIGNED {
                true => group!("tdpbssd", [left, left_stride], [right, right_stride], sums),
                false => group!("tdpbsud", [left, left_stride], [right, right_stride], sums),
            }
        }
    }
}

impl Drop for GroupTiles {
    fn drop(&mut self) {
        // SAFETY: as for `Tiles`.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: tiles were configured on this thread by `configure`; the type is not `Send`
        // in use, as it lives inside one task.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}
