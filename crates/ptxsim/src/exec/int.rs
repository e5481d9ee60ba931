//! Integer arithmetic of a warp.

use super::regs::{LANES, Regs, wide};
use crate::isa::{Int1, Int2, Int3, NONE, Reg};

wide! {
    /// One operand of 32 bits.
    fn int1(regs: &mut Regs, f: Int1, d: Reg, a: Reg, mask: u32) = int1_inner
}
wide! {
    /// Two operands of 32 bits.
    fn int2(regs: &mut Regs, f: Int2, r: [Reg; 3], mask: u32) = int2_inner
}
wide! {
    /// Three operands of 32 bits.
    fn int3(regs: &mut Regs, f: Int3, r: [Reg; 4], mask: u32) = int3_inner
}
wide! {
    /// One operand of 64 bits.
    fn long1(regs: &mut Regs, f: Int1, d: Reg, a: Reg, mask: u32) = long1_inner
}
wide! {
    /// Two operands of 64 bits; a shift's second one has 32.
    fn long2(regs: &mut Regs, f: Int2, r: [Reg; 3], mask: u32) = long2_inner
}
wide! {
    /// 32 by 32 bits to 64, plus `c` if there is one.
    fn mad_wide(regs: &mut Regs, signed: bool, r: [Reg; 4], mask: u32) = mad_wide_inner
}

#[inline(always)]
fn int1_inner(regs: &mut Regs, f: Int1, d: Reg, a: Reg, m: u32) {
    match f {
        Int1::Mov => regs.map1(d, a, m, |x| x),
        Int1::Not => regs.map1(d, a, m, |x| !x),
        Int1::Neg => regs.map1(d, a, m, u32::wrapping_neg),
        Int1::Abs => regs.map1(d, a, m, |x| x.cast_signed().wrapping_abs().cast_unsigned()),
        Int1::Clz => regs.map1(d, a, m, u32::leading_zeros),
        Int1::Popc => regs.map1(d, a, m, u32::count_ones),
        Int1::Brev => regs.map1(d, a, m, u32::reverse_bits),
        Int1::Sext16 => regs.map1(d, a, m, |x| {
            (((x << 16).cast_signed()) >> 16).cast_unsigned()
        }),
        Int1::Zext16 => regs.map1(d, a, m, |x| x & 0xffff),
        Int1::CNot => regs.map1(d, a, m, |x| u32::from(x == 0)),
        Int1::BfindU => regs.map1(d, a, m, |x| 31_u32.wrapping_sub(x.leading_zeros())),
        Int1::BfindS => regs.map1(d, a, m, |x| {
            31_u32.wrapping_sub(signless(x).leading_zeros())
        }),
        Int1::BfindShiftU => regs.map1(d, a, m, |x| shift_amount(x.leading_zeros(), 32)),
        Int1::BfindShiftS => regs.map1(d, a, m, |x| shift_amount(signless(x).leading_zeros(), 32)),
    }
}

/// The bits that differ from the sign.
#[inline(always)]
fn signless(x: u32) -> u32 {
    x ^ (x.cast_signed() >> 31).cast_unsigned()
}

#[inline(always)]
fn shift_amount(leading: u32, bits: u32) -> u32 {
    if leading == bits { u32::MAX } else { leading }
}

#[inline(always)]
fn signed2(f: impl Fn(i32, i32) -> i32) -> impl Fn(u32, u32) -> u32 {
    move |x, y| f(x.cast_signed(), y.cast_signed()).cast_unsigned()
}

