//! Registers of a warp, and loops over its lanes.

use crate::isa::{Kernel, Reg};

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;
/// All lanes.
pub(crate) const FULL: u32 = u32::MAX;

/// A 32-bit register of every lane.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Words(pub(crate) [u32; LANES]);

/// A 64-bit register of every lane.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Longs(pub(crate) [u64; LANES]);

/// The registers of a warp; predicates and the carry are masks of lanes.
#[derive(Debug)]
pub(crate) struct Regs {
    pub(crate) words: Vec<Words>,
    pub(crate) longs: Vec<Longs>,
    pub(crate) preds: Vec<u32>,
    pub(crate) carry: u32,
}

impl Regs {
    /// Registers for a kernel, with its constants in place and everything else zero.
    pub(crate) fn new(kernel: &Kernel) -> Self {
        let mut regs = Self {
            words: vec![Words([0; LANES]); kernel.n32],
            longs: vec![Longs([0; LANES]); kernel.n64],
            preds: vec![0; kernel.n_pred],
            carry: 0,
        };
        for &(reg, value) in &kernel.const32 {
            regs.words[reg as usize].0 = [value; LANES];
        }
        for &(reg, value) in &kernel.const64 {
            regs.longs[reg as usize].0 = [value; LANES];
        }
        regs
    }

    pub(crate) fn word(&self, reg: Reg) -> &[u32; LANES] {
        &self.words[reg as usize].0
    }

    pub(crate) fn word_mut(&mut self, reg: Reg) -> &mut [u32; LANES] {
        &mut self.words[reg as usize].0
    }

    pub(crate) fn long(&self, reg: Reg) -> &[u64; LANES] {
        &self.longs[reg as usize].0
    }

    pub(crate) fn long_mut(&mut self, reg: Reg) -> &mut [u64; LANES] {
        &mut self.longs[reg as usize].0
    }

    /// Sets a predicate where `mask` says, to the bits of `value`.
    pub(crate) fn set_pred(&mut self, reg: Reg, value: u32, mask: u32) {
        let p = &mut self.preds[reg as usize];
        *p = (*p & !mask) | (value & mask);
    }

    /// Stores a whole result where `mask` says.
    #[inline(always)]
    pub(crate) fn put_words(&mut self, reg: Reg, value: &[u32; LANES], mask: u32) {
        let d = self.word_mut(reg);
        if mask == FULL {
            *d = *value;
        } else {
            for lane in 0..LANES {
                let keep = 0_u32.wrapping_sub(mask >> lane & 1);
                d[lane] = (value[lane] & keep) | (d[lane] & !keep);
            }
        }
    }

    /// As [`Self::put_words`], of 64 bits.
    #[inline(always)]
    pub(crate) fn put_longs(&mut self, reg: Reg, value: &[u64; LANES], mask: u32) {
        let d = self.long_mut(reg);
        if mask == FULL {
            *d = *value;
        } else {
            for lane in 0..LANES {
                let keep = 0_u64.wrapping_sub(u64::from(mask >> lane & 1));
                d[lane] = (value[lane] & keep) | (d[lane] & !keep);
            }
        }
    }

    #[inline(always)]
    pub(crate) fn map1(&mut self, d: Reg, a: Reg, mask: u32, f: impl Fn(u32) -> u32) {
        self.map3([d, a, a, a], mask, |x, _, _| f(x));
    }

    #[inline(always)]
    pub(crate) fn map2(&mut self, [d, a, b]: [Reg; 3], mask: u32, f: impl Fn(u32, u32) -> u32) {
        self.map3([d, a, b, b], mask, |x, y, _| f(x, y));
    }

    /// Applies `f` lane by lane. The result may be one of the operands: lanes go in parts that are read
    /// before they are written, which the compiler keeps in vector registers.
    #[inline(always)]
    pub(crate) fn map3(
        &mut self,
        [d, a, b, c]: [Reg; 4],
        mask: u32,
        f: impl Fn(u32, u32, u32) -> u32,
    ) {
        for start in (0..LANES).step_by(PART) {
            let x: [u32; PART] = part(&self.words[a as usize].0, start);
            let y: [u32; PART] = part(&self.words[b as usize].0, start);
            let z: [u32; PART] = part(&self.words[c as usize].0, start);
            let mut value = [0; PART];
            for i in 0..PART {
                value[i] = f(x[i], y[i], z[i]);
            }
            if mask != FULL {
                let old: [u32; PART] = part(&self.words[d as usize].0, start);
                for i in 0..PART {
                    let keep = 0_u32.wrapping_sub(mask >> (start + i) & 1);
                    value[i] = (value[i] & keep) | (old[i] & !keep);
                }
            }
            self.words[d as usize].0[start..start + PART].copy_from_slice(&value);
        }
    }

    #[inline(always)]
    pub(crate) fn map1_long(&mut self, d: Reg, a: Reg, mask: u32, f: impl Fn(u64) -> u64) {
        self.map3_long([d, a, a, a], mask, |x, _, _| f(x));
    }

    #[inline(always)]
    pub(crate) fn map2_long(
        &mut self,
        [d, a, b]: [Reg; 3],
        mask: u32,
        f: impl Fn(u64, u64) -> u64,
    ) {
        self.map3_long([d, a, b, b], mask, |x, y, _| f(x, y));
    }

    /// As [`Self::map3`], of 64 bits.
    #[inline(always)]
    pub(crate) fn map3_long(
        &mut self,
        [d, a, b, c]: [Reg; 4],
        mask: u32,
        f: impl Fn(u64, u64, u64) -> u64,
    ) {
        for start in (0..LANES).step_by(PART) {
            let x: [u64; PART] = part(&self.longs[a as usize].0, start);
            let y: [u64; PART] = part(&self.longs[b as usize].0, start);
            let z: [u64; PART] = part(&self.longs[c as usize].0, start);
            let mut value = [0; PART];
            for i in 0..PART {
                value[i] = f(x[i], y[i], z[i]);
            }
            if mask != FULL {
                let old: [u64; PART] = part(&self.longs[d as usize].0, start);
                for i in 0..PART {
                    let keep = 0_u64.wrapping_sub(u64::from(mask >> (start + i) & 1));
                    value[i] = (value[i] & keep) | (old[i] & !keep);
                }
            }
            self.longs[d as usize].0[start..start + PART].copy_from_slice(&value);
        }
    }
}

/// Lanes that are read together.
const PART: usize = 8;

#[inline(always)]
fn part<T: Copy>(lanes: &[T; LANES], start: usize) -> [T; PART] {
    std::array::from_fn(|i| lanes[start + i])
}

/// Whether the processor has what the wide versions of the lane loops need.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn wide_lanes() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("bmi2")
}

/// Defines a function twice, for the plain instruction set and for AVX2 with FMA, and picks at run time.
/// `$inner` is marked `#[inline(always)]`.
macro_rules! wide {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)? = $inner:ident) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $ty),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
                fn wide($($arg: $ty),*) $(-> $out)? {
                    $inner($($arg),*)
                }
                if $crate::exec::regs::wide_lanes() {
                    // SAFETY: `wide_lanes` has found AVX2, FMA and BMI2; every such processor has the others.
                    return unsafe { wide($($arg),*) };
                }
            }
            $inner($($arg),*)
        }
    };
}
pub(crate) use wide;
