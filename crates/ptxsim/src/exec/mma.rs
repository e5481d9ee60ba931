//! Matrix products of a warp, and the movement of their operands.

use super::half::{bf16_of, f16_of, from_bf16, from_f16};
use super::regs::{LANES, Regs, wide};
use crate::isa::{Mma, MmaKind, Reg, Round};

type Tile<const R: usize, const C: usize> = [[f32; C]; R];

wide! {
    /// `d = a * b + c` of one tile of 16 by 8.
    fn mma(regs: &mut Regs, mma: &Mma) = mma_inner
}

#[inline(always)]
fn mma_inner(regs: &mut Regs, mma: &Mma) {
    match mma.kind {
        MmaKind::Bf16 { k: 16 } => half16(regs, mma, from_bf16),
        MmaKind::F16 { k: 16 } => half16(regs, mma, from_f16),
        MmaKind::Bf16 { .. } => half8(regs, mma, from_bf16),
        MmaKind::F16 { .. } => half8(regs, mma, from_f16),
        MmaKind::F16Acc16 { k } => narrow(regs, mma, k),
        MmaKind::Tf32 { k } => tf32(regs, mma, k),
        MmaKind::I8 {
            a_signed,
            b_signed,
            k,
        } => bytes(regs, mma, a_signed, b_signed, k),
    }
}

/// Row and first column of the two elements that register `i` of a lane holds, in tiles of 16-bit elements.
#[inline(always)]
fn place(lane: usize, i: usize) -> (usize, usize) {
    (lane / 4 + 8 * (i & 1), lane % 4 * 2 + 8 * (i / 2))
}

#[inline(always)]
fn load_a<const K: usize>(regs: &Regs, list: &[Reg], convert: impl Fn(u32) -> f32) -> Tile<16, K> {
    let mut a = [[0.0; K]; 16];
    for (i, &reg) in list.iter().enumerate() {
        let word = regs.word(reg);
        for (lane, &bits) in word.iter().enumerate() {
            let (row, column) = place(lane, i);
            a[row][column] = convert(bits & 0xffff);
            a[row][column + 1] = convert(bits >> 16);
        }
    }
    a
}

#[inline(always)]
fn load_b<const K: usize>(regs: &Regs, list: &[Reg], convert: impl Fn(u32) -> f32) -> Tile<K, 8> {
    let mut b = [[0.0; 8]; K];
    for (i, &reg) in list.iter().enumerate() {
        let word = regs.word(reg);
        for (lane, &bits) in word.iter().enumerate() {
            let row = lane % 4 * 2 + 8 * i;
            b[row][lane / 4] = convert(bits & 0xffff);
            b[row + 1][lane / 4] = convert(bits >> 16);
        }
    }
    b
}

#[inline(always)]
fn load_c(regs: &Regs, list: &[Reg]) -> Tile<16, 8> {
    let mut c = [[0.0; 8]; 16];
    for (i, &reg) in list.iter().enumerate() {
        for (lane, &bits) in regs.word(reg).iter().enumerate() {
            c[lane / 4 + 8 * (i / 2)][lane % 4 * 2 + (i & 1)] = f32::from_bits(bits);
        }
    }
    c
}

#[inline(always)]
fn store_d(regs: &mut Regs, list: &[Reg], d: &Tile<16, 8>) {
    for (i, &reg) in list.iter().enumerate() {
        for (lane, bits) in regs.word_mut(reg).iter_mut().enumerate() {
            *bits = d[lane / 4 + 8 * (i / 2)][lane % 4 * 2 + (i & 1)].to_bits();
        }
    }
}

#[inline(always)]
fn multiply<const K: usize>(a: &Tile<16, K>, b: &Tile<K, 8>, mut d: Tile<16, 8>) -> Tile<16, 8> {
    for (row, sums) in a.iter().zip(&mut d) {
        let mut acc = *sums;
        for (x, column) in row.iter().zip(b) {
            for (sum, y) in acc.iter_mut().zip(column) {
                *sum += x * y;
            }
        }
        *sums = acc;
    }
    d
}

#[inline(always)]
fn half16(regs: &mut Regs, mma: &Mma, convert: impl Fn(u32) -> f32 + Copy) {
    let (a, b) = (
        load_a::<16>(regs, &mma.a, convert),
        load_b::<16>(regs, &mma.b, convert),
    );
    let d = multiply(&a, &b, load_c(regs, &mma.c));
    store_d(regs, &mma.d, &d);
}

#[inline(always)]
fn half8(regs: &mut Regs, mma: &Mma, convert: impl Fn(u32) -> f32 + Copy) {
    let (a, b) = (
        load_a::<8>(regs, &mma.a, convert),
        load_b::<8>(regs, &mma.b, convert),
    );
    let d = multiply(&a, &b, load_c(regs, &mma.c));
    store_d(regs, &mma.d, &d);
}

/// Accumulators of 16 bits: the sum is rounded once at the end.
fn narrow(regs: &mut Regs, mma: &Mma, k: u8) {
    let mut c = [[0.0; 8]; 16];
    for (i, &reg) in mma.c.iter().enumerate() {
        for (lane, &bits) in regs.word(reg).iter().enumerate() {
            c[lane / 4 + 8 * i][lane % 4 * 2] = from_f16(bits & 0xffff);
            c[lane / 4 + 8 * i][lane % 4 * 2 + 1] = from_f16(bits >> 16);
        }
    }
    let d = if k == 16 {
        multiply(
            &load_a::<16>(regs, &mma.a, from_f16),
            &load_b::<16>(regs, &mma.b, from_f16),
            c,
        )
    } else {
        multiply(
            &load_a::<8>(regs, &mma.a, from_f16),
            &load_b::<8>(regs, &mma.b, from_f16),
            c,
        )
    };
    for (i, &reg) in mma.d.iter().enumerate() {
        for (lane, bits) in regs.word_mut(reg).iter_mut().enumerate() {
            let row = &d[lane / 4 + 8 * i];
            let narrow = |x: f32| f16_of(f64::from(x), Round::Nearest);
            *bits = narrow(row[lane % 4 * 2]) | narrow(row[lane % 4 * 2 + 1]) << 16;
        }
    }
}