#[inline(always)]
fn int2_inner(regs: &mut Regs, f: Int2, r: [Reg; 3], m: u32) {
    match f {
        Int2::Add => regs.map2(r, m, u32::wrapping_add),
        Int2::Sub => regs.map2(r, m, u32::wrapping_sub),
        Int2::Mul => regs.map2(r, m, u32::wrapping_mul),
        Int2::MulHiU => regs.map2(r, m, mul_hi_u),
        Int2::MulHiS => regs.map2(r, m, mul_hi_s),
        Int2::DivU => regs.map2(r, m, |x, y| x.checked_div(y).unwrap_or(u32::MAX)),
        Int2::DivS => regs.map2(
            r,
            m,
            signed2(|x, y| if y == 0 { -1 } else { x.wrapping_div(y) }),
        ),
        Int2::RemU => regs.map2(r, m, |x, y| x.checked_rem(y).unwrap_or(x)),
        Int2::RemS => regs.map2(
            r,
            m,
            signed2(|x, y| if y == 0 { x } else { x.wrapping_rem(y) }),
        ),
        Int2::MinU => regs.map2(r, m, u32::min),
        Int2::MinS => regs.map2(r, m, signed2(i32::min)),
        Int2::MaxU => regs.map2(r, m, u32::max),
        Int2::MaxS => regs.map2(r, m, signed2(i32::max)),
        Int2::And => regs.map2(r, m, |x, y| x & y),
        Int2::Or => regs.map2(r, m, |x, y| x | y),
        Int2::Xor => regs.map2(r, m, |x, y| x ^ y),
        Int2::Shl => regs.map2(r, m, |x, y| if y > 31 { 0 } else { x << y }),
        Int2::ShrU => regs.map2(r, m, |x, y| if y > 31 { 0 } else { x >> y }),
        Int2::ShrS => regs.map2(r, m, |x, y| (x.cast_signed() >> y.min(31)).cast_unsigned()),
    }
}

#[inline(always)]
fn mul_hi_u(x: u32, y: u32) -> u32 {
    ((u64::from(x) * u64::from(y)) >> 32) as u32
}

#[inline(always)]
fn mul_hi_s(x: u32, y: u32) -> u32 {
    ((i64::from(x.cast_signed()) * i64::from(y.cast_signed())) >> 32) as u32
}

#[inline(always)]
fn int3_inner(regs: &mut Regs, f: Int3, r: [Reg; 4], m: u32) {
    match f {
        Int3::Mad => regs.map3(r, m, |x, y, z| x.wrapping_mul(y).wrapping_add(z)),
        Int3::MadHiU => regs.map3(r, m, |x, y, z| mul_hi_u(x, y).wrapping_add(z)),
        Int3::MadHiS => regs.map3(r, m, |x, y, z| mul_hi_s(x, y).wrapping_add(z)),
        Int3::ShfLClamp => regs.map3(r, m, |x, y, z| funnel_left(x, y, z.min(32))),
        Int3::ShfLWrap => regs.map3(r, m, |x, y, z| funnel_left(x, y, z & 31)),
        Int3::ShfRClamp => regs.map3(r, m, |x, y, z| funnel_right(x, y, z.min(32))),
        Int3::ShfRWrap => regs.map3(r, m, |x, y, z| funnel_right(x, y, z & 31)),
        Int3::BfeU => regs.map3(r, m, |x, pos, len| {
            (extract(u64::from(x), pos, len, 32)) as u32
        }),
        Int3::BfeS => regs.map3(r, m, |x, pos, len| {
            extract_signed(i64::from(x.cast_signed()).cast_unsigned(), pos, len, 32) as u32
        }),
        Int3::Prmt => regs.map3(r, m, permute),
        Int3::PrmtMode(mode) => regs.map3(r, m, |x, y, z| permute(x, y, selector(mode, z & 3))),
        Int3::Lop3(table) => lop3(regs, table, r, m),
        Int3::SadU => regs.map3(r, m, |x, y, z| x.abs_diff(y).wrapping_add(z)),
        Int3::SadS => regs.map3(r, m, |x, y, z| {
            x.cast_signed().abs_diff(y.cast_signed()).wrapping_add(z)
        }),
        Int3::Dp4a(a_signed, b_signed) => {
            regs.map3(r, m, |x, y, z| dot4(x, y, z, a_signed, b_signed));
        }
    }
}

