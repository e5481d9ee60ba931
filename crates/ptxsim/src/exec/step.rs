//! What the rarer instructions do to registers.

use super::convert::{Mode, convert};
use super::regs::{FULL, LANES, Regs};
use super::{float, half, int, memory, mma};
use crate::isa::{Logic, NONE, Op, Space};

/// Arithmetic that is not in the fast path; false if `op` is something else.
pub(crate) fn arithmetic(regs: &mut Regs, op: &Op, mask: u32) -> bool {
    match *op {
        Op::Nop => {}
        Op::Bfi { d, a, b, pos, len } => bit_insert(regs, [d, a, b, pos, len], mask),
        Op::LongBfi { d, a, b, pos, len } => bit_insert_long(regs, [d, a, b, pos, len], mask),
        Op::LongCount { f, d, a } => int::long_count(regs, f, d, a, mask),
        Op::Long3 { f, d, a, b, c } => int::long3(regs, f, [d, a, b, c], mask),
        Op::Carry {
            wide,
            sub,
            take,
            leave,
            d,
            a,
            b,
        } => {
            int::carry(
                regs,
                int::Carrying {
                    wide,
                    sub,
                    take,
                    leave,
                },
                [d, a, b],
                mask,
            );
        }
        Op::FloatRound { f, round, d, a, b } => float::float_round(regs, f, round, [d, a, b], mask),
        Op::FmaRound { round, d, a, b, c } => float::fma_round(regs, round, [d, a, b, c], mask),
        Op::Double1 { f, d, a } => float::double1(regs, f, d, a, mask),
        Op::Double2 { f, d, a, b } => float::double2(regs, f, [d, a, b], mask),
        Op::DoubleFma { d, a, b, c } => float::double_fma(regs, [d, a, b, c], mask),
        Op::DoubleRound { f, round, d, a, b } => {
            float::double_round(regs, f, round, [d, a, b], mask);
        }
        Op::DoubleFmaRound { round, d, a, b, c } => {
            float::double_fma_round(regs, round, [d, a, b, c], mask);
        }
        Op::Half {
            f,
            bf16,
            packed,
            d,
            a,
            b,
            c,
        } => half::half(regs, f, bf16, packed, [d, a, b, c], mask),
        Op::Cvt {
            from,
            to,
            round,
            integer,
            sat,
            relu,
            d,
            a,
        } => {
            convert(
                regs,
                from,
                to,
                Mode {
                    round,
                    integer,
                    sat,
                    relu,
                },
                d,
                a,
                mask,
            );
        }
        Op::CvtPack {
            bf16,
            round,
            relu,
            d,
            a,
            b,
        } => half::pack(regs, bf16, round, relu, [d, a, b], mask),
        Op::CvtTf32 { d, a } => regs.map1(d, a, mask, mma::to_tf32),
        _ => return false,
    }
    true
}

/// Moves between registers, and questions about addresses; false if `op` is something else.
pub(crate) fn moves(regs: &mut Regs, op: &Op, mask: u32) -> bool {
    match *op {
        Op::Sel {
            p,
            negated,
            d,
            a,
            b,
        } => select(regs, p, negated, [d, a, b], mask),
        Op::LongSel {
            p,
            negated,
            d,
            a,
            b,
        } => select_long(regs, p, negated, [d, a, b], mask),
        Op::Pred {
            f,
            d,
            a,
            b,
            not_a,
            not_b,
        } => {
            let read = |reg: u32, not: bool| regs.preds[reg as usize] ^ if not { FULL } else { 0 };
            let value = logic(f, read(a, not_a), read(b, not_b));
            regs.set_pred(d, value, mask);
        }
        Op::Pack32 { d, lo, hi } => regs.map2([d, lo, hi], mask, |lo, hi| lo & 0xffff | hi << 16),
        Op::Unpack32 { lo, hi, a } => {
            let a = *regs.word(a);
            put(regs, lo, a.map(|x| x & 0xffff), mask);
            put(regs, hi, a.map(|x| x >> 16), mask);
        }
        Op::Pack64 { d, lo, hi } => {
            let (lo, hi) = (*regs.word(lo), *regs.word(hi));
            let value = std::array::from_fn(|l| u64::from(hi[l]) << 32 | u64::from(lo[l]));
            regs.put_longs(d, &value, mask);
        }
        Op::Unpack64 { lo, hi, a } => {
            let a = *regs.long(a);
            put(regs, lo, a.map(|x| x as u32), mask);
            put(regs, hi, a.map(|x| (x >> 32) as u32), mask);
        }
        Op::Cvta { space, to, d, a } => {
            let window = match space {
                Space::Shared => memory::SHARED_WINDOW,
                Space::Local => memory::LOCAL_WINDOW,
                Space::Param => memory::PARAM_WINDOW,
                _ => 0,
            };
            regs.map1_long(d, a, mask, |x| {
                if to {
                    x.wrapping_sub(window)
                } else {
                    x.wrapping_add(window)
                }
            });
        }
        Op::IsSpace { space, p, a } => {
            let a = *regs.long(a);
            let inside = memory::lanes(mask).filter(|&l| memory::split_generic(a[l]).0 == space);
            let value = inside.fold(0, |m, l| m | 1 << l);
            regs.set_pred(p, value, mask);
        }
        _ => return false,
    }
    true
}

