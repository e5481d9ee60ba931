//! Conversions between types.

use super::float::round_to_single;
use super::half::{bf16_of, f16_of, from_bf16, from_f16, to_bf16};
use super::regs::{LANES, Regs, wide};
use crate::isa::{Reg, Round, Ty};

/// How a conversion rounds and clamps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mode {
    pub(crate) round: Round,
    /// Rounds to a whole number, between floating-point types.
    pub(crate) integer: bool,
    pub(crate) sat: bool,
    pub(crate) relu: bool,
}

wide! {
    /// `cvt`: one conversion.
    fn convert(regs: &mut Regs, from: Ty, to: Ty, mode: Mode, d: Reg, a: Reg, mask: u32) = convert_inner
}

#[inline(always)]
fn convert_inner(regs: &mut Regs, from: Ty, to: Ty, mode: Mode, d: Reg, a: Reg, mask: u32) {
    let plain = !mode.sat && !mode.relu && !mode.integer;
    match (from, to) {
        (Ty::Bf16, Ty::F32) if plain => regs.map1(d, a, mask, |x| x << 16),
        (Ty::F16, Ty::F32) if plain => regs.map1(d, a, mask, |x| from_f16(x & 0xffff).to_bits()),
        (Ty::F32, Ty::Bf16) if plain && mode.round == Round::Nearest => {
            regs.map1(d, a, mask, |x| to_bf16(f32::from_bits(x)));
        }
        (Ty::S32, Ty::F32) if plain && mode.round == Round::Nearest => {
            regs.map1(d, a, mask, |x| (x.cast_signed() as f32).to_bits());
        }
        (Ty::U32, Ty::F32) if plain && mode.round == Round::Nearest => {
            regs.map1(d, a, mask, |x| (x as f32).to_bits());
        }
        (Ty::F32, Ty::S32) if !mode.sat && mode.round == Round::Zero => {
            regs.map1(d, a, mask, |x| (f32::from_bits(x) as i32).cast_unsigned());
        }
        (Ty::U32, Ty::U64 | Ty::S64) if plain => widen(regs, d, a, mask, u64::from),
        (Ty::S32, Ty::S64 | Ty::U64) if plain => {
            widen(regs, d, a, mask, |x| {
                i64::from(x.cast_signed()).cast_unsigned()
            });
        }
        (Ty::U64 | Ty::S64, Ty::U32 | Ty::S32) if plain => {
            let a = *regs.long(a);
            let mut value = [0; LANES];
            for lane in 0..LANES {
                value[lane] = a[lane] as u32;
            }
            regs.put_words(d, &value, mask);
        }
        _ => slow(regs, from, to, mode, d, a, mask),
    }
}

#[inline(always)]
fn widen(regs: &mut Regs, d: Reg, a: Reg, mask: u32, f: impl Fn(u32) -> u64) {
    let a = *regs.word(a);
    let mut value = [0; LANES];
    for lane in 0..LANES {
        value[lane] = f(a[lane]);
    }
    regs.put_longs(d, &value, mask);
}

#[inline(never)]
fn slow(regs: &mut Regs, from: Ty, to: Ty, mode: Mode, d: Reg, a: Reg, mask: u32) {
    let source: [u64; LANES] = if from.bytes() == 8 {
        *regs.long(a)
    } else {
        regs.word(a).map(u64::from)
    };
    let value = source.map(|x| one(x, from, to, mode));
    if to.bytes() == 8 {
        regs.put_longs(d, &value, mask);
    } else {
        regs.put_words(d, &value.map(|x| x as u32), mask);
    }
}

/// The least and greatest value of an integer type.
fn range(ty: Ty) -> (i128, i128) {
    let bits = ty.bytes() * 8;
    if ty.is_signed() {
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    } else {
        (0, (1 << bits) - 1)
    }
}

