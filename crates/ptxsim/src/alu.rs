//! Arithmetic of all lanes at once.
//!
//! Every function is inlined into the interpreter's loop, which is compiled for several instruction
//! sets: a loop over 32 lanes becomes a few vector instructions.

use half::{bf16, f16};

use crate::inst::{BoolOp, Cmp, Compared, F1, F2, F3, G1, G2, G3, HalfOp, HalfType, Shift64};
use crate::warp::{LANES, Lanes32, Lanes64, Warp};

#[inline(always)]
fn map1(a: &Lanes32, f: impl Fn(u32) -> u32) -> Lanes32 {
    let mut out = [0; LANES];
    for lane in 0..LANES {
        out[lane] = f(a[lane]);
    }
    out
}

#[inline(always)]
fn map2(a: &Lanes32, b: &Lanes32, f: impl Fn(u32, u32) -> u32) -> Lanes32 {
    let mut out = [0; LANES];
    for lane in 0..LANES {
        out[lane] = f(a[lane], b[lane]);
    }
    out
}

#[inline(always)]
fn map3(a: &Lanes32, b: &Lanes32, c: &Lanes32, f: impl Fn(u32, u32, u32) -> u32) -> Lanes32 {
    let mut out = [0; LANES];
    for lane in 0..LANES {
        out[lane] = f(a[lane], b[lane], c[lane]);
    }
    out
}

#[inline(always)]
fn wide1(a: &Lanes64, f: impl Fn(u64) -> u64) -> Lanes64 {
    let mut out = [0; LANES];
    for lane in 0..LANES {
        out[lane] = f(a[lane]);
    }
    out
}

#[inline(always)]
fn wide2(a: &Lanes64, b: &Lanes64, f: impl Fn(u64, u64) -> u64) -> Lanes64 {
    let mut out = [0; LANES];
    for lane in 0..LANES {
        out[lane] = f(a[lane], b[lane]);
    }
    out
}

#[inline(always)]
fn float1(a: &Lanes32, f: impl Fn(f32) -> f32) -> Lanes32 {
    map1(a, |a| f(f32::from_bits(a)).to_bits())
}

#[inline(always)]
fn float2(a: &Lanes32, b: &Lanes32, f: impl Fn(f32, f32) -> f32) -> Lanes32 {
    map2(a, b, |a, b| {
        f(f32::from_bits(a), f32::from_bits(b)).to_bits()
    })
}

#[inline(always)]
fn double2(a: &Lanes64, b: &Lanes64, f: impl Fn(f64, f64) -> f64) -> Lanes64 {
    wide2(a, b, |a, b| {
        f(f64::from_bits(a), f64::from_bits(b)).to_bits()
    })
}

/// `2^x` to about one unit in the last place; subnormal results are zero, as with `.ftz`.
#[inline(always)]
fn exp2(x: f32) -> f32 {
    let clamped = x.clamp(-200.0, 200.0);
    let whole = (clamped + 0.5).floor();
    let f = clamped - whole;
    // 2^f = e^(f ln 2) on [-1/2, 1/2], by its series.
    let z = f * std::f32::consts::LN_2;
    let mut y = 1.0 / 5040.0;
    for term in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        y = z.mul_add(y, term);
    }
    let exponent = whole as i32;
    let scaled = f32::from_bits((y.to_bits() as i32).wrapping_add(exponent << 23) as u32);
    let result = if exponent > 127 {
        f32::INFINITY
    } else {
        scaled
    };
    let result = if x < -126.0 { 0.0 } else { result };
    if x.is_nan() { x } else { result }
}

/// Below the smallest normal number there is only zero.
#[inline(always)]
fn flushed(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE {
        0.0_f32.copysign(x)
    } else {
        x
    }
}

