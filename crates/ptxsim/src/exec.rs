//! The interpreter: one instruction for the lanes of a warp that are at it.

use crate::alu;
use crate::block::Block;
use crate::convert::{Conversion, convert};
use crate::inst::{Cmp, F1, Inst, Num, Place, S32, Shuffle, Special, Step, Vote};
use crate::memory::{Fault, GLOBAL, LOCAL, SHARED, WINDOW};
use crate::warp::{FULL, Group, LANES, Lanes32, Lanes64, State, Warp};

mod memory;

/// What comes after an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Next,
    /// These lanes go there; the others on.
    Jump(u32, u32),
    /// Lanes that others must join first.
    Wait,
    /// The lanes went to places of their own.
    Scattered,
    /// All lanes are at a barrier.
    Barrier,
    /// These lanes are done.
    Exit(u32),
}

/// Runs a warp until it waits at a barrier or is done.
#[inline(always)]
pub(crate) fn run(block: &mut Block<'_>, warp: &mut Warp) -> Result<(), Fault> {
    'groups: loop {
        warp.merge();
        let Some(current) = warp.next_group() else {
            if warp.groups.is_empty() {
                warp.state = State::Done;
                block.land_all(warp)?;
                return Ok(());
            }
            let group = warp.groups[0];
            let step = &block.kernel.steps[group.pc as usize];
            let text = format!(
                "deadlock: lanes {:#010x} wait for lanes of their mask that never come",
                group.mask
            );
            return Err(block.located(Fault::Launch(text), step, warp, group.mask));
        };
        let alone = warp.groups.len() == 1;
        loop {
            let Group { pc, mask, .. } = warp.groups[current];
            let Some(step) = block.kernel.steps.get(pc as usize) else {
                // The end of the text is an exit.
                warp.groups.swap_remove(current);
                continue 'groups;
            };
            let active = match step.guard {
                Some(guard) => mask & warp.predicate(guard),
                None => mask,
            };
            block.stats.instructions += 1;
            let flow = match active {
                0 => Flow::Next,
                _ => execute(block, warp, step, active, mask)
                    .map_err(|fault| block.located(fault, step, warp, active))?,
            };
            match flow {
                Flow::Next => {
                    warp.groups[current].pc = pc + 1;
                    if !alone {
                        continue 'groups;
                    }
                }
                Flow::Jump(target, lanes) if lanes == mask => {
                    warp.groups[current].pc = target;
                    if !alone {
                        continue 'groups;
                    }
                }
                Flow::Jump(target, lanes) => {
                    warp.groups[current] = Group {
                        pc: pc + 1,
                        mask: mask & !lanes,
                        waits: false,
                    };
                    warp.groups.push(Group {
                        pc: target,
                        mask: lanes,
                        waits: false,
                    });
                    continue 'groups;
                }
                Flow::Wait => {
                    warp.groups[current].waits = true;
                    continue 'groups;
                }
                Flow::Scattered => continue 'groups,
                Flow::Exit(lanes) if lanes == mask => {
                    warp.groups.swap_remove(current);
                    continue 'groups;
                }
                Flow::Exit(lanes) => {
                    warp.groups[current] = Group {
                        pc: pc + 1,
                        mask: mask & !lanes,
                        waits: false,
                    };
                    continue 'groups;
                }
                Flow::Barrier => {
                    warp.groups[current].pc = pc + 1;
                    return Ok(());
                }
            }
        }
    }
}

/// Lanes that a collective needs, as its mask says in the first active lane.
fn required(warp: &Warp, mask: S32, active: u32) -> u32 {
    warp.get(mask)[active.trailing_zeros() as usize] & warp.lanes
}

/// Whether the lanes that a collective needs are all here.
fn complete(warp: &Warp, needed: u32, active: u32) -> Result<bool, Fault> {
    if needed & !active == 0 {
        return Ok(true);
    }
    if needed & !warp.living() != 0 {
        let text = "a collective waits for lanes that have exited";
        return Err(Fault::Launch(text.to_owned()));
    }
    Ok(false)
}

