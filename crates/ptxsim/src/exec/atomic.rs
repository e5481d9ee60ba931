//! Atomics on global and shared memory.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::block::Env;
use super::memory::{Touch, addresses, by_space, lanes, touch};
use super::mma::add_half;
use super::warp::{Fault, Warp};
use crate::isa::{Atomic, Inst, NONE, Op, Ty};
use crate::memory::Use;

/// `atom` and `red`: lane after lane, each with a loop of compare-and-swap.
pub(crate) fn atom(
    warp: &mut Warp,
    inst: &Inst,
    mask: u32,
    env: &mut Env<'_>,
) -> Result<(), Fault> {
    let Op::Atom {
        f,
        ty,
        packed,
        space,
        addr,
        d,
        b,
        c,
    } = inst.op
    else {
        return Ok(());
    };
    let at = addresses(&warp.regs, addr);
    let bytes = if packed { 4 } else { ty.bytes() };
    by_space(space, &at, mask, |space, at, mask| {
        // The old value counts as read, so memory that was never written shows.
        touch(
            warp,
            env,
            Touch {
                space,
                at,
                bytes,
                mask,
                usage: Use::Read,
            },
        )?;
        if let (Some(shadow), crate::isa::Space::Shared) = (&mut env.shadow, space) {
            shadow.forgive_atomic(at, bytes, mask);
        }
        let (base, stride) = warp.place(space, env);
        for lane in lanes(mask) {
            let target = base.wrapping_add(at[lane] as usize + lane * stride);
            let operand = |reg: u32| {
                if reg == NONE {
                    0
                } else if bytes == 8 {
                    warp.regs.long(reg)[lane]
                } else {
                    u64::from(warp.regs.word(reg)[lane])
                }
            };
            let (x, y) = (operand(b), operand(c));
            // SAFETY: `touch` has checked that the bytes are there and aligned.
            let old = unsafe { update(target, bytes, |old| combine(f, ty, packed, old, x, y)) };
            if d == NONE {
                continue;
            }
            if bytes == 8 {
                warp.regs.long_mut(d)[lane] = old;
            } else {
                warp.regs.word_mut(d)[lane] = old as u32;
            }
        }
        Ok(())
    })
}

/// Replaces a value by what `f` makes of it, and gives the old one.
///
/// # Safety
/// `target` points to `bytes` bytes (2, 4 or 8), aligned to that.
unsafe fn update(target: *mut u8, bytes: usize, f: impl Fn(u64) -> u64) -> u64 {
    macro_rules! exchange {
        ($atomic:ty, $int:ty) => {{
            // SAFETY: the caller says that the value is there and aligned.
            let cell = unsafe { <$atomic>::from_ptr(target.cast()) };
            let mut old = cell.load(Ordering::SeqCst);
            loop {
                let new = f(u64::from(old)) as $int;
                match cell.compare_exchange_weak(old, new, Ordering::SeqCst, Ordering::SeqCst) {
                    Ok(_) => return u64::from(old),
                    Err(now) => old = now,
                }
            }
        }};
    }
    match bytes {
        2 => exchange!(AtomicU16, u16),
        4 => exchange!(AtomicU32, u32),
        _ => exchange!(AtomicU64, u64),
    }
}

fn combine(f: Atomic, ty: Ty, packed: bool, old: u64, x: u64, y: u64) -> u64 {
    match f {
        Atomic::Exch => return x,
        Atomic::Cas => return if old == x { y } else { old },
        Atomic::And => return old & x,
        Atomic::Or => return old | x,
        Atomic::Xor => return old ^ x,
        Atomic::Inc => return if old >= x { 0 } else { old + 1 },
        Atomic::Dec => return if old == 0 || old > x { x } else { old - 1 },
        Atomic::Add | Atomic::Min | Atomic::Max => {}
    }
    let (o, v) = (old as u32, x as u32);
    match (f, ty) {
        (Atomic::Add, Ty::F32) => u64::from((f32::from_bits(o) + f32::from_bits(v)).to_bits()),
        (Atomic::Add, Ty::F64) => (f64::from_bits(old) + f64::from_bits(x)).to_bits(),
        (Atomic::Add, Ty::F16 | Ty::Bf16) => {
            let bf16 = ty == Ty::Bf16;
            let low = add_half(bf16, o & 0xffff, v & 0xffff);
            let high = if packed {
                add_half(bf16, o >> 16, v >> 16) << 16
            } else {
                0
            };
            u64::from(low | high)
        }
        (Atomic::Add, Ty::U64 | Ty::S64) => old.wrapping_add(x),
        (Atomic::Add, _) => u64::from(o.wrapping_add(v)),
        (Atomic::Min, Ty::S32) => u64::from(o.cast_signed().min(v.cast_signed()).cast_unsigned()),
        (Atomic::Max, Ty::S32) => u64::from(o.cast_signed().max(v.cast_signed()).cast_unsigned()),
        (Atomic::Min, Ty::S64) => old.cast_signed().min(x.cast_signed()).cast_unsigned(),
        (Atomic::Max, Ty::S64) => old.cast_signed().max(x.cast_signed()).cast_unsigned(),
        (Atomic::Min, _) => old.min(x),
        (_, _) => old.max(x),
    }
}