#[inline(always)]
pub(crate) fn one(f: F1, a: &Lanes32) -> Lanes32 {
    match f {
        F1::Move => *a,
        F1::Neg => map1(a, u32::wrapping_neg),
        F1::Abs => map1(a, |a| (a as i32).wrapping_abs() as u32),
        F1::Not => map1(a, |a| !a),
        F1::Popc => map1(a, u32::count_ones),
        F1::Clz => map1(a, u32::leading_zeros),
        F1::Brev => map1(a, u32::reverse_bits),
        F1::BfindU => map1(a, |a| 31_u32.wrapping_sub(a.leading_zeros())),
        F1::BfindS => map1(a, |a| {
            let a = if (a as i32) < 0 { !a } else { a };
            31_u32.wrapping_sub(a.leading_zeros())
        }),
        F1::NegF => map1(a, |a| a ^ 0x8000_0000),
        F1::AbsF => map1(a, |a| a & 0x7fff_ffff),
        F1::Rcp => float1(a, |a| 1.0 / a),
        F1::Sqrt => float1(a, f32::sqrt),
        F1::Rsqrt => float1(a, |a| 1.0 / a.sqrt()),
        F1::Ex2 => float1(a, exp2),
        F1::Lg2 => float1(a, |a| flushed(a).log2()),
        F1::Sin => float1(a, f32::sin),
        F1::Cos => float1(a, f32::cos),
        F1::Tanh => float1(a, f32::tanh),
        F1::NegPair => map1(a, |a| a ^ 0x8000_8000),
        F1::AbsPair => map1(a, |a| a & 0x7fff_7fff),
    }
}

/// The larger number; a NaN only if both are.
#[inline(always)]
fn max(a: f32, b: f32) -> f32 {
    if a > b || b.is_nan() { a } else { b }
}

#[inline(always)]
fn min(a: f32, b: f32) -> f32 {
    if a < b || b.is_nan() { a } else { b }
}

fn half_op(op: HalfOp, a: f32, b: f32) -> f32 {
    match op {
        HalfOp::Add => a + b,
        HalfOp::Sub => a - b,
        HalfOp::Mul => a * b,
        HalfOp::Min => min(a, b),
        HalfOp::Max => max(a, b),
        HalfOp::MinNan if a.is_nan() || b.is_nan() => f32::NAN,
        HalfOp::MaxNan if a.is_nan() || b.is_nan() => f32::NAN,
        HalfOp::MinNan => min(a, b),
        HalfOp::MaxNan => max(a, b),
    }
}

/// Bits of a 16-bit float.
pub(crate) fn to_half(kind: HalfType, x: f32) -> u32 {
    u32::from(match kind {
        HalfType::F16 => f16::from_f32(x).to_bits(),
        HalfType::Bf16 => bf16::from_f32(x).to_bits(),
    })
}

pub(crate) fn from_half(kind: HalfType, bits: u32) -> f32 {
    match kind {
        HalfType::F16 => f16::from_bits(bits as u16).to_f32(),
        HalfType::Bf16 => f32::from_bits(bits << 16),
    }
}

/// Of one element or of both halves of a word.
fn halves(kind: HalfType, pair: bool, a: [u32; 3], f: impl Fn([f32; 3]) -> f32) -> u32 {
    let low = to_half(kind, f(a.map(|a| from_half(kind, a & 0xffff))));
    if !pair {
        return low;
    }
    low | to_half(kind, f(a.map(|a| from_half(kind, a >> 16)))) << 16
}