#[inline(always)]
#[expect(clippy::too_many_lines, reason = "one arm per instruction")]
fn execute(
    block: &mut Block<'_>,
    warp: &mut Warp,
    step: &Step,
    active: u32,
    group: u32,
) -> Result<Flow, Fault> {
    match step.inst {
        Inst::Map1(f, d, a) => warp.set(d, &alu::one(f, &warp.get(a)), active),
        Inst::Map2(f, d, a, b) => warp.set(d, &alu::two(f, &warp.get(a), &warp.get(b)), active),
        Inst::Map3(f, d, a, b, c) => {
            let out = alu::three(f, &warp.get(a), &warp.get(b), &warp.get(c));
            warp.set(d, &out, active);
        }
        Inst::Narrow2(f, d, a, b, signed) => {
            let extend = |x: u32| {
                if signed {
                    x as u16 as i16 as u32
                } else {
                    x & 0xffff
                }
            };
            let out = alu::two(f, &warp.get(a).map(extend), &warp.get(b).map(extend));
            warp.set(d, &out.map(|x| x & 0xffff), active);
        }
        Inst::Wide1(f, d, a) => warp.set64(d, &alu::wide_one(f, &warp.get64(a)), active),
        Inst::Wide2(f, d, a, b) => {
            warp.set64(d, &alu::wide_two(f, &warp.get64(a), &warp.get64(b)), active);
        }
        Inst::Wide3(f, d, a, b, c) => {
            let out = alu::wide_three(f, &warp.get64(a), &warp.get64(b), &warp.get64(c));
            warp.set64(d, &out, active);
        }
        Inst::Shift64(f, d, a, n) => {
            warp.set64(d, &alu::shift64(f, &warp.get64(a), &warp.get(n)), active);
        }
        Inst::MulWide(signed, d, a, b, term) => {
            let (a, b) = (warp.get(a), warp.get(b));
            let mut out = match term {
                Some(term) => warp.get64(term),
                None => [0; LANES],
            };
            for lane in 0..LANES {
                let product = match signed {
                    true => (i64::from(a[lane] as i32) * i64::from(b[lane] as i32)) as u64,
                    false => u64::from(a[lane]) * u64::from(b[lane]),
                };
                out[lane] = out[lane].wrapping_add(product);
            }
            warp.set64(d, &out, active);
        }
        Inst::MulWide16(signed, d, a, b) => {
            let (a, b) = (warp.get(a), warp.get(b));
            let out: Lanes32 = std::array::from_fn(|lane| match signed {
                true => (i32::from(a[lane] as i16) * i32::from(b[lane] as i16)) as u32,
                false => (a[lane] & 0xffff) * (b[lane] & 0xffff),
            });
            warp.set(d, &out, active);
        }
        Inst::Bfi32(d, a, b, position, length) => {
            let [a, b, p, n] = [a, b, position, length].map(|s| warp.get(s));
            let out: Lanes32 = std::array::from_fn(|i| {
                alu::insert(a[i].into(), b[i].into(), p[i], n[i], 32) as u32
            });
            warp.set(d, &out, active);
        }
        Inst::Bfi64(d, a, b, position, length) => {
            let (a, b) = (warp.get64(a), warp.get64(b));
            let (p, n) = (warp.get(position), warp.get(length));
            let out: Lanes64 = std::array::from_fn(|i| alu::insert(a[i], b[i], p[i], n[i], 64));
            warp.set64(d, &out, active);
        }
        Inst::Count64(f, d, a) => {
            let count = |x: u64| {
                if f == F1::Popc {
                    x.count_ones()
                } else {
                    x.leading_zeros()
                }
            };
            warp.set(d, &warp.get64(a).map(count), active);
        }
        Inst::Select32(d, a, b, p) => {
            let (chosen, p) = (warp.get(a), warp.predicate(p));
            let mut out = warp.get(b);
            for lane in 0..LANES {
                let keep = (p >> lane & 1).wrapping_sub(1);
                out[lane] = (out[lane] & keep) | (chosen[lane] & !keep);
            }
            warp.set(d, &out, active);
        }
        Inst::Select64(d, a, b, p) => {
            let (chosen, p) = (warp.get64(a), warp.predicate(p));
            let mut out = warp.get64(b);
            for lane in 0..LANES {
                if p >> lane & 1 == 1 {
                    out[lane] = chosen[lane];
                }
            }
            warp.set64(d, &out, active);
        }
        Inst::Compare {
            cmp,
            what,
            d,
            complement,
            combine,
        } => {
            let bits = alu::compare(warp, cmp, what);
            let (mut yes, mut no) = (bits, !bits);
            if let Some((op, p)) = combine {
                let p = warp.predicate(p);
                (yes, no) = (alu::combine(op, yes, p), alu::combine(op, no, p));
            }
            warp.set_predicate(d, yes, active);
            if let Some(complement) = complement {
                warp.set_predicate(complement, no, active);
            }
        }
        Inst::PredMove(d, a) => warp.set_predicate(d, warp.predicate(a), active),
        Inst::PredConstant(d, bit) => warp.set_predicate(d, if bit { FULL } else { 0 }, active),
        Inst::PredNot(d, a) => warp.set_predicate(d, !warp.predicate(a), active),
        Inst::PredBool(op, d, a, b) => {
            let bits = alu::combine(op, warp.predicate(a), warp.predicate(b));
            warp.set_predicate(d, bits, active);
        }
        Inst::Pack64(d, low, high) => {
            let (low, high) = (warp.get(low), warp.get(high));
            let out = std::array::from_fn(|i| u64::from(high[i]) << 32 | u64::from(low[i]));
            warp.set64(d, &out, active);
        }
        Inst::Pack64x4(d, parts) => {
            let parts = parts.map(|s| warp.get(s));
            let part = |i: usize, k: usize| u64::from(parts[k][i] & 0xffff) << (16 * k);
            let out = std::array::from_fn(|i| part(i, 0) | part(i, 1) | part(i, 2) | part(i, 3));
            warp.set64(d, &out, active);
        }
        Inst::Unpack64(low, high, a) => {
            let a = warp.get64(a);
            warp.set(low, &a.map(|x| x as u32), active);
            warp.set(high, &a.map(|x| (x >> 32) as u32), active);
        }
        Inst::Unpack64x4(parts, a) => {
            let a = warp.get64(a);
            for (k, d) in parts.into_iter().enumerate() {
                warp.set(d, &a.map(|x| (x >> (16 * k)) as u32 & 0xffff), active);
            }
        }
        Inst::Pack32(d, low, high) => {
            let (low, high) = (warp.get(low), warp.get(high));
            let mut out = [0; LANES];
            for lane in 0..LANES {
                out[lane] = high[lane] << 16 | (low[lane] & 0xffff);
            }
            warp.set(d, &out, active);
        }
        Inst::Unpack32(low, high, a) => {
            let a = warp.get(a);
            warp.set(low, &a.map(|x| x & 0xffff), active);
            warp.set(high, &a.map(|x| x >> 16), active);
        }
        Inst::Convert {
            from,
            to,
            rounding,
            integral,
            saturate,
            relu,
            d,
            a,
        } => {
            let c = Conversion {
                from,
                to,
                rounding,
                integral,
                saturate,
                relu,
            };
            convert_lanes(warp, c, d, a, active);
        }
        Inst::ConvertPair(half, relu, d, a, b) => {
            let (a, b) = (warp.get(a), warp.get(b));
            let one = |bits: u32| {
                let x = f32::from_bits(bits);
                alu::to_half(half, if relu && x < 0.0 { 0.0 } else { x })
            };
            let mut out = [0; LANES];
            for lane in 0..LANES {
                out[lane] = one(a[lane]) << 16 | one(b[lane]);
            }
            warp.set(d, &out, active);
        }
        Inst::AddCarry {
            wide,
            subtract,
            carry_in,
            carry_out,
            d,
            a,
            b,
        } => {
            let (a, b) = (warp.place(a), warp.place(b));
            let mask = if wide { u64::MAX } else { u64::from(u32::MAX) };
            let (mut out, mut carries) = ([0; LANES], 0);
            for lane in 0..LANES {
                // Subtraction adds the complement; its carry is the absence of a borrow.
                let b = if subtract {
                    !b[lane] & mask
                } else {
                    b[lane] & mask
                };
                let carry = match carry_in {
                    true => u128::from(warp.carry >> lane & 1),
                    false => u128::from(subtract),
                };
                let sum = u128::from(a[lane] & mask) + u128::from(b) + carry;
                out[lane] = sum as u64 & mask;
                carries |= u32::from(sum > u128::from(mask)) << lane;
            }
            warp.set_place(d, &out, active);
            if carry_out {
                warp.carry = (warp.carry & !active) | (carries & active);
            }
        }
        Inst::ReadSpecial(d, special) => {
            let out = special_lanes(block, warp, special);
            warp.set(d, &out, active);
        }
        Inst::ReadSpecial64(d, special) => {
            let out = special_lanes(block, warp, special).map(u64::from);
            warp.set64(d, &out, active);
        }
        Inst::ToGeneric(space, d, a) => {
            let base = memory::window(space);
            warp.set64(d, &warp.get64(a).map(|x| x.wrapping_add(base)), active);
        }
        Inst::FromGeneric(space, d, a) => {
            let base = memory::window(space);
            warp.set64(d, &warp.get64(a).map(|x| x.wrapping_sub(base)), active);
        }
        Inst::IsSpace(space, d, a) => {
            let mut bits = 0;
            for (lane, address) in warp.get64(a).into_iter().enumerate() {
                let inside = match memory::window(space) {
                    0 => address >= GLOBAL,
                    base => address >= base && address < base + WINDOW,
                };
                bits |= u32::from(inside) << lane;
            }
            warp.set_predicate(d, bits, active);
        }
        Inst::Shuffle {
            mode,
            d,
            valid,
            a,
            b,
            c,
            mask,
        } => {
            let needed = required(warp, mask, active);
            if !complete(warp, needed, active)? {
                return Ok(Flow::Wait);
            }
            let (out, ok) = shuffle(mode, &warp.get(a), &warp.get(b), &warp.get(c));
            warp.set(d, &out, active);
            if let Some(valid) = valid {
                warp.set_predicate(valid, ok, active);
            }
        }
        Inst::Vote { mode, d, a, mask } => {
            let needed = required(warp, mask, active);
            if !complete(warp, needed, active)? {
                return Ok(Flow::Wait);
            }
            let bits = warp.predicate(a) & needed;
            let as_predicate = |yes: bool| if yes { FULL } else { 0 };
            match mode {
                Vote::Ballot => warp.set(d, &[bits; LANES], active),
                Vote::All => warp.set_predicate(d, as_predicate(bits == needed), active),
                Vote::Any => warp.set_predicate(d, as_predicate(bits != 0), active),
                Vote::Uniform => {
                    let uniform = bits == 0 || bits == needed;
                    warp.set_predicate(d, as_predicate(uniform), active);
                }
            }
        }
        Inst::MatchAny(d, a, mask) => {
            let needed = required(warp, mask, active);
            if !complete(warp, needed, active)? {
                return Ok(Flow::Wait);
            }
            let a = warp.get(a);
            let same = |lane: usize| {
                let equal = (0..LANES).filter(|&other| a[other] == a[lane]);
                equal.fold(0, |mask, other| mask | 1 << other) & needed
            };
            warp.set(d, &std::array::from_fn(same), active);
        }
        Inst::ActiveMask(d) => warp.set(d, &[active; LANES], active),
        Inst::Reduce(f, d, a, mask) => {
            let needed = required(warp, mask, active);
            if !complete(warp, needed, active)? {
                return Ok(Flow::Wait);
            }
            let a = warp.get(a);
            let mut lanes = (0..LANES).filter(|lane| needed >> lane & 1 == 1);
            let first = lanes.next().map_or(0, |lane| a[lane]);
            let all = lanes.fold(first, |all, lane| {
                alu::two(f, &[all; LANES], &[a[lane]; LANES])[0]
            });
            warp.set(d, &[all; LANES], active);
        }
        Inst::SyncWarp(mask) => {
            let needed = required(warp, mask, active);
            if !complete(warp, needed, active)? {
                return Ok(Flow::Wait);
            }
        }
        Inst::Barrier(id, threads) => {
            // All lanes that live arrive together.
            if warp.living() != active {
                return match warp.groups.iter().all(|g| g.waits || g.mask == group) {
                    true => Err(Fault::Launch(
                        "a barrier that some lanes of the warp do not reach (divergent)".to_owned(),
                    )),
                    false => Ok(Flow::Wait),
                };
            }
            if block.checked && warp.lanes != active {
                let text = "a barrier after some threads of the warp have exited";
                return Err(Fault::Launch(text.to_owned()));
            }
            let lane = active.trailing_zeros() as usize;
            let threads = threads.map(|threads| warp.get(threads)[lane]);
            warp.state = State::AtBarrier(warp.get(id)[lane], threads);
            block.stats.barriers += 1;
            return Ok(Flow::Barrier);
        }
        Inst::Fence | Inst::Nothing => {}
        Inst::Branch(target) => return Ok(Flow::Jump(target, active)),
        Inst::BranchIndexed(index, ref targets) => {
            return branch_indexed(warp, &warp.get(index), targets, active, group);
        }
        Inst::Exit => return Ok(Flow::Exit(active)),
        Inst::Trap => return Err(Fault::Launch("trap".to_owned())),
        _ => memory::execute(block, warp, &step.inst, active)?,
    }
    Ok(Flow::Next)
}

