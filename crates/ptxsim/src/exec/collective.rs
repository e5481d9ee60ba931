//! Instructions in which the lanes of a warp take part together.

use super::block::Env;
use super::memory::{Touch, addresses, lanes, touch};
use super::mma::{fragment, transpose, unfragment};
use super::regs::{FULL, LANES, Regs};
use super::step::put;
use super::warp::{Fault, Warp};
use crate::isa::{Inst, Int2, NONE, Op, Reg, Shfl, Space, Vote};
use crate::memory::Use;

/// Whether all lanes were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Some of these lanes are missing.
    Wait(u32),
}

/// The lanes that a mask operand names: it is the same in all of them.
fn named(regs: &Regs, reg: Reg, mask: u32) -> u32 {
    regs.word(reg)[mask.trailing_zeros() as usize]
}

/// Executes a collective if all its lanes are in `mask`.
pub(crate) fn collective(
    warp: &mut Warp,
    inst: &Inst,
    mask: u32,
    env: &mut Env<'_>,
) -> Result<Outcome, Fault> {
    let regs = &mut warp.regs;
    let wanted = match inst.op {
        Op::Shfl { mask: reg, .. }
        | Op::Vote { mask: reg, .. }
        | Op::Match { mask: reg, .. }
        | Op::Redux { mask: reg, .. }
        | Op::ElectSync { mask: reg, .. }
        | Op::SyncWarp { mask: reg } => named(regs, reg, mask) & warp.threads,
        Op::ActiveMask { .. } => mask,
        _ => FULL,
    };
    // A lane that executes a collective without being named by it has its own mask to wait for.
    if wanted & !mask != 0 {
        return Ok(Outcome::Wait(wanted));
    }
    match inst.op {
        Op::Shfl {
            f, d, p, a, b, c, ..
        } => shuffle(regs, f, [d, p, a, b, c], mask),
        Op::Vote {
            f, d, a, negated, ..
        } => {
            let p = regs.preds[a as usize] ^ if negated { FULL } else { 0 };
            let votes = p & wanted;
            let holds = |yes: bool| if yes { FULL } else { 0 };
            match f {
                Vote::Ballot => put(regs, d, [votes; LANES], mask),
                Vote::Any => regs.set_pred(d, holds(votes != 0), mask),
                Vote::All => regs.set_pred(d, holds(votes == wanted), mask),
                Vote::Uni => regs.set_pred(d, holds(votes == 0 || votes == wanted), mask),
            }
        }
        Op::Match {
            all, wide, d, p, a, ..
        } => match_lanes(regs, all, wide, [d, p, a], wanted, mask),
        Op::Redux { f, d, a, .. } => {
            let values = *regs.word(a);
            let result = lanes(wanted)
                .map(|lane| values[lane])
                .reduce(|x, y| reduce(f, x, y))
                .unwrap_or(0);
            put(regs, d, [result; LANES], mask);
        }
        Op::ActiveMask { d } => put(regs, d, [mask; LANES], mask),
        Op::ElectSync { d, p, .. } => {
            let leader = wanted.trailing_zeros();
            put(regs, d, [leader; LANES], mask);
            if p != NONE {
                regs.set_pred(p, 1_u32.wrapping_shl(leader), mask);
            }
        }
        Op::SyncWarp { .. } => {
            if let Some(shadow) = &mut env.shadow {
                shadow.sync_warp(warp.id);
            }
        }
        Op::LdMatrix {
            n,
            trans,
            addr,
            regs: list,
        } => {
            let at = addresses(regs, addr);
            ld_matrix(warp, usize::from(n), trans, &at, list, env)?;
        }
        Op::StMatrix {
            n,
            trans,
            addr,
            regs: list,
        } => {
            let at = addresses(regs, addr);
            st_matrix(warp, usize::from(n), trans, &at, list, env)?;
        }
        Op::MovMatrix { d, a } => transpose(regs, d, a),
        _ => {}
    }
    Ok(Outcome::Done)
}

fn reduce(f: Int2, x: u32, y: u32) -> u32 {
    match f {
        Int2::Add => x.wrapping_add(y),
        Int2::MinU => x.min(y),
        Int2::MaxU => x.max(y),
        Int2::MinS => x.cast_signed().min(y.cast_signed()).cast_unsigned(),
        Int2::MaxS => x.cast_signed().max(y.cast_signed()).cast_unsigned(),
        Int2::And => x & y,
        Int2::Or => x | y,
        _ => x ^ y,
    }
}

