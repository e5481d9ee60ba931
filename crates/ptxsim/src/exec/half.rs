//! Numbers of 16 bits: `f16` and `bf16`.

use super::float::exp2;
use super::regs::{LANES, Regs, wide};
use crate::isa::{Half, Reg, Round};

/// `bf16` to `f32`, exactly.
#[inline(always)]
pub(crate) fn from_bf16(bits: u32) -> f32 {
    f32::from_bits(bits << 16)
}

/// `f32` to `bf16`, to the nearest, ties to even.
#[inline(always)]
pub(crate) fn to_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { 0x7fff } else { rounded }
}

/// `f16` to `f32`, exactly.
#[inline(always)]
pub(crate) fn from_f16(bits: u32) -> f32 {
    let sign = (bits & 0x8000) << 16;
    let magnitude = bits & 0x7fff;
    // Scaling by 2^112 moves the exponent's bias, and makes subnormal numbers normal.
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    let special = f32::from_bits(magnitude << 13 | 0x7f80_0000);
    let value = if magnitude >= 0x7c00 { special } else { scaled };
    f32::from_bits(value.to_bits() | sign)
}

/// A number to one with `fraction` bits of fraction and the least exponent `min_exp`, as bits.
/// `max_exp` is the greatest exponent; both are unbiased.
fn round_to(x: f64, fraction: u32, min_exp: i32, max_exp: i32, round: Round) -> u32 {
    let exponent_bits = 15 - fraction;
    let sign = if x.is_sign_negative() { 0x8000 } else { 0 };
    let infinity = ((1 << exponent_bits) - 1) << fraction;
    if x.is_nan() {
        return 0x7fff;
    }
    let magnitude = x.abs();
    if magnitude.is_infinite() {
        return sign | infinity;
    }
    if magnitude == 0.0 {
        return sign;
    }
    let raw = i32::try_from(magnitude.to_bits() >> 52).unwrap_or(0) - 1023;
    let exponent = raw.max(min_exp);
    // In units of the last place; a power of two, so the scaling is exact.
    let step = exponent - fraction.cast_signed();
    let units = magnitude * 2.0_f64.powi(-step);
    let whole = match round {
        Round::Nearest => units.round_ties_even(),
        Round::Away => units.round(),
        Round::Zero => units.floor(),
        Round::Down => {
            if sign == 0 {
                units.floor()
            } else {
                units.ceil()
            }
        }
        Round::Up => {
            if sign == 0 {
                units.ceil()
            } else {
                units.floor()
            }
        }
    };
    let significand = whole as u32;
    let biased = (exponent - min_exp + 1).cast_unsigned();
    let hidden = 1 << fraction;
    // A carry out of the fraction moves into the exponent by itself.
    let bits = if significand >= hidden {
        (biased << fraction) + (significand - hidden)
    } else {
        significand
    };
    if bits >= infinity || exponent > max_exp {
        let stays = match round {
            Round::Zero => true,
            Round::Down => sign == 0,
            Round::Up => sign != 0,
            _ => false,
        };
        return sign | if stays { infinity - 1 } else { infinity };
    }
    sign | bits
}

/// To `f16`, rounded once.
pub(crate) fn f16_of(x: f64, round: Round) -> u32 {
    round_to(x, 10, -14, 15, round)
}

/// To `bf16`, rounded once.
pub(crate) fn bf16_of(x: f64, round: Round) -> u32 {
    round_to(x, 7, -126, 127, round)
}

fn one(f: Half, bf16: bool, a: u32, b: u32, c: u32) -> u32 {
    match f {
        Half::Neg => return a ^ 0x8000,
        Half::Abs => return a & 0x7fff,
        _ => {}
    }
    let wide = |bits: u32| {
        f64::from(if bf16 {
            from_bf16(bits)
        } else {
            from_f16(bits)
        })
    };
    let (x, y, z) = (wide(a), wide(b), wide(c));
    // Minus zero is less than plus zero.
    let less = x < y || (x <= y && x.is_sign_negative());
    let value = match f {
        Half::Add => x + y,
        Half::Sub => x - y,
        Half::Mul => x * y,
        Half::Fma => x.mul_add(y, z),
        Half::FmaRelu => {
            let value = x.mul_add(y, z);
            if value < 0.0 { 0.0 } else { value }
        }
        Half::MinNan | Half::MaxNan if x.is_nan() || y.is_nan() => f64::NAN,
        Half::Min | Half::MinNan => {
            if less || y.is_nan() {
                x
            } else {
                y
            }
        }
        Half::Max | Half::MaxNan => {
            if (!less && !x.is_nan()) || y.is_nan() {
                x
            } else {
                y
            }
        }
        Half::Ex2 => f64::from(exp2(x as f32)),
        _ => x.tanh(),
    };
    if bf16 {
        bf16_of(value, Round::Nearest)
    } else {
        f16_of(value, Round::Nearest)
    }
}

/// Arithmetic on one or two packed numbers.
pub(crate) fn half(regs: &mut Regs, f: Half, bf16: bool, packed: bool, r: [Reg; 4], mask: u32) {
    if packed {
        regs.map3(r, mask, |a, b, c| {
            let low = one(f, bf16, a & 0xffff, b & 0xffff, c & 0xffff);
            low | one(f, bf16, a >> 16, b >> 16, c >> 16) << 16
        });
    } else {
        regs.map3(r, mask, |a, b, c| {
            one(f, bf16, a & 0xffff, b & 0xffff, c & 0xffff)
        });
    }
}

wide! {
    /// Two `f32` to packed `bf16`, to the nearest; `a` is the upper one.
    fn pack_bf16(regs: &mut Regs, r: [Reg; 3], mask: u32) = pack_bf16_inner
}

#[inline(always)]
fn pack_bf16_inner(regs: &mut Regs, r: [Reg; 3], mask: u32) {
    regs.map2(r, mask, |a, b| {
        to_bf16(f32::from_bits(a)) << 16 | to_bf16(f32::from_bits(b))
    });
}

/// Two `f32` to packed 16-bit numbers of either kind; `a` is the upper one.
pub(crate) fn pack(regs: &mut Regs, bf16: bool, round: Round, relu: bool, r: [Reg; 3], mask: u32) {
    if bf16 && round == Round::Nearest && !relu {
        return pack_bf16(regs, r, mask);
    }
    let convert = |bits: u32| {
        let x = f64::from(f32::from_bits(bits));
        let x = if relu && x < 0.0 { 0.0 } else { x };
        if bf16 {
            bf16_of(x, round)
        } else {
            f16_of(x, round)
        }
    };
    let [d, a, b] = r;
    let (a, b) = (*regs.word(a), *regs.word(b));
    let value: [u32; LANES] = std::array::from_fn(|lane| convert(a[lane]) << 16 | convert(b[lane]));
    regs.put_words(d, &value, mask);
}

#[cfg(test)]
mod tests;