#[inline(always)]
pub(crate) fn two(f: F2, a: &Lanes32, b: &Lanes32) -> Lanes32 {
    let signed = |f: fn(i32, i32) -> i32| map2(a, b, |a, b| f(a as i32, b as i32) as u32);
    match f {
        F2::Add => map2(a, b, u32::wrapping_add),
        F2::Sub => map2(a, b, u32::wrapping_sub),
        F2::MulLo => map2(a, b, u32::wrapping_mul),
        F2::MulHiU => map2(a, b, |a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        F2::MulHiS => signed(|a, b| ((i64::from(a) * i64::from(b)) >> 32) as i32),
        F2::DivU => map2(a, b, |a, b| a.checked_div(b).unwrap_or(u32::MAX)),
        F2::DivS => signed(|a, b| if b == 0 { -1 } else { a.wrapping_div(b) }),
        F2::RemU => map2(a, b, |a, b| a.checked_rem(b).unwrap_or(a)),
        F2::RemS => signed(|a, b| if b == 0 { a } else { a.wrapping_rem(b) }),
        F2::MinU => map2(a, b, u32::min),
        F2::MinS => signed(i32::min),
        F2::MaxU => map2(a, b, u32::max),
        F2::MaxS => signed(i32::max),
        F2::And => map2(a, b, |a, b| a & b),
        F2::Or => map2(a, b, |a, b| a | b),
        F2::Xor => map2(a, b, |a, b| a ^ b),
        F2::Shl => map2(a, b, |a, b| if b > 31 { 0 } else { a << b }),
        F2::ShrU => map2(a, b, |a, b| if b > 31 { 0 } else { a >> b }),
        F2::ShrS => map2(a, b, |a, b| ((a as i32) >> b.min(31)) as u32),
        F2::AddF => float2(a, b, |a, b| a + b),
        F2::SubF => float2(a, b, |a, b| a - b),
        F2::MulF => float2(a, b, |a, b| a * b),
        F2::DivF => float2(a, b, |a, b| a / b),
        F2::MinF => float2(a, b, min),
        F2::MaxF => float2(a, b, max),
        F2::MinNanF => float2(a, b, |a, b| {
            if a.is_nan() {
                a
            } else if b.is_nan() {
                b
            } else {
                a.min(b)
            }
        }),
        F2::MaxNanF => float2(a, b, |a, b| {
            if a.is_nan() {
                a
            } else if b.is_nan() {
                b
            } else {
                a.max(b)
            }
        }),
        F2::CopySign => map2(a, b, |a, b| (a & 0x8000_0000) | (b & 0x7fff_ffff)),
        F2::Half(op, kind, pair) => map2(a, b, |a, b| {
            halves(kind, pair, [a, b, 0], |[a, b, _]| half_op(op, a, b))
        }),
    }
}

/// An `f32` of a sum that is exact enough in `f64`, rounded in a direction.
fn directed(x: f64, up: bool) -> f32 {
    let near = x as f32;
    let back = f64::from(near);
    if up && back < x {
        near.next_up()
    } else if !up && back > x {
        near.next_down()
    } else {
        near
    }
}

#[inline(always)]
pub(crate) fn three(f: F3, a: &Lanes32, b: &Lanes32, c: &Lanes32) -> Lanes32 {
    let exact = |a: u32, b: u32, c: u32| {
        f64::from(f32::from_bits(a)).mul_add(f32::from_bits(b).into(), f32::from_bits(c).into())
    };
    match f {
        F3::MadLo => map3(a, b, c, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        F3::MadHiU => map3(a, b, c, |a, b, c| {
            (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c)
        }),
        F3::MadHiS => map3(a, b, c, |a, b, c| {
            (((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32).wrapping_add(c)
        }),
        F3::Fma => map3(a, b, c, |a, b, c| {
            f32::from_bits(a)
                .mul_add(f32::from_bits(b), f32::from_bits(c))
                .to_bits()
        }),
        F3::FmaDown => map3(a, b, c, |a, b, c| directed(exact(a, b, c), false).to_bits()),
        F3::FmaUp => map3(a, b, c, |a, b, c| directed(exact(a, b, c), true).to_bits()),
        F3::FmaZero => map3(a, b, c, |a, b, c| {
            let x = exact(a, b, c);
            directed(x, x < 0.0).to_bits()
        }),
        F3::BfeU => map3(a, b, c, |a, b, c| {
            let (at, n) = (b & 0xff, c & 0xff);
            if at > 31 || n == 0 {
                0
            } else {
                (a >> at) & (u32::MAX >> (32 - n.min(32)))
            }
        }),
        F3::BfeS => map3(a, b, c, |a, b, c| {
            let (at, n) = (b & 0xff, (c & 0xff).min(32));
            if n == 0 {
                return 0;
            }
            let top = (at + n).min(32);
            let start = at.min(31);
            let raised = ((a << (32 - top)) as i32) >> (32 - (top - start).clamp(1, 32));
            raised as u32
        }),
        F3::Lop3(table) => map3(a, b, c, |a, b, c| {
            let mut out = 0;
            for i in 0..8 {
                let pick = |x: u32, bit: u32| if i >> bit & 1 == 1 { x } else { !x };
                if table >> i & 1 == 1 {
                    out |= pick(a, 2) & pick(b, 1) & pick(c, 0);
                }
            }
            out
        }),
        F3::ShfLeft { wrap } => map3(a, b, c, |a, b, c| {
            let n = if wrap { c & 31 } else { c.min(32) };
            let both = u64::from(b) << 32 | u64::from(a);
            ((both << n) >> 32) as u32
        }),
        F3::ShfRight { wrap } => map3(a, b, c, |a, b, c| {
            let n = if wrap { c & 31 } else { c.min(32) };
            let both = u64::from(b) << 32 | u64::from(a);
            (both >> n) as u32
        }),
        F3::Prmt => map3(a, b, c, |a, b, c| {
            let both = u64::from(b) << 32 | u64::from(a);
            let byte = |i: u32| {
                let selector = c >> (4 * i) & 0xf;
                let byte = (both >> (8 * (selector & 7)) & 0xff) as u32;
                let sign = if byte & 0x80 == 0 { 0 } else { 0xff };
                (if selector & 8 == 0 { byte } else { sign }) << (8 * i)
            };
            byte(0) | byte(1) | byte(2) | byte(3)
        }),
        F3::Sad => map3(a, b, c, |a, b, c| a.abs_diff(b).wrapping_add(c)),
        F3::Half(kind, pair) => {
            map3(a, b, c, |a, b, c| {
                halves(kind, pair, [a, b, c], |[a, b, c]| {
                    // Exact in f64, so that it is rounded once but for ties of ties.
                    f64::from(a).mul_add(b.into(), c.into()) as f32
                })
            })
        }
    }
}

#[inline(always)]
pub(crate) fn wide_one(f: G1, a: &Lanes64) -> Lanes64 {
    let double = |f: fn(f64) -> f64| wide1(a, |a| f(f64::from_bits(a)).to_bits());
    match f {
        G1::Move => *a,
        G1::Neg => wide1(a, u64::wrapping_neg),
        G1::Abs => wide1(a, |a| (a as i64).wrapping_abs() as u64),
        G1::Not => wide1(a, |a| !a),
        G1::Brev => wide1(a, u64::reverse_bits),
        G1::NegD => wide1(a, |a| a ^ 1 << 63),
        G1::AbsD => wide1(a, |a| a & !(1 << 63)),
        G1::Rcp => double(|a| 1.0 / a),
        // Only the upper word of the result is not zero.
        G1::RcpApprox => wide1(a, |a| (1.0 / f64::from_bits(a)).to_bits() & !0xffff_ffff),
        G1::Sqrt => double(f64::sqrt),
        G1::RsqrtApprox => wide1(a, |a| {
            (1.0 / f64::from_bits(a).sqrt()).to_bits() & !0xffff_ffff
        }),
    }
}

#[inline(always)]
pub(crate) fn wide_two(f: G2, a: &Lanes64, b: &Lanes64) -> Lanes64 {
    let signed = |f: fn(i64, i64) -> i64| wide2(a, b, |a, b| f(a as i64, b as i64) as u64);
    match f {
        G2::Add => wide2(a, b, u64::wrapping_add),
        G2::Sub => wide2(a, b, u64::wrapping_sub),
        G2::MulLo => wide2(a, b, u64::wrapping_mul),
        G2::MulHiU => wide2(a, b, |a, b| ((u128::from(a) * u128::from(b)) >> 64) as u64),
        G2::MulHiS => signed(|a, b| ((i128::from(a) * i128::from(b)) >> 64) as i64),
        G2::DivU => wide2(a, b, |a, b| a.checked_div(b).unwrap_or(u64::MAX)),
        G2::DivS => signed(|a, b| if b == 0 { -1 } else { a.wrapping_div(b) }),
        G2::RemU => wide2(a, b, |a, b| a.checked_rem(b).unwrap_or(a)),
        G2::RemS => signed(|a, b| if b == 0 { a } else { a.wrapping_rem(b) }),
        G2::MinU => wide2(a, b, u64::min),
        G2::MinS => signed(i64::min),
        G2::MaxU => wide2(a, b, u64::max),
        G2::MaxS => signed(i64::max),
        G2::And => wide2(a, b, |a, b| a & b),
        G2::Or => wide2(a, b, |a, b| a | b),
        G2::Xor => wide2(a, b, |a, b| a ^ b),
        G2::AddD => double2(a, b, |a, b| a + b),
        G2::SubD => double2(a, b, |a, b| a - b),
        G2::MulD => double2(a, b, |a, b| a * b),
        G2::DivD => double2(a, b, |a, b| a / b),
        G2::MinD => double2(a, b, |a, b| if a < b || b.is_nan() { a } else { b }),
        G2::MaxD => double2(a, b, |a, b| if a > b || b.is_nan() { a } else { b }),
        G2::CopySign => wide2(a, b, |a, b| (a & 1 << 63) | (b & !(1 << 63))),
    }
}

#[inline(always)]
pub(crate) fn wide_three(f: G3, a: &Lanes64, b: &Lanes64, c: &Lanes64) -> Lanes64 {
    let mut out = [0; LANES];
    for lane in 0..LANES {
        out[lane] = match f {
            G3::MadLo => a[lane].wrapping_mul(b[lane]).wrapping_add(c[lane]),
            G3::FmaD => f64::from_bits(a[lane])
                .mul_add(f64::from_bits(b[lane]), f64::from_bits(c[lane]))
                .to_bits(),
        };
    }
    out
}

#[inline(always)]
pub(crate) fn shift64(f: Shift64, a: &Lanes64, n: &Lanes32) -> Lanes64 {
    let mut out = [0; LANES];
    for lane in 0..LANES {
        let (a, n) = (a[lane], n[lane]);
        out[lane] = match f {
            Shift64::Left if n > 63 => 0,
            Shift64::RightU if n > 63 => 0,
            Shift64::Left => a << n,
            Shift64::RightU => a >> n,
            Shift64::RightS => ((a as i64) >> n.min(63)) as u64,
        };
    }
    out
}

/// Inserts the low `length` bits of `a` into `b`.
pub(crate) fn insert(a: u64, b: u64, position: u32, length: u32, width: u32) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    if position >= width || length == 0 {
        return b;
    }
    let length = length.min(width - position);
    let mask = (u64::MAX >> (64 - length)) << position;
    (b & !mask) | ((a << position) & mask)
}

#[inline(always)]
fn bits<T: Copy>(a: &[T; LANES], b: &[T; LANES], f: impl Fn(T, T) -> bool) -> u32 {
    let mut mask = 0;
    for lane in 0..LANES {
        mask |= u32::from(f(a[lane], b[lane])) << lane;
    }
    mask
}

macro_rules! ordered {
    ($cmp:expr, $a:expr, $b:expr, $of:expr) => {{
        let of = $of;
        match $cmp {
            Cmp::Eq | Cmp::Equ => bits($a, $b, |a, b| of(a) == of(b)),
            Cmp::Ne | Cmp::Neu => bits($a, $b, |a, b| of(a) != of(b)),
            Cmp::Lt | Cmp::Ltu => bits($a, $b, |a, b| of(a) < of(b)),
            Cmp::Le | Cmp::Leu => bits($a, $b, |a, b| of(a) <= of(b)),
            Cmp::Gt | Cmp::Gtu => bits($a, $b, |a, b| of(a) > of(b)),
            Cmp::Ge | Cmp::Geu => bits($a, $b, |a, b| of(a) >= of(b)),
            Cmp::Num => u32::MAX,
            Cmp::Nan => 0,
        }
    }};
}

macro_rules! floating {
    ($cmp:expr, $a:expr, $b:expr, $of:expr) => {{
        let of = $of;
        let nan = bits($a, $b, |a, b| of(a).is_nan() || of(b).is_nan());
        match $cmp {
            Cmp::Num => !nan,
            Cmp::Nan => nan,
            Cmp::Ne => bits($a, $b, |a, b| of(a) != of(b)) & !nan,
            Cmp::Equ | Cmp::Neu | Cmp::Ltu | Cmp::Leu | Cmp::Gtu | Cmp::Geu => {
                ordered!($cmp, $a, $b, of) | nan
            }
            _ => ordered!($cmp, $a, $b, of),
        }
    }};
}

#[inline(always)]
#[expect(clippy::float_cmp, reason = "it is what the instruction does")]
pub(crate) fn compare(warp: &Warp, cmp: Cmp, what: Compared) -> u32 {
    match what {
        Compared::U32(a, b) => ordered!(cmp, &warp.get(a), &warp.get(b), |x: u32| x),
        Compared::S32(a, b) => ordered!(cmp, &warp.get(a), &warp.get(b), |x: u32| x as i32),
        Compared::S16(a, b) => ordered!(cmp, &warp.get(a), &warp.get(b), |x: u32| x as u16 as i16),
        Compared::F32(a, b) => floating!(cmp, &warp.get(a), &warp.get(b), f32::from_bits),
        Compared::Half(kind, a, b) => {
            floating!(cmp, &warp.get(a), &warp.get(b), |x: u32| from_half(
                kind,
                x & 0xffff
            ))
        }
        Compared::U64(a, b) => ordered!(cmp, &warp.get64(a), &warp.get64(b), |x: u64| x),
        Compared::S64(a, b) => ordered!(cmp, &warp.get64(a), &warp.get64(b), |x: u64| x as i64),
        Compared::F64(a, b) => floating!(cmp, &warp.get64(a), &warp.get64(b), f64::from_bits),
    }
}

pub(crate) fn combine(op: BoolOp, a: u32, b: u32) -> u32 {
    match op {
        BoolOp::And => a & b,
        BoolOp::Or => a | b,
        BoolOp::Xor => a ^ b,
    }
}