/// Sends lanes to the targets that they chose.
fn branch_indexed(
    warp: &mut Warp,
    index: &Lanes32,
    targets: &[u32],
    active: u32,
    group: u32,
) -> Result<Flow, Fault> {
    let at = warp.groups.iter().position(|g| g.mask == group);
    let at = at.ok_or_else(|| Fault::Launch("a group that is not there".to_owned()))?;
    let from = warp.groups.swap_remove(at);
    let rest = group & !active;
    if rest != 0 {
        warp.groups.push(Group {
            pc: from.pc + 1,
            mask: rest,
            waits: false,
        });
    }
    for lane in (0..LANES).filter(|lane| active >> lane & 1 == 1) {
        let target = targets.get(index[lane] as usize);
        let text = "an index outside of its table of branches";
        let pc = *target.ok_or_else(|| Fault::Launch(text.to_owned()))?;
        warp.groups.push(Group {
            pc,
            mask: 1 << lane,
            waits: false,
        });
    }
    Ok(Flow::Scattered)
}

/// Values from other lanes, and whether each came from a lane of its segment.
#[inline(always)]
fn shuffle(mode: Shuffle, a: &Lanes32, b: &Lanes32, c: &Lanes32) -> (Lanes32, u32) {
    let (mut out, mut valid) = ([0; LANES], 0);
    for lane in 0..LANES {
        let (n, clamp, segment) = (b[lane] & 31, c[lane] & 31, c[lane] >> 8 & 31);
        let at = lane as u32;
        let last = (at & segment) | (clamp & !segment);
        let first = at & segment;
        let (from, inside) = match mode {
            Shuffle::Up => (at.wrapping_sub(n), at as i32 - n as i32 >= last as i32),
            Shuffle::Down => (at + n, at + n <= last),
            Shuffle::Butterfly => (at ^ n, at ^ n <= last),
            Shuffle::Index => {
                let from = first | (n & !segment);
                (from, from <= last)
            }
        };
        let from = if inside { from } else { at };
        out[lane] = a[from as usize & 31];
        valid |= u32::from(inside) << lane;
    }
    (out, valid)
}