/// `shfl.sync`, by the pseudo-code of the PTX manual.
fn shuffle(regs: &mut Regs, f: Shfl, [d, p, a, b, c]: [Reg; 5], mask: u32) {
    let (a, b, c) = (*regs.word(a), *regs.word(b), *regs.word(c));
    let (mut value, mut inside) = ([0; LANES], 0_u32);
    for lane in 0..LANES {
        let at = lane as u32;
        let (by, clamp, segment) = (b[lane] & 31, c[lane] & 31, c[lane] >> 8 & 31);
        let max = (at & segment) | (clamp & !segment);
        let min = at & segment;
        let (source, within) = match f {
            Shfl::Up => (
                at.wrapping_sub(by),
                at.cast_signed() - by.cast_signed() >= max.cast_signed(),
            ),
            Shfl::Down => (at + by, at + by <= max),
            Shfl::Bfly => (at ^ by, at ^ by <= max),
            Shfl::Idx => {
                let source = min | (by & !segment);
                (source, source <= max)
            }
        };
        let source = if within { source } else { at };
        inside |= u32::from(within) << lane;
        value[lane] = a[source as usize & 31];
    }
    put(regs, d, value, mask);
    if p != NONE {
        regs.set_pred(p, inside, mask);
    }
}

fn match_lanes(
    regs: &mut Regs,
    all: bool,
    wide: bool,
    [d, p, a]: [Reg; 3],
    wanted: u32,
    mask: u32,
) {
    let values = if wide {
        *regs.long(a)
    } else {
        regs.word(a).map(u64::from)
    };
    let same = |lane: usize| {
        lanes(wanted)
            .filter(|&l| values[l] == values[lane])
            .fold(0_u32, |m, l| m | 1 << l)
    };
    let mut result: [u32; LANES] = std::array::from_fn(same);
    if all {
        let agree = lanes(wanted).all(|lane| result[lane] == wanted);
        result = [if agree { wanted } else { 0 }; LANES];
        if p != NONE {
            regs.set_pred(p, if agree { FULL } else { 0 }, mask);
        }
    }
    put(regs, d, result, mask);
}

/// Checks the rows of `n` matrices, one address per lane: a matrix's 8 rows are one access of a warp.
fn touch_rows(
    warp: &Warp,
    n: usize,
    at: &[u64; LANES],
    usage: Use,
    env: &mut Env<'_>,
) -> Result<[u64; LANES], Fault> {
    let mut rows = *at;
    for row in &mut rows {
        // Generic addresses of shared memory are allowed as well.
        *row &= 0x00ff_ffff_ffff_ffff;
    }
    for matrix in 0..n {
        let mask = 0xff << (8 * matrix);
        touch(
            warp,
            env,
            Touch {
                space: Space::Shared,
                at: &rows,
                bytes: 16,
                mask,
                usage,
            },
        )?;
    }
    env.stats.ldmatrix += 1;
    Ok(rows)
}

fn ld_matrix(
    warp: &mut Warp,
    n: usize,
    trans: bool,
    at: &[u64; LANES],
    list: [Reg; 4],
    env: &mut Env<'_>,
) -> Result<(), Fault> {
    let at = touch_rows(warp, n, at, Use::Read, env)?;
    for (matrix, &reg) in list[..n].iter().enumerate() {
        let mut rows = [[0_u16; 8]; 8];
        for (i, row) in rows.iter_mut().enumerate() {
            let start = at[8 * matrix + i] as usize;
            let bytes = &env.shared[start..start + 16];
            for (element, pair) in row.iter_mut().zip(bytes.chunks_exact(2)) {
                *element = u16::from_le_bytes([pair[0], pair[1]]);
            }
        }
        let value: [u32; LANES] = std::array::from_fn(|lane| fragment(&rows, lane, trans));
        put(&mut warp.regs, reg, value, FULL);
    }
    Ok(())
}

fn st_matrix(
    warp: &Warp,
    n: usize,
    trans: bool,
    at: &[u64; LANES],
    list: [Reg; 4],
    env: &mut Env<'_>,
) -> Result<(), Fault> {
    let at = touch_rows(warp, n, at, Use::Write, env)?;
    for (matrix, &reg) in list[..n].iter().enumerate() {
        let rows = unfragment(warp.regs.word(reg), trans);
        for (i, row) in rows.iter().enumerate() {
            let start = at[8 * matrix + i] as usize;
            for (pair, element) in env.shared[start..start + 16].chunks_exact_mut(2).zip(row) {
                pair.copy_from_slice(&element.to_le_bytes());
            }
        }
    }
    Ok(())
}