/// Operands of 19 bits: the 13 lowest bits of an `f32` do not count.
fn tf32(regs: &mut Regs, mma: &Mma, k: u8) {
    let value = |bits: u32| f32::from_bits(bits & !0x1fff);
    let (mut a, mut b) = ([[0.0; 8]; 16], [[0.0; 8]; 8]);
    let columns = usize::from(k);
    for (i, &reg) in mma.a.iter().enumerate() {
        for (lane, &bits) in regs.word(reg).iter().enumerate() {
            a[lane / 4 + 8 * (i & 1)][lane % 4 + 4 * (i / 2)] = value(bits);
        }
    }
    for (i, &reg) in mma.b.iter().enumerate() {
        for (lane, &bits) in regs.word(reg).iter().enumerate() {
            let row = lane % 4 + 4 * i;
            if row < columns {
                b[row][lane / 4] = value(bits);
            }
        }
    }
    let d = multiply(&a, &b, load_c(regs, &mma.c));
    store_d(regs, &mma.d, &d);
}

/// Bytes with sums of 32 bits that wrap.
fn bytes(regs: &mut Regs, mma: &Mma, a_signed: bool, b_signed: bool, k: u8) {
    let byte = |bits: u32, i: usize, signed: bool| {
        let byte = bits >> (8 * i) & 0xff;
        if signed {
            (byte << 24).cast_signed() >> 24
        } else {
            byte.cast_signed()
        }
    };
    let (mut a, mut b) = ([[0; 32]; 16], [[0; 8]; 32]);
    for (i, &reg) in mma.a.iter().enumerate() {
        for (lane, &bits) in regs.word(reg).iter().enumerate() {
            for part in 0..4 {
                a[lane / 4 + 8 * (i & 1)][lane % 4 * 4 + 16 * (i / 2) + part] =
                    byte(bits, part, a_signed);
            }
        }
    }
    for (i, &reg) in mma.b.iter().enumerate() {
        for (lane, &bits) in regs.word(reg).iter().enumerate() {
            for part in 0..4 {
                b[lane % 4 * 4 + 16 * i + part][lane / 4] = byte(bits, part, b_signed);
            }
        }
    }
    let mut sums = [[0_i32; LANES]; 4];
    for (i, sum) in sums.iter_mut().enumerate() {
        let c = regs.word(mma.c[i]);
        for lane in 0..LANES {
            let (row, column) = (lane / 4 + 8 * (i / 2), lane % 4 * 2 + (i & 1));
            let mut value = c[lane].cast_signed();
            for step in 0..usize::from(k) {
                value = value.wrapping_add(a[row][step].wrapping_mul(b[step][column]));
            }
            sum[lane] = value;
        }
    }
    for (i, sum) in sums.iter().enumerate() {
        *regs.word_mut(mma.d[i]) = sum.map(i32::cast_unsigned);
    }
}

/// Rounds to the 10 bits of fraction that `tf32` has.
pub(crate) fn to_tf32(bits: u32) -> u32 {
    if bits & 0x7f80_0000 == 0x7f80_0000 {
        bits
    } else {
        bits.wrapping_add(0x1000) & !0x1fff
    }
}

/// What lane `lane` gets of a matrix of 8 rows of 8 elements, as two packed elements.
pub(crate) fn fragment(rows: &[[u16; 8]; 8], lane: usize, trans: bool) -> u32 {
    let (row, column) = (lane / 4, lane % 4 * 2);
    let (low, high) = if trans {
        (rows[column][row], rows[column + 1][row])
    } else {
        (rows[row][column], rows[row][column + 1])
    };
    u32::from(low) | u32::from(high) << 16
}

/// The inverse of [`fragment`].
pub(crate) fn unfragment(word: &[u32; LANES], trans: bool) -> [[u16; 8]; 8] {
    let mut rows = [[0; 8]; 8];
    for (lane, &bits) in word.iter().enumerate() {
        let (row, column) = (lane / 4, lane % 4 * 2);
        let (low, high) = ((bits & 0xffff) as u16, (bits >> 16) as u16);
        if trans {
            rows[column][row] = low;
            rows[column + 1][row] = high;
        } else {
            rows[row][column] = low;
            rows[row][column + 1] = high;
        }
    }
    rows
}

/// `movmatrix`: transposes a matrix that lies in the registers of a warp.
pub(crate) fn transpose(regs: &mut Regs, d: Reg, a: Reg) {
    let rows = unfragment(regs.word(a), false);
    let value: [u32; LANES] = std::array::from_fn(|lane| fragment(&rows, lane, true));
    *regs.word_mut(d) = value;
}

/// Used by atomics on packed numbers.
pub(crate) fn add_half(bf16: bool, x: u32, y: u32) -> u32 {
    let wide = |bits: u32| {
        f64::from(if bf16 {
            from_bf16(bits)
        } else {
            from_f16(bits)
        })
    };
    let sum = wide(x) + wide(y);
    if bf16 {
        bf16_of(sum, Round::Nearest)
    } else {
        f16_of(sum, Round::Nearest)
    }
}
