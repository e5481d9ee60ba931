//! Floating-point arithmetic of a warp, in `f32` and `f64`.

use super::regs::{LANES, Regs, wide};
use crate::isa::{Cmp, Float1, Float2, Reg, Round, Ty};

wide! {
    /// One operand of 32 bits.
    fn float1(regs: &mut Regs, f: Float1, d: Reg, a: Reg, mask: u32) = float1_inner
}
wide! {
    /// Two operands of 32 bits.
    fn float2(regs: &mut Regs, f: Float2, r: [Reg; 3], mask: u32) = float2_inner
}
wide! {
    /// `a * b + c`, rounded once.
    fn fma(regs: &mut Regs, r: [Reg; 4], mask: u32) = fma_inner
}
wide! {
    /// One operand of 64 bits.
    fn double1(regs: &mut Regs, f: Float1, d: Reg, a: Reg, mask: u32) = double1_inner
}
wide! {
    /// Two operands of 64 bits.
    fn double2(regs: &mut Regs, f: Float2, r: [Reg; 3], mask: u32) = double2_inner
}
wide! {
    /// `a * b + c` of 64 bits, rounded once.
    fn double_fma(regs: &mut Regs, r: [Reg; 4], mask: u32) = double_fma_inner
}
wide! {
    /// Lanes in which a comparison holds.
    fn compare(regs: &Regs, cmp: Cmp, ty: Ty, a: Reg, b: Reg) -> u32 = compare_inner
}

#[inline(always)]
fn lift1(f: impl Fn(f32) -> f32) -> impl Fn(u32) -> u32 {
    move |x| f(f32::from_bits(x)).to_bits()
}

#[inline(always)]
fn lift2(f: impl Fn(f32, f32) -> f32) -> impl Fn(u32, u32) -> u32 {
    move |x, y| f(f32::from_bits(x), f32::from_bits(y)).to_bits()
}

#[inline(always)]
fn lift1_long(f: impl Fn(f64) -> f64) -> impl Fn(u64) -> u64 {
    move |x| f(f64::from_bits(x)).to_bits()
}

#[inline(always)]
fn lift2_long(f: impl Fn(f64, f64) -> f64) -> impl Fn(u64, u64) -> u64 {
    move |x, y| f(f64::from_bits(x), f64::from_bits(y)).to_bits()
}

#[inline(always)]
fn float1_inner(regs: &mut Regs, f: Float1, d: Reg, a: Reg, m: u32) {
    match f {
        Float1::Neg => regs.map1(d, a, m, |x| x ^ 1 << 31),
        Float1::Abs => regs.map1(d, a, m, |x| x & !(1 << 31)),
        Float1::Sqrt => regs.map1(d, a, m, lift1(f32::sqrt)),
        Float1::Rcp => regs.map1(d, a, m, lift1(|x| 1.0 / x)),
        Float1::Rsqrt => regs.map1(d, a, m, lift1(|x| (1.0 / f64::from(x).sqrt()) as f32)),
        Float1::Ex2 => regs.map1(d, a, m, lift1(exp2)),
        Float1::Lg2 => regs.map1(d, a, m, lift1(f32::log2)),
        Float1::Sin => regs.map1(d, a, m, lift1(f32::sin)),
        Float1::Cos => regs.map1(d, a, m, lift1(f32::cos)),
        Float1::Tanh => regs.map1(d, a, m, lift1(f32::tanh)),
        Float1::Ftz => regs.map1(
            d,
            a,
            m,
            |x| if x & 0x7f80_0000 == 0 { x & 1 << 31 } else { x },
        ),
        Float1::Sat => regs.map1(d, a, m, lift1(|x| if x > 0.0 { x.min(1.0) } else { 0.0 })),
    }
}