/// An integer of the type's width, as a number.
fn integer(x: u64, ty: Ty) -> i128 {
    let unused = 64 - 8 * u32::try_from(ty.bytes()).unwrap_or(8);
    if ty.is_signed() {
        i128::from((x << unused).cast_signed() >> unused)
    } else {
        i128::from(x << unused >> unused)
    }
}

fn to_whole(x: f64, round: Round) -> f64 {
    match round {
        Round::Nearest => x.round_ties_even(),
        Round::Zero => x.trunc(),
        Round::Down => x.floor(),
        Round::Up => x.ceil(),
        Round::Away => x.round(),
    }
}

/// An integer as an `f64` or `f32`, in a direction.
fn from_integer(value: i128, to: Ty, round: Round) -> u64 {
    match to {
        Ty::F64 => {
            let nearest = value as f64;
            let rest = value - nearest as i128;
            let moved = match round {
                Round::Down if rest < 0 => nearest.next_down(),
                Round::Up if rest > 0 => nearest.next_up(),
                Round::Zero if rest != 0 && (rest < 0) == (nearest > 0.0) => {
                    f64::from_bits(nearest.to_bits() - 1)
                }
                _ => nearest,
            };
            moved.to_bits()
        }
        Ty::F32 => {
            let nearest = value as f32;
            let rest = value - nearest as i128;
            let moved = match round {
                Round::Down if rest < 0 => nearest.next_down(),
                Round::Up if rest > 0 => nearest.next_up(),
                Round::Zero if rest != 0 && (rest < 0) == (nearest > 0.0) => {
                    f32::from_bits(nearest.to_bits() - 1)
                }
                _ => nearest,
            };
            u64::from(moved.to_bits())
        }
        // 16-bit numbers have so few places that an `f64` on the way is exact up to 2^53, and infinite far below.
        Ty::F16 => u64::from(f16_of(value as f64, round)),
        _ => u64::from(bf16_of(value as f64, round)),
    }
}

fn one(x: u64, from: Ty, to: Ty, mode: Mode) -> u64 {
    if !from.is_float() {
        let value = integer(x, from);
        if to.is_float() {
            return from_integer(value, to, mode.round);
        }
        let value = if mode.sat {
            let (low, high) = range(to);
            value.clamp(low, high)
        } else {
            value
        };
        return fit(value, to);
    }
    let value = match from {
        Ty::F64 => f64::from_bits(x),
        Ty::F32 => f64::from(f32::from_bits(x as u32)),
        Ty::F16 => f64::from(from_f16(x as u32 & 0xffff)),
        _ => f64::from(from_bf16(x as u32 & 0xffff)),
    };
    if !to.is_float() {
        let (low, high) = range(to);
        if value.is_nan() {
            // As the hardware does: 0, but the integer's sign bit for 64-bit targets.
            return if to.bytes() == 8 { 1 << 63 } else { 0 };
        }
        let whole = to_whole(value, mode.round);
        return fit((whole as i128).clamp(low, high), to);
    }
    let mut value = if mode.integer {
        to_whole(value, mode.round)
    } else {
        value
    };
    if mode.sat {
        value = if value > 0.0 { value.min(1.0) } else { 0.0 };
    }
    if mode.relu && value < 0.0 {
        value = 0.0;
    }
    match to {
        Ty::F64 => value.to_bits(),
        Ty::F32 => u64::from(round_to_single(value, mode.round)),
        Ty::F16 => u64::from(f16_of(value, mode.round)),
        _ => u64::from(bf16_of(value, mode.round)),
    }
}

/// The low bits of an integer, as a register holds them: 16-bit registers are zero-extended, and
/// bytes are extended by their sign to the width of the register.
fn fit(value: i128, to: Ty) -> u64 {
    match to {
        Ty::U8 => (value as u64) & 0xff,
        Ty::S8 => i64::from(value as i8).cast_unsigned() & 0xffff_ffff,
        Ty::U16 | Ty::S16 => (value as u64) & 0xffff,
        Ty::U32 | Ty::S32 => (value as u64) & 0xffff_ffff,
        _ => value as u64,
    }
}

#[cfg(test)]
mod tests;
