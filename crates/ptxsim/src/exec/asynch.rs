//! `cp.async`, and the mbarriers of shared memory.

use super::block::Env;
use super::memory::{ILLEGAL_ADDRESS, MISALIGNED, Touch, addresses, lanes, touch};
use super::regs::{FULL, LANES};
use super::warp::{Fault, LAUNCH_FAILED, Warp};
use crate::isa::{Inst, NONE, Op, Space};
use crate::memory::Use;

/// One `cp.async` of a warp that has not landed.
#[derive(Debug, Clone)]
struct Copy {
    mask: u32,
    dst: [u64; LANES],
    src: [u64; LANES],
    bytes: usize,
    /// Bytes to take from the source; the rest becomes zero.
    take: [u32; LANES],
    /// The group it was committed to, if it was.
    group: Option<u32>,
}

/// Copies under way. They land as late as they may: when the issuing lanes wait for them.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    pending: Vec<Copy>,
    /// Groups that each lane has committed.
    committed: [u32; LANES],
}

impl Copies {
    pub(crate) fn reset(&mut self) {
        self.pending.clear();
        self.committed = [0; LANES];
    }

    /// `cp.async.commit_group`.
    pub(crate) fn commit(&mut self, mask: u32) {
        let mut split = Vec::new();
        for copy in &mut self.pending {
            if copy.group.is_some() || copy.mask & mask == 0 {
                continue;
            }
            let mut here = copy.mask & mask;
            copy.mask &= !here;
            while here != 0 {
                let group = self.committed[here.trailing_zeros() as usize];
                let same = lanes(here)
                    .filter(|&l| self.committed[l] == group)
                    .fold(0, |m, l| m | 1 << l);
                split.push(Copy {
                    mask: same,
                    group: Some(group),
                    ..copy.clone()
                });
                here &= !same;
            }
        }
        self.pending.retain(|copy| copy.mask != 0);
        self.pending.extend(split);
        for lane in lanes(mask) {
            self.committed[lane] += 1;
        }
    }

    /// `cp.async.wait_group` (all but the newest `keep` groups) or `wait_all`.
    pub(crate) fn wait(
        &mut self,
        mask: u32,
        keep: Option<u32>,
        warp: usize,
        env: &mut Env<'_>,
    ) -> Result<(), Fault> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let committed = self.committed;
        for copy in &mut self.pending {
            let mut landing = 0;
            for lane in lanes(copy.mask & mask) {
                let lands = match (keep, copy.group) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(keep), Some(group)) => committed[lane] - group > keep,
                };
                landing |= u32::from(lands) << lane;
            }
            land(copy, landing, warp, env)?;
            copy.mask &= !landing;
        }
        self.pending.retain(|copy| copy.mask != 0);
        Ok(())
    }

    /// Lands everything that exiting lanes have issued.
    pub(crate) fn land_all(
        &mut self,
        mask: u32,
        warp: usize,
        env: &mut Env<'_>,
    ) -> Result<(), Fault> {
        self.wait(mask, None, warp, env)
    }
}

fn land(copy: &Copy, mask: u32, warp: usize, env: &mut Env<'_>) -> Result<(), Fault> {
    for lane in lanes(mask) {
        let start = copy.dst[lane] as usize;
        let take = copy.take[lane] as usize;
        let target = &mut env.shared[start..start + copy.bytes];
        target[take..].fill(0);
        // SAFETY: the source was checked when the copy was issued, and nothing is freed during a launch.
        unsafe {
            std::ptr::copy_nonoverlapping(copy.src[lane] as *const u8, target.as_mut_ptr(), take);
        };
        if let Some(shadow) = &mut env.shadow {
            shadow.land(warp, lane, start, copy.bytes);
        }
    }
    Ok(())
}

/// Issues a `cp.async`.
pub(crate) fn copy(
    warp: &mut Warp,
    inst: &Inst,
    mask: u32,
    env: &mut Env<'_>,
) -> Result<(), Fault> {
    let Op::CpAsync {
        dst,
        src,
        bytes,
        src_bytes,
        ignore,
    } = inst.op
    else {
        return Ok(());
    };
    let bytes = usize::from(bytes);
    let mut dst = addresses(&warp.regs, dst);
    for address in &mut dst {
        *address &= 0x00ff_ffff_ffff_ffff;
    }
    let src = addresses(&warp.regs, src);
    let mut take = [bytes as u32; LANES];
    if src_bytes != NONE {
        take = *warp.regs.word(src_bytes);
    }
    if ignore != NONE {
        let p = warp.regs.preds[ignore as usize];
        for lane in lanes(p & mask) {
            take[lane] = 0;
        }
    }
    let mut reading = 0;
    for lane in lanes(mask) {
        if take[lane] as usize > bytes {
            let message = format!("cp.async of {} bytes into {bytes}", take[lane]);
            return Err(Fault {
                code: LAUNCH_FAILED,
                lane,
                message,
            });
        }
        reading |= u32::from(take[lane] != 0) << lane;
        if !src[lane].is_multiple_of(bytes as u64) {
            let message = format!("misaligned cp.async: {bytes} bytes at {:#x}", src[lane]);
            return Err(Fault {
                code: MISALIGNED,
                lane,
                message,
            });
        }
    }
    if env.stats_on {
        env.stats.count_global(&src, reading, bytes);
    }
    for lane in lanes(reading) {
        let (from, length) = (src[lane], take[lane] as usize);
        if env.known.contains(from, from.wrapping_add(length as u64)) {
            continue;
        }
        if let Err(why) = env.memory.check(from, length, Use::Read, &mut env.known) {
            let message = format!("cp.async of {length} bytes from {from:#x}: {why}");
            return Err(Fault {
                code: ILLEGAL_ADDRESS,
                lane,
                message,
            });
        }
    }
    touch(
        warp,
        env,
        Touch {
            space: Space::Shared,
            at: &dst,
            bytes,
            mask,
            usage: Use::Write,
        },
    )?;
    if let Some(shadow) = &mut env.shadow {
        shadow.fly(&dst, bytes, mask);
    }
    env.stats.cp_async_bytes += lanes(mask).map(|lane| u64::from(take[lane])).sum::<u64>();
    warp.copies.pending.push(Copy {
        mask,
        dst,
        src,
        bytes,
        take,
        group: None,
    });
    Ok(())
}