/// `2^x` to about one unit in the last place, in a form that fits vector registers.
///
/// The fraction lies in [-0.5, 0.5], where the polynomial (Taylor's, to the seventh power) is off by
/// less than 2^-27. Two factors carry the exponent, so that subnormal results come out right.
#[inline(always)]
pub(crate) fn exp2(x: f32) -> f32 {
    const LN2: f32 = std::f32::consts::LN_2;
    const C: [f32; 7] = [
        LN2,
        LN2 * LN2 / 2.0,
        LN2 * LN2 * LN2 / 6.0,
        LN2 * LN2 * LN2 * LN2 / 24.0,
        LN2 * LN2 * LN2 * LN2 * LN2 / 120.0,
        LN2 * LN2 * LN2 * LN2 * LN2 * LN2 / 720.0,
        LN2 * LN2 * LN2 * LN2 * LN2 * LN2 * LN2 / 5040.0,
    ];
    // Adding 1.5 * 2^23 rounds to a whole number that sits in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-160.0, 160.0);
    let shifted = clamped + ROUND;
    let whole = shifted - ROUND;
    let fraction = clamped - whole;
    let mut p = C[6];
    for c in [C[5], C[4], C[3], C[2], C[1], C[0], 1.0] {
        p = p * fraction + c;
    }
    let exponent = (shifted.to_bits().cast_signed()).wrapping_sub(ROUND.to_bits().cast_signed());
    let half = exponent >> 1;
    let scale = |e: i32| f32::from_bits(((e + 127) << 23).cast_unsigned());
    let result = p * scale(half) * scale(exponent - half);
    if x.is_nan() { x } else { result }
}

#[inline(always)]
fn min_nan(x: f32, y: f32) -> f32 {
    if x.is_nan() || y.is_nan() {
        f32::from_bits(0x7fff_ffff)
    } else {
        min(x, y)
    }
}

#[inline(always)]
fn max_nan(x: f32, y: f32) -> f32 {
    if x.is_nan() || y.is_nan() {
        f32::from_bits(0x7fff_ffff)
    } else {
        max(x, y)
    }
}

/// The smaller one; -0 is smaller than +0, and a NaN loses.
#[inline(always)]
fn min(x: f32, y: f32) -> f32 {
    if x < y || y.is_nan() || (x.to_bits() == 1 << 31 && y == 0.0) {
        x
    } else {
        y
    }
}

#[inline(always)]
fn max(x: f32, y: f32) -> f32 {
    if x > y || y.is_nan() || (x.to_bits() == 0 && y == 0.0) {
        x
    } else {
        y
    }
}

#[inline(always)]
fn float2_inner(regs: &mut Regs, f: Float2, r: [Reg; 3], m: u32) {
    match f {
        Float2::Add => regs.map2(r, m, lift2(|x, y| x + y)),
        Float2::Sub => regs.map2(r, m, lift2(|x, y| x - y)),
        Float2::Mul => regs.map2(r, m, lift2(|x, y| x * y)),
        Float2::Div => regs.map2(r, m, lift2(|x, y| x / y)),
        Float2::Min => regs.map2(r, m, lift2(min)),
        Float2::Max => regs.map2(r, m, lift2(max)),
        Float2::MinNan => regs.map2(r, m, lift2(min_nan)),
        Float2::MaxNan => regs.map2(r, m, lift2(max_nan)),
        // The sign comes from the first operand.
        Float2::CopySign => regs.map2(r, m, |x, y| (x & 1 << 31) | (y & !(1 << 31))),
    }
}

#[inline(always)]
fn fma_inner(regs: &mut Regs, r: [Reg; 4], m: u32) {
    regs.map3(r, m, |x, y, z| {
        f32::from_bits(x)
            .mul_add(f32::from_bits(y), f32::from_bits(z))
            .to_bits()
    });
}

#[inline(always)]
fn double1_inner(regs: &mut Regs, f: Float1, d: Reg, a: Reg, m: u32) {
    match f {
        Float1::Neg => regs.map1_long(d, a, m, |x| x ^ 1 << 63),
        Float1::Abs => regs.map1_long(d, a, m, |x| x & !(1 << 63)),
        Float1::Sqrt => regs.map1_long(d, a, m, lift1_long(f64::sqrt)),
        Float1::Rcp => regs.map1_long(d, a, m, lift1_long(|x| 1.0 / x)),
        Float1::Rsqrt => regs.map1_long(d, a, m, lift1_long(|x| 1.0 / x.sqrt())),
        Float1::Ex2 => regs.map1_long(d, a, m, lift1_long(f64::exp2)),
        Float1::Lg2 => regs.map1_long(d, a, m, lift1_long(f64::log2)),
        Float1::Sin => regs.map1_long(d, a, m, lift1_long(f64::sin)),
        Float1::Cos => regs.map1_long(d, a, m, lift1_long(f64::cos)),
        Float1::Tanh => regs.map1_long(d, a, m, lift1_long(f64::tanh)),
        Float1::Ftz | Float1::Sat => {}
    }
}

