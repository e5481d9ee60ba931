//! Instructions as functions, and what the tests share.
//!
//! Between two of these functions the compiler knows nothing of the tiles; it has no reason to
//! touch them.

use std::arch::asm;

/// Bytes of a tile in memory without gaps.
pub(crate) const TILE: usize = 1024;

/// Makes the instructions work, in whichever way.
pub(crate) fn start() {
    assert_ne!(amxsim::emulate(), amxsim::Amx::Missing);
}

/// A configuration of palette 1 with `(rows, bytes per row)` of the first tiles.
pub(crate) fn config(shapes: &[(usize, usize)]) -> [u8; 64] {
    let mut config = [0; 64];
    config[0] = 1;
    for (tile, &(rows, row_bytes)) in shapes.iter().enumerate() {
        config[16 + 2 * tile] = u8::try_from(row_bytes).expect("at most 64");
        config[48 + tile] = u8::try_from(rows).expect("at most 16");
    }
    config
}

/// Configures the tiles of this thread.
pub(crate) fn load_config(config: &[u8; 64]) {
    start();
    // SAFETY: AMX instructions work; the operand has 64 bytes.
    unsafe { asm!("ldtilecfg [{}]", in(reg) config, options(nostack)) };
}

pub(crate) fn store_config() -> [u8; 64] {
    let mut config = [0xaa; 64];
    // SAFETY: as above.
    unsafe { asm!("sttilecfg [{}]", in(reg) &mut config, options(nostack)) };
    config
}

pub(crate) fn release() {
    // SAFETY: no tile is live.
    unsafe { asm!("tilerelease", options(nostack)) };
}

/// `f` with each tile number as a literal.
macro_rules! for_tile {
    ($tile:expr, $before:literal, $after:literal, $($operand:tt)*) => {
        match $tile {
            0 => asm!(concat!($before, "tmm0", $after), $($operand)*),
            1 => asm!(concat!($before, "tmm1", $after), $($operand)*),
            2 => asm!(concat!($before, "tmm2", $after), $($operand)*),
            3 => asm!(concat!($before, "tmm3", $after), $($operand)*),
            4 => asm!(concat!($before, "tmm4", $after), $($operand)*),
            5 => asm!(concat!($before, "tmm5", $after), $($operand)*),
            6 => asm!(concat!($before, "tmm6", $after), $($operand)*),
            _ => asm!(concat!($before, "tmm7", $after), $($operand)*),
        }
    };
}

/// Loads a tile of rows without gaps of 64 bytes each.
pub(crate) fn load(tile: usize, from: &[u8; TILE]) {
    // SAFETY: a tile has at most 1024 bytes; rows are 64 bytes apart.
    unsafe {
        for_tile!(tile, "tileloadd ", ", [{p} + {s}]", p = in(reg) from, s = in(reg) 64usize,
            options(nostack));
    }
}

/// What a tile holds, with zeros outside of its shape.
pub(crate) fn store(tile: usize) -> [u8; TILE] {
    let mut to = [0; TILE];
    // SAFETY: as above.
    unsafe {
        for_tile!(tile, "tilestored [{p} + {s}], ", "", p = in(reg) &mut to, s = in(reg) 64usize,
            options(nostack));
    }
    to
}

pub(crate) fn zero(tile: usize) {
    // SAFETY: changes a tile only.
    unsafe {
        for_tile!(tile, "tilezero ", "", options(nostack));
    }
}

/// Reproducible bytes.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        // Steele, Lea and Flood 2014 (SplitMix64).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn tile(&mut self) -> [u8; TILE] {
        std::array::from_fn(|_| self.next().to_le_bytes()[3])
    }
}

/// The bytes inside of `rows` rows of `row_bytes`; others are zero.
pub(crate) fn inside(tile: &[u8; TILE], (rows, row_bytes): (usize, usize)) -> [u8; TILE] {
    std::array::from_fn(|at| {
        let is_inside = at / 64 < rows && at % 64 < row_bytes;
        if is_inside { tile[at] } else { 0 }
    })
}