#[inline(always)]
fn lop3(regs: &mut Regs, table: u8, r: [Reg; 4], m: u32) {
    // The eight terms of the table, each a mask of all bits or none: no branch per lane.
    let term = |i: u32| 0_u32.wrapping_sub(u32::from(table >> i & 1));
    let t: [u32; 8] = [
        term(0),
        term(1),
        term(2),
        term(3),
        term(4),
        term(5),
        term(6),
        term(7),
    ];
    regs.map3(r, m, |a, b, c| {
        let low = (!b & !c & t[0]) | (!b & c & t[1]) | (b & !c & t[2]) | (b & c & t[3]);
        let high = (!b & !c & t[4]) | (!b & c & t[5]) | (b & !c & t[6]) | (b & c & t[7]);
        (!a & low) | (a & high)
    });
}

#[inline(always)]
fn funnel_left(lo: u32, hi: u32, by: u32) -> u32 {
    let pair = u64::from(hi) << 32 | u64::from(lo);
    ((pair << by) >> 32) as u32
}

#[inline(always)]
fn funnel_right(lo: u32, hi: u32, by: u32) -> u32 {
    let pair = u64::from(hi) << 32 | u64::from(lo);
    (pair >> by) as u32
}

/// Bits `pos .. pos + len` of `x`, zero-extended.
#[inline(always)]
fn extract(x: u64, pos: u32, len: u32, bits: u32) -> u64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if pos >= bits || len == 0 {
        return 0;
    }
    let len = len.min(bits - pos);
    let field = x >> pos;
    if len >= 64 {
        field
    } else {
        field & ((1 << len) - 1)
    }
}

/// As [`extract`], extended by the sign; `x` is sign-extended itself.
#[inline(always)]
fn extract_signed(x: u64, pos: u32, len: u32, bits: u32) -> u64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if len == 0 {
        return 0;
    }
    if pos >= bits {
        return (x.cast_signed() >> 63).cast_unsigned();
    }
    let len = len.min(bits - pos);
    let shift = 64 - len;
    ((((x >> pos) << shift).cast_signed()) >> shift).cast_unsigned()
}

#[inline(always)]
fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    let mut result = 0;
    for i in 0..4 {
        let control = selector >> (4 * i) & 15;
        let byte = (bytes >> (8 * (control & 7))) as u32 & 0xff;
        let byte = if control & 8 == 0 {
            byte
        } else {
            0xff * (byte >> 7)
        };
        result |= byte << (8 * i);
    }
    result
}

/// Selector of the named modes of `prmt`, in the order f4e, b4e, rc8, ecl, ecr, rc16.
#[inline(always)]
fn selector(mode: u8, c: u32) -> u32 {
    let table: [[u32; 4]; 6] = [
        [0x3210, 0x4321, 0x5432, 0x6543],
        [0x5670, 0x6701, 0x7012, 0x0123],
        [0x0000, 0x1111, 0x2222, 0x3333],
        [0x3210, 0x3211, 0x3222, 0x3333],
        [0x0000, 0x1110, 0x2210, 0x3210],
        [0x1010, 0x3232, 0x1010, 0x3232],
    ];
    table[usize::from(mode)][c as usize]
}

#[inline(always)]
fn dot4(x: u32, y: u32, z: u32, a_signed: bool, b_signed: bool) -> u32 {
    let byte = |v: u32, i: u32, signed: bool| {
        let v = v >> (8 * i) & 0xff;
        if signed {
            (v << 24).cast_signed() >> 24
        } else {
            v.cast_signed()
        }
    };
    let mut sum = z.cast_signed();
    for i in 0..4 {
        sum = sum.wrapping_add(byte(x, i, a_signed) * byte(y, i, b_signed));
    }
    sum.cast_unsigned()
}

#[inline(always)]
fn long1_inner(regs: &mut Regs, f: Int1, d: Reg, a: Reg, m: u32) {
    match f {
        Int1::Not => regs.map1_long(d, a, m, |x| !x),
        Int1::Neg => regs.map1_long(d, a, m, u64::wrapping_neg),
        Int1::Abs => regs.map1_long(d, a, m, |x| x.cast_signed().wrapping_abs().cast_unsigned()),
        Int1::Brev => regs.map1_long(d, a, m, u64::reverse_bits),
        Int1::CNot => regs.map1_long(d, a, m, |x| u64::from(x == 0)),
        _ => regs.map1_long(d, a, m, |x| x),
    }
}