#[inline(always)]
fn double2_inner(regs: &mut Regs, f: Float2, r: [Reg; 3], m: u32) {
    match f {
        Float2::Add => regs.map2_long(r, m, lift2_long(|x, y| x + y)),
        Float2::Sub => regs.map2_long(r, m, lift2_long(|x, y| x - y)),
        Float2::Mul => regs.map2_long(r, m, lift2_long(|x, y| x * y)),
        Float2::Div => regs.map2_long(r, m, lift2_long(|x, y| x / y)),
        Float2::Min | Float2::MinNan => {
            regs.map2_long(
                r,
                m,
                lift2_long(|x, y| if x < y || y.is_nan() { x } else { y }),
            );
        }
        Float2::Max | Float2::MaxNan => {
            regs.map2_long(
                r,
                m,
                lift2_long(|x, y| if x > y || y.is_nan() { x } else { y }),
            );
        }
        Float2::CopySign => regs.map2_long(r, m, |x, y| (x & 1 << 63) | (y & !(1 << 63))),
    }
}

#[inline(always)]
fn double_fma_inner(regs: &mut Regs, r: [Reg; 4], m: u32) {
    regs.map3_long(r, m, |x, y, z| {
        f64::from_bits(x)
            .mul_add(f64::from_bits(y), f64::from_bits(z))
            .to_bits()
    });
}

/// A sum and what it lost to rounding (Knuth's two-sum).
fn two_sum(x: f64, y: f64) -> (f64, f64) {
    let sum = x + y;
    let z = sum - x;
    (sum, (x - (sum - z)) + (y - z))
}

/// `value + error`, where the error is tiny, rounded to `f32` in a direction.
fn direct32(value: f64, error: f64, round: Round) -> u32 {
    let nearest = value as f32;
    if !nearest.is_finite() && value.is_finite() {
        let largest = f32::MAX.copysign(nearest);
        let inward = match round {
            Round::Zero => true,
            Round::Down => value > 0.0,
            Round::Up => value < 0.0,
            _ => false,
        };
        return if inward { largest } else { nearest }.to_bits();
    }
    let rest = (value - f64::from(nearest)) + error;
    adjust32(nearest, rest, round).to_bits()
}

/// Moves a rounded number by one place if the rest lies on the wrong side.
fn adjust32(nearest: f32, rest: f64, round: Round) -> f32 {
    match round {
        Round::Down if rest < 0.0 => nearest.next_down(),
        Round::Up if rest > 0.0 => nearest.next_up(),
        Round::Zero if nearest > 0.0 && rest < 0.0 => nearest.next_down(),
        Round::Zero if nearest < 0.0 && rest > 0.0 => nearest.next_up(),
        _ => nearest,
    }
}

fn adjust64(nearest: f64, rest: f64, round: Round) -> u64 {
    let moved = match round {
        Round::Down if rest < 0.0 => nearest.next_down(),
        Round::Up if rest > 0.0 => nearest.next_up(),
        Round::Zero if nearest > 0.0 && rest < 0.0 => nearest.next_down(),
        Round::Zero if nearest < 0.0 && rest > 0.0 => nearest.next_up(),
        _ => nearest,
    };
    moved.to_bits()
}

/// Rounds an `f64` to `f32` in a direction.
pub(crate) fn round_to_single(value: f64, round: Round) -> u32 {
    match round {
        Round::Nearest | Round::Away => (value as f32).to_bits(),
        _ => direct32(value, 0.0, round),
    }
}

/// Arithmetic in `f32` with directed rounding.
pub(crate) fn float_round(regs: &mut Regs, f: Float2, round: Round, r: [Reg; 3], mask: u32) {
    regs.map2(r, mask, |x, y| {
        let (x, y) = (f64::from(f32::from_bits(x)), f64::from(f32::from_bits(y)));
        match f {
            Float2::Sub => {
                let (sum, error) = two_sum(x, -y);
                direct32(sum, error, round)
            }
            Float2::Mul => direct32(x * y, 0.0, round),
            Float2::Div => {
                let quotient = x / y;
                direct32(quotient, (-quotient).mul_add(y, x) / y, round)
            }
            _ => {
                let (sum, error) = two_sum(x, y);
                direct32(sum, error, round)
            }
        }
    });
}