/// The state of an mbarrier, kept beside the 8 bytes of shared memory that stand for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mbarrier {
    expected: u32,
    pending: i64,
    tx: i64,
    phase: u64,
}

impl Mbarrier {
    fn settle(&mut self) {
        if self.pending <= 0 && self.tx == 0 {
            self.phase += 1;
            self.pending = i64::from(self.expected);
        }
    }
}

fn find<'e>(env: &'e mut Env<'_>, address: u64, lane: usize) -> Result<&'e mut Mbarrier, Fault> {
    let key = address & 0x00ff_ffff_ffff_ffff;
    env.mbarriers.get_mut(&key).ok_or_else(|| Fault {
        code: LAUNCH_FAILED,
        lane,
        message: format!("the mbarrier at {key:#x} of shared memory was never initialized"),
    })
}

/// Everything about mbarriers but waiting.
pub(crate) fn mbarrier(
    warp: &mut Warp,
    inst: &Inst,
    mask: u32,
    env: &mut Env<'_>,
) -> Result<(), Fault> {
    let value = |warp: &Warp, reg: u32, lane: usize| {
        if reg == NONE {
            0
        } else {
            warp.regs.word(reg)[lane]
        }
    };
    match inst.op {
        Op::MbarInit { addr, count } => {
            let at = addresses(&warp.regs, addr);
            let first = mask.trailing_zeros() as usize;
            let one = at.map(|a| a & 0x00ff_ffff_ffff_ffff);
            touch(
                warp,
                env,
                Touch {
                    space: Space::Shared,
                    at: &one,
                    bytes: 8,
                    mask,
                    usage: Use::Write,
                },
            )?;
            let expected = value(warp, count, first);
            for lane in lanes(mask) {
                let fresh = Mbarrier {
                    expected,
                    pending: i64::from(expected),
                    tx: 0,
                    phase: 0,
                };
                env.mbarriers.insert(one[lane], fresh);
            }
        }
        Op::MbarInval { addr } => {
            for lane in lanes(mask) {
                let at = addresses(&warp.regs, addr)[lane] & 0x00ff_ffff_ffff_ffff;
                env.mbarriers.remove(&at);
            }
        }
        Op::MbarExpectTx { addr, tx } => {
            let at = addresses(&warp.regs, addr);
            for lane in lanes(mask) {
                let bytes = i64::from(value(warp, tx, lane));
                find(env, at[lane], lane)?.tx += bytes;
            }
        }
        Op::MbarArrive { addr, d, count, tx } => {
            let at = addresses(&warp.regs, addr);
            for lane in lanes(mask) {
                let count = if count == NONE {
                    1
                } else {
                    i64::from(value(warp, count, lane))
                };
                let bytes = i64::from(value(warp, tx, lane));
                let barrier = find(env, at[lane], lane)?;
                let phase = barrier.phase;
                barrier.tx += bytes;
                barrier.pending -= count;
                barrier.settle();
                if d != NONE {
                    warp.regs.long_mut(d)[lane] = phase;
                }
            }
            if let Some(shadow) = &mut env.shadow {
                shadow.release(warp.id);
            }
        }
        Op::CpAsyncMbar { addr, noinc } => {
            // The arrival stands for the lane's copies so far, which land now: nobody can tell.
            let at = addresses(&warp.regs, addr);
            warp.copies.wait(mask, None, warp.id, env)?;
            for lane in lanes(mask) {
                let barrier = find(env, at[lane], lane)?;
                if noinc {
                    barrier.pending -= 1;
                    barrier.settle();
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// `mbarrier.test_wait`: false if it did not succeed in every lane, so that other warps run.
pub(crate) fn test(
    warp: &mut Warp,
    inst: &Inst,
    mask: u32,
    env: &mut Env<'_>,
) -> Result<bool, Fault> {
    let Op::MbarTest {
        addr,
        p,
        phase,
        token,
    } = inst.op
    else {
        return Ok(true);
    };
    let at = addresses(&warp.regs, addr);
    let mut done = 0;
    for lane in lanes(mask) {
        let current = find(env, at[lane], lane)?.phase;
        let passed = if token {
            current > warp.regs.long(phase)[lane]
        } else {
            current & 1 != u64::from(warp.regs.word(phase)[lane]) & 1
        };
        done |= u32::from(passed) << lane;
    }
    warp.regs
        .set_pred(p, if done == mask { FULL } else { done }, mask);
    if done != 0
        && let Some(shadow) = &mut env.shadow
    {
        shadow.acquire(warp.id);
    }
    Ok(done == mask)
}