/// Stores a result, unless it is thrown away.
pub(crate) fn put(regs: &mut Regs, d: u32, value: [u32; LANES], mask: u32) {
    if d != NONE {
        regs.put_words(d, &value, mask);
    }
}

#[inline(always)]
fn logic(f: Logic, a: u32, b: u32) -> u32 {
    match f {
        Logic::And => a & b,
        Logic::Or => a | b,
        Logic::Xor => a ^ b,
    }
}

#[inline(always)]
pub(crate) fn set_predicates(
    regs: &mut Regs,
    holds: u32,
    p: u32,
    q: u32,
    with: Option<(Logic, u32, bool)>,
    mask: u32,
) {
    let (yes, no) = match with {
        None => (holds, !holds),
        Some((f, reg, negated)) => {
            let c = regs.preds[reg as usize] ^ if negated { FULL } else { 0 };
            (logic(f, holds, c), logic(f, !holds, c))
        }
    };
    if p != NONE {
        regs.set_pred(p, yes, mask);
    }
    if q != NONE {
        regs.set_pred(q, no, mask);
    }
}

fn select(regs: &mut Regs, p: u32, negated: bool, r: [u32; 3], mask: u32) {
    let p = regs.preds[p as usize] ^ if negated { FULL } else { 0 };
    let [d, a, b] = r;
    let (a, b) = (*regs.word(a), *regs.word(b));
    let mut value = [0; LANES];
    for lane in 0..LANES {
        let keep = 0_u32.wrapping_sub(p >> lane & 1);
        value[lane] = (a[lane] & keep) | (b[lane] & !keep);
    }
    regs.put_words(d, &value, mask);
}

fn select_long(regs: &mut Regs, p: u32, negated: bool, r: [u32; 3], mask: u32) {
    let p = regs.preds[p as usize] ^ if negated { FULL } else { 0 };
    let [d, a, b] = r;
    let (a, b) = (*regs.long(a), *regs.long(b));
    let value = std::array::from_fn(|lane| if p >> lane & 1 == 1 { a[lane] } else { b[lane] });
    regs.put_longs(d, &value, mask);
}

fn bit_insert(regs: &mut Regs, [d, a, b, pos, len]: [u32; 5], mask: u32) {
    let (a, b, pos, len) = (
        *regs.word(a),
        *regs.word(b),
        *regs.word(pos),
        *regs.word(len),
    );
    let value = std::array::from_fn(|l| {
        int::insert(u64::from(a[l]), u64::from(b[l]), pos[l], len[l], 32) as u32
    });
    regs.put_words(d, &value, mask);
}

fn bit_insert_long(regs: &mut Regs, [d, a, b, pos, len]: [u32; 5], mask: u32) {
    let (a, b, pos, len) = (
        *regs.long(a),
        *regs.long(b),
        *regs.word(pos),
        *regs.word(len),
    );
    let value = std::array::from_fn(|l| int::insert(a[l], b[l], pos[l], len[l], 64));
    regs.put_longs(d, &value, mask);
}

/// Writes the result of a `bar.red` once its barrier is complete.
pub(crate) fn finish_reduction(regs: &mut Regs, op: &Op, votes: u32, threads: u32, mask: u32) {
    let Op::BarRed { f, d, .. } = *op else { return };
    if d == NONE {
        return;
    }
    match f {
        None => regs.put_words(d, &[votes; LANES], mask),
        Some(Logic::And) => regs.set_pred(d, if votes == threads { FULL } else { 0 }, mask),
        Some(_) => regs.set_pred(d, if votes > 0 { FULL } else { 0 }, mask),
    }
}