/// Fused multiply-add in `f32` with directed rounding.
pub(crate) fn fma_round(regs: &mut Regs, round: Round, r: [Reg; 4], mask: u32) {
    regs.map3(r, mask, |x, y, z| {
        let product = f64::from(f32::from_bits(x)) * f64::from(f32::from_bits(y));
        let (sum, error) = two_sum(product, f64::from(f32::from_bits(z)));
        direct32(sum, error, round)
    });
}

/// Arithmetic in `f64` with directed rounding.
pub(crate) fn double_round(regs: &mut Regs, f: Float2, round: Round, r: [Reg; 3], mask: u32) {
    regs.map2_long(r, mask, |x, y| {
        let (x, y) = (f64::from_bits(x), f64::from_bits(y));
        match f {
            Float2::Sub => {
                let (sum, error) = two_sum(x, -y);
                adjust64(sum, error, round)
            }
            Float2::Mul => adjust64(x * y, x.mul_add(y, -(x * y)), round),
            Float2::Div => {
                let quotient = x / y;
                adjust64(quotient, (-quotient).mul_add(y, x) / y, round)
            }
            _ => {
                let (sum, error) = two_sum(x, y);
                adjust64(sum, error, round)
            }
        }
    });
}

/// Fused multiply-add in `f64` with directed rounding.
pub(crate) fn double_fma_round(regs: &mut Regs, round: Round, r: [Reg; 4], mask: u32) {
    regs.map3_long(r, mask, |x, y, z| {
        let (x, y, z) = (f64::from_bits(x), f64::from_bits(y), f64::from_bits(z));
        let nearest = x.mul_add(y, z);
        let product = x * y;
        let lost = x.mul_add(y, -product);
        let (sum, error) = two_sum(product, z);
        // What the fused result misses: (sum - nearest) is exact, the rest decides its sign.
        adjust64(nearest, (sum - nearest) + (error + lost), round)
    });
}

#[inline(always)]
fn lanes<T: Copy>(a: &[T; LANES], b: &[T; LANES], f: impl Fn(T, T) -> bool) -> u32 {
    let mut holds = 0;
    for lane in 0..LANES {
        holds |= u32::from(f(a[lane], b[lane])) << lane;
    }
    holds
}

#[inline(always)]
fn ordered<T: Copy + PartialOrd>(cmp: Cmp, a: &[T; LANES], b: &[T; LANES]) -> u32 {
    #[expect(clippy::eq_op, reason = "only a NaN differs from itself")]
    match cmp {
        Cmp::Eq => lanes(a, b, |x, y| x == y),
        // Ordered: false if one is NaN.
        Cmp::Ne => lanes(a, b, |x, y| x != y),
        Cmp::Lt => lanes(a, b, |x, y| x < y),
        Cmp::Le => lanes(a, b, |x, y| x <= y),
        Cmp::Gt => lanes(a, b, |x, y| x > y),
        Cmp::Ge => lanes(a, b, |x, y| x >= y),
        Cmp::Equ => !lanes(a, b, |x, y| x != y),
        Cmp::Neu => !lanes(a, b, |x, y| x == y),
        Cmp::Ltu => !lanes(a, b, |x, y| x >= y),
        Cmp::Leu => !lanes(a, b, |x, y| x > y),
        Cmp::Gtu => !lanes(a, b, |x, y| x <= y),
        Cmp::Geu => !lanes(a, b, |x, y| x < y),
        Cmp::Num => lanes(a, b, |x, y| x == x && y == y),
        Cmp::Nan => !lanes(a, b, |x, y| x == x && y == y),
    }
}

#[inline(always)]
fn compare_inner(regs: &Regs, cmp: Cmp, ty: Ty, a: Reg, b: Reg) -> u32 {
    match ty {
        Ty::U64 => ordered(cmp, regs.long(a), regs.long(b)),
        Ty::S64 => ordered(
            cmp,
            &regs.long(a).map(u64::cast_signed),
            &regs.long(b).map(u64::cast_signed),
        ),
        Ty::F64 => ordered(
            cmp,
            &regs.long(a).map(f64::from_bits),
            &regs.long(b).map(f64::from_bits),
        ),
        Ty::F32 => ordered(
            cmp,
            &regs.word(a).map(f32::from_bits),
            &regs.word(b).map(f32::from_bits),
        ),
        Ty::S32 => ordered(
            cmp,
            &regs.word(a).map(u32::cast_signed),
            &regs.word(b).map(u32::cast_signed),
        ),
        _ => ordered(cmp, regs.word(a), regs.word(b)),
    }
}

#[cfg(test)]
mod tests;