/// Counts in 64 bits, with a result of 32.
pub(crate) fn long_count(regs: &mut Regs, f: Int1, d: Reg, a: Reg, mask: u32) {
    let a = *regs.long(a);
    let signless = |x: u64| x ^ (x.cast_signed() >> 63).cast_unsigned();
    let value = a.map(|x| match f {
        Int1::Clz => x.leading_zeros(),
        Int1::Popc => x.count_ones(),
        Int1::BfindU => 63_u32.wrapping_sub(x.leading_zeros()),
        Int1::BfindS => 63_u32.wrapping_sub(signless(x).leading_zeros()),
        Int1::BfindShiftU => shift_amount(x.leading_zeros(), 64),
        _ => shift_amount(signless(x).leading_zeros(), 64),
    });
    regs.put_words(d, &value, mask);
}

#[inline(always)]
fn signed2_long(f: impl Fn(i64, i64) -> i64) -> impl Fn(u64, u64) -> u64 {
    move |x, y| f(x.cast_signed(), y.cast_signed()).cast_unsigned()
}

#[inline(always)]
fn shift_long(regs: &mut Regs, [d, a, b]: [Reg; 3], m: u32, f: impl Fn(u64, u32) -> u64) {
    let (a, b) = (*regs.long(a), *regs.word(b));
    let mut value = [0; LANES];
    for lane in 0..LANES {
        value[lane] = f(a[lane], b[lane]);
    }
    regs.put_longs(d, &value, m);
}

#[inline(always)]
fn long2_inner(regs: &mut Regs, f: Int2, r: [Reg; 3], m: u32) {
    match f {
        Int2::Add => regs.map2_long(r, m, u64::wrapping_add),
        Int2::Sub => regs.map2_long(r, m, u64::wrapping_sub),
        Int2::Mul => regs.map2_long(r, m, u64::wrapping_mul),
        Int2::MulHiU => regs.map2_long(r, m, mul_hi_long_u),
        Int2::MulHiS => regs.map2_long(r, m, mul_hi_long_s),
        Int2::DivU => regs.map2_long(r, m, |x, y| x.checked_div(y).unwrap_or(u64::MAX)),
        Int2::DivS => regs.map2_long(
            r,
            m,
            signed2_long(|x, y| if y == 0 { -1 } else { x.wrapping_div(y) }),
        ),
        Int2::RemU => regs.map2_long(r, m, |x, y| x.checked_rem(y).unwrap_or(x)),
        Int2::RemS => regs.map2_long(
            r,
            m,
            signed2_long(|x, y| if y == 0 { x } else { x.wrapping_rem(y) }),
        ),
        Int2::MinU => regs.map2_long(r, m, u64::min),
        Int2::MinS => regs.map2_long(r, m, signed2_long(i64::min)),
        Int2::MaxU => regs.map2_long(r, m, u64::max),
        Int2::MaxS => regs.map2_long(r, m, signed2_long(i64::max)),
        Int2::And => regs.map2_long(r, m, |x, y| x & y),
        Int2::Or => regs.map2_long(r, m, |x, y| x | y),
        Int2::Xor => regs.map2_long(r, m, |x, y| x ^ y),
        Int2::Shl => shift_long(regs, r, m, |x, y| if y > 63 { 0 } else { x << y }),
        Int2::ShrU => shift_long(regs, r, m, |x, y| if y > 63 { 0 } else { x >> y }),
        Int2::ShrS => shift_long(regs, r, m, |x, y| {
            (x.cast_signed() >> y.min(63)).cast_unsigned()
        }),
    }
}

#[inline(always)]
fn mul_hi_long_u(x: u64, y: u64) -> u64 {
    ((u128::from(x) * u128::from(y)) >> 64) as u64
}

#[inline(always)]
fn mul_hi_long_s(x: u64, y: u64) -> u64 {
    ((i128::from(x.cast_signed()) * i128::from(y.cast_signed())) >> 64) as u64
}