#[inline(always)]
fn convert_lanes(warp: &mut Warp, c: Conversion, d: Place, a: Place, active: u32) {
    // The common ones, which need no look at the type in each lane.
    match (c.from, c.to, d, a) {
        (Num::U32, Num::U64, Place::B64(d), Place::B32(a)) => {
            let out = warp.r32[a as usize].map(u64::from);
            return warp.set64(d, &out, active);
        }
        (Num::S32, Num::S64, Place::B64(d), Place::B32(a)) => {
            let out = warp.r32[a as usize].map(|x| i64::from(x as i32) as u64);
            return warp.set64(d, &out, active);
        }
        (Num::U64, Num::U32, Place::B32(d), Place::B64(a)) => {
            let out = warp.r64[a as usize].map(|x| x as u32);
            return warp.set(d, &out, active);
        }
        _ => {}
    }
    let out = warp.place(a).map(|bits| convert(c, bits));
    warp.set_place(d, &out, active);
}

fn special_lanes(block: &Block<'_>, warp: &Warp, special: Special) -> Lanes32 {
    let lane = |lane: usize| lane as u32;
    match special {
        Special::Tid(axis) => {
            let [x, y, _] = block.grid.block;
            std::array::from_fn(|i| {
                let thread = warp.index * 32 + lane(i);
                [thread % x, thread / x % y, thread / (x * y)][axis]
            })
        }
        Special::Ntid(axis) => [block.grid.block[axis]; LANES],
        Special::Ctaid(axis) => [block.ctaid[axis]; LANES],
        Special::Nctaid(axis) => [block.grid.grid[axis]; LANES],
        Special::LaneId => std::array::from_fn(lane),
        Special::WarpId => [warp.index; LANES],
        Special::LaneMask(cmp) => std::array::from_fn(|i| match cmp {
            Cmp::Lt => (1 << i) - 1,
            Cmp::Le => u32::MAX >> (31 - i),
            Cmp::Gt => !(u32::MAX >> (31 - i)),
            Cmp::Ge => !((1 << i) - 1),
            _ => 1 << i,
        }),
        Special::Clock => [block.stats.instructions as u32; LANES],
        Special::Constant(value) => [value; LANES],
    }
}

/// Bounds of the windows, for the memory instructions.
const _: () = assert!(SHARED + WINDOW <= LOCAL && LOCAL + WINDOW <= GLOBAL);