/// Three operands of 64 bits; the position and length of a bit field have 32.
pub(crate) fn long3(regs: &mut Regs, f: Int3, r: [Reg; 4], mask: u32) {
    match f {
        Int3::Mad => regs.map3_long(r, mask, |x, y, z| x.wrapping_mul(y).wrapping_add(z)),
        Int3::MadHiU => regs.map3_long(r, mask, |x, y, z| mul_hi_long_u(x, y).wrapping_add(z)),
        Int3::MadHiS => regs.map3_long(r, mask, |x, y, z| mul_hi_long_s(x, y).wrapping_add(z)),
        Int3::SadU => regs.map3_long(r, mask, |x, y, z| x.abs_diff(y).wrapping_add(z)),
        Int3::SadS => {
            regs.map3_long(r, mask, |x, y, z| {
                x.cast_signed().abs_diff(y.cast_signed()).wrapping_add(z)
            });
        }
        _ => {
            let [d, a, b, c] = r;
            let (a, b, c) = (*regs.long(a), *regs.word(b), *regs.word(c));
            let signed = f == Int3::BfeS;
            let value = std::array::from_fn(|lane| {
                let (x, pos, len) = (a[lane], b[lane], c[lane]);
                if signed {
                    extract_signed(x, pos, len, 64)
                } else {
                    extract(x, pos, len, 64)
                }
            });
            regs.put_longs(d, &value, mask);
        }
    }
}

#[inline(always)]
fn mad_wide_inner(regs: &mut Regs, signed: bool, [d, a, b, c]: [Reg; 4], m: u32) {
    let (a, b) = (*regs.word(a), *regs.word(b));
    let mut value = [0; LANES];
    if signed {
        for lane in 0..LANES {
            value[lane] = (i64::from(a[lane].cast_signed()) * i64::from(b[lane].cast_signed()))
                .cast_unsigned();
        }
    } else {
        for lane in 0..LANES {
            value[lane] = u64::from(a[lane]) * u64::from(b[lane]);
        }
    }
    if c != NONE {
        let c = regs.long(c);
        for lane in 0..LANES {
            value[lane] = value[lane].wrapping_add(c[lane]);
        }
    }
    regs.put_longs(d, &value, m);
}

/// Inserts the low `len` bits of `a` into `b` at `pos`.
pub(crate) fn insert(a: u64, b: u64, pos: u32, len: u32, bits: u32) -> u64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if pos >= bits || len == 0 {
        return b;
    }
    let len = len.min(bits - pos);
    let field = if len >= 64 { u64::MAX } else { (1 << len) - 1 };
    (b & !(field << pos)) | ((a & field) << pos)
}

/// Which addition or subtraction: of 64 bits, taking the carry, leaving one.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one suffix of the instruction"
)]
pub(crate) struct Carrying {
    pub(crate) wide: bool,
    pub(crate) sub: bool,
    pub(crate) take: bool,
    pub(crate) leave: bool,
}

/// Addition or subtraction with carry, of 32 or 64 bits.
pub(crate) fn carry(regs: &mut Regs, kind: Carrying, [d, a, b]: [Reg; 3], mask: u32) {
    let Carrying {
        wide,
        sub,
        take,
        leave,
    } = kind;
    let carries = if take { regs.carry } else { 0 };
    let (mut out, mut value) = (0_u32, [0_u64; LANES]);
    for (lane, value) in value.iter_mut().enumerate() {
        let (x, y) = if wide {
            (regs.long(a)[lane], regs.long(b)[lane])
        } else {
            (u64::from(regs.word(a)[lane]), u64::from(regs.word(b)[lane]))
        };
        let c = u128::from(carries >> lane & 1);
        let (x, y) = (u128::from(x), u128::from(y));
        // A borrow is the carry out of `x - y - c`, seen as a negative number.
        let result = if sub {
            x.wrapping_sub(y).wrapping_sub(c)
        } else {
            x + y + c
        };
        let bits = if wide { 64 } else { 32 };
        out |= u32::from(result >> bits & 1 == 1) << lane;
        *value = result as u64;
    }
    if leave {
        regs.carry = (regs.carry & !mask) | (out & mask);
    }
    if d == NONE {
        return;
    }
    if wide {
        regs.put_longs(d, &value, mask);
    } else {
        regs.put_words(d, &value.map(|v| v as u32), mask);
    }
}
