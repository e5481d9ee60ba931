//! A warp: which lanes are where, and what each instruction does to them.
//!
//! Lanes at one place form a group. The group with the lowest place runs first, and groups that meet
//! at one place become one again. A group that has to wait stays at the instruction it waits for.

use super::asynch::Copies;
use super::block::Env;
use super::collective::Outcome;
use super::regs::{FULL, LANES, Regs};
use super::{asynch, atomic, collective, float, int, memory, mma, step};
use crate::isa::{Inst, NONE, Op};

/// `CUDA_ERROR_LAUNCH_FAILED`.
pub(crate) const LAUNCH_FAILED: i32 = 719;

/// Why a launch fails.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// The `CUresult` that the program sees.
    pub(crate) code: i32,
    pub(crate) lane: usize,
    pub(crate) message: String,
}

/// What a group waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Nothing,
    /// The lanes of a mask.
    Lanes(u32),
    /// A barrier, and how many threads it is for; 0 for all.
    Barrier {
        id: u32,
        count: u32,
    },
}

/// Lanes at one place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub(crate) pc: u32,
    pub(crate) mask: u32,
    pub(crate) wait: Wait,
}

/// One warp of a block.
#[derive(Debug)]
pub(crate) struct Warp {
    pub(crate) id: usize,
    pub(crate) regs: Regs,
    pub(crate) groups: Vec<Group>,
    /// Lanes that are threads of the block.
    pub(crate) threads: u32,
    /// Local memory, lane by lane.
    pub(crate) local: Vec<u8>,
    pub(crate) copies: Copies,
    /// Results of `bar.red`, while they wait to be read.
    pub(crate) votes: u32,
}

/// Where execution goes after an instruction.
enum Flow {
    Next,
    Jump(u32),
    /// Some lanes go elsewhere.
    Split {
        target: u32,
        mask: u32,
    },
    Table,
    Exit,
    Wait(Wait),
    /// Lets other warps run: the instruction polls.
    Yield,
}

impl Warp {
    /// Lanes that have not exited.
    pub(crate) fn alive(&self) -> u32 {
        self.groups.iter().fold(0, |mask, group| mask | group.mask)
    }

    /// Runs until every group waits or has exited, or the budget of instructions is spent.
    pub(crate) fn run(&mut self, env: &mut Env<'_>, budget: u64) -> Result<(), Fault> {
        let mut left = budget;
        while left > 0 {
            self.merge();
            let ready = (0..self.groups.len()).filter(|&i| self.groups[i].wait == Wait::Nothing);
            let Some(index) = ready.min_by_key(|&i| self.groups[i].pc) else {
                break;
            };
            self.run_group(index, env, &mut left)?;
        }
        env.stats.instructions += budget - left;
        Ok(())
    }

    /// Joins groups at one place. A group that waited there looks again.
    fn merge(&mut self) {
        if self.groups.len() < 2 {
            return;
        }
        self.groups.sort_unstable_by_key(|group| group.pc);
        let mut i = 1;
        while i < self.groups.len() {
            if self.groups[i].pc == self.groups[i - 1].pc {
                let gone = self.groups.remove(i);
                let kept = &mut self.groups[i - 1];
                kept.mask |= gone.mask;
                kept.wait = Wait::Nothing;
            } else {
                i += 1;
            }
        }
    }

    fn run_group(&mut self, index: usize, env: &mut Env<'_>, left: &mut u64) -> Result<(), Fault> {
        let kernel = env.kernel;
        let active = self.groups[index].mask;
        let mut pc = self.groups[index].pc;
        let mut limit = self.next_place(index, pc);
        loop {
            let inst = &kernel.code[pc as usize];
            *left = left.saturating_sub(1);
            let mask = match inst.guard {
                NONE => active,
                guard => {
                    let p = self.regs.preds[guard as usize];
                    active & if inst.negated { !p } else { p }
                }
            };
            env.line = pc;
            let flow = if mask == 0 {
                Flow::Next
            } else {
                self.step(inst, mask, active, env)?
            };
            match flow {
                Flow::Next => pc += 1,
                Flow::Jump(target) => {
                    pc = target;
                    limit = self.next_place(index, pc);
                }
                Flow::Split { target, mask } => {
                    self.groups[index].mask = active & !mask;
                    self.groups[index].pc = pc + 1;
                    self.groups.push(Group {
                        pc: target,
                        mask,
                        wait: Wait::Nothing,
                    });
                    return Ok(());
                }
                Flow::Table => return self.split_by_table(index, inst, mask, pc),
                Flow::Exit => {
                    self.copies.land_all(mask, self.id, env)?;
                    self.groups[index].mask = active & !mask;
                    self.groups[index].pc = pc + 1;
                    if self.groups[index].mask == 0 {
                        self.groups.remove(index);
                    }
                    return Ok(());
                }
                Flow::Wait(wait) => {
                    self.groups[index].pc = pc;
                    self.groups[index].wait = wait;
                    return Ok(());
                }
                Flow::Yield => {
                    pc += 1;
                    self.groups[index].pc = pc;
                    *left = 0;
                    return Ok(());
                }
            }
            if pc >= limit || *left == 0 {
                self.groups[index].pc = pc;
                return Ok(());
            }
        }
    }

    /// The next place, from `pc` on, where another group is.
    fn next_place(&self, index: usize, pc: u32) -> u32 {
        if self.groups.len() == 1 {
            return u32::MAX;
        }
        let others = self.groups.iter().enumerate().filter(|&(i, _)| i != index);
        let mut limit = u32::MAX;
        for (_, group) in others {
            if group.pc >= pc {
                limit = limit.min(group.pc);
            } else if group.wait == Wait::Nothing {
                // A group behind this one goes first.
                return 0;
            }
        }
        limit
    }

    fn split_by_table(
        &mut self,
        index: usize,
        inst: &Inst,
        mask: u32,
        pc: u32,
    ) -> Result<(), Fault> {
        let Op::Brx { index: reg, table } = &inst.op else {
            return Ok(());
        };
        let values = *self.regs.word(*reg);
        let active = self.groups[index].mask;
        self.groups[index].mask = active & !mask;
        self.groups[index].pc = pc + 1;
        let mut rest = mask;
        while rest != 0 {
            let lane = rest.trailing_zeros() as usize;
            let Some(&target) = table.get(values[lane] as usize) else {
                let message = format!(
                    "brx.idx with index {} of {} targets",
                    values[lane],
                    table.len()
                );
                return Err(Fault {
                    code: LAUNCH_FAILED,
                    lane,
                    message,
                });
            };
            let same = memory::lanes(rest)
                .filter(|&l| values[l] == values[lane])
                .fold(0, |m, l| m | 1 << l);
            self.groups.push(Group {
                pc: target,
                mask: same,
                wait: Wait::Nothing,
            });
            rest &= !same;
        }
        self.groups.retain(|group| group.mask != 0);
        Ok(())
    }

    /// Executes one instruction for the lanes of `mask`; `active` are all lanes of the group.
    #[inline(always)]
    fn step(
        &mut self,
        inst: &Inst,
        mask: u32,
        active: u32,
        env: &mut Env<'_>,
    ) -> Result<Flow, Fault> {
        let regs = &mut self.regs;
        match inst.op {
            Op::Int1 { f, d, a } => int::int1(regs, f, d, a, mask),
            Op::Int2 { f, d, a, b } => int::int2(regs, f, [d, a, b], mask),
            Op::Int3 { f, d, a, b, c } => int::int3(regs, f, [d, a, b, c], mask),
            Op::Long1 { f, d, a } => int::long1(regs, f, d, a, mask),
            Op::Long2 { f, d, a, b } => int::long2(regs, f, [d, a, b], mask),
            Op::MadWide { signed, d, a, b, c } => int::mad_wide(regs, signed, [d, a, b, c], mask),
            Op::Float1 { f, d, a } => float::float1(regs, f, d, a, mask),
            Op::Float2 { f, d, a, b } => float::float2(regs, f, [d, a, b], mask),
            Op::Fma { d, a, b, c } => float::fma(regs, [d, a, b, c], mask),
            Op::Setp {
                cmp,
                ty,
                p,
                q,
                a,
                b,
                with,
            } => {
                let holds = float::compare(regs, cmp, ty, a, b);
                step::set_predicates(regs, holds, p, q, with, mask);
            }
            Op::Ld(ref access) => self.load(access, mask, env)?,
            Op::St(ref access) => self.store(access, mask, env)?,
            Op::Bra { target } => {
                return Ok(if mask == active {
                    Flow::Jump(target)
                } else {
                    Flow::Split { target, mask }
                });
            }
            Op::Mma(ref mma) => {
                if mask != FULL {
                    return self.collective(Outcome::Wait(FULL), mask);
                }
                env.stats.mma += 1;
                mma::mma(regs, mma);
            }
            _ => return self.step_rare(inst, mask, env),
        }
        Ok(Flow::Next)
    }

    #[inline(never)]
    fn step_rare(&mut self, inst: &Inst, mask: u32, env: &mut Env<'_>) -> Result<Flow, Fault> {
        let regs = &mut self.regs;
        if step::arithmetic(regs, &inst.op, mask) || step::moves(regs, &inst.op, mask) {
            return Ok(Flow::Next);
        }
        match inst.op {
            Op::Clock { d, wide } => {
                // Time is counted in readings, so that runs repeat.
                env.clock += 1;
                if wide {
                    regs.put_longs(d, &[env.clock; LANES], mask);
                } else {
                    regs.put_words(d, &[env.clock as u32; LANES], mask);
                }
            }
            Op::Atom { .. } => atomic::atom(self, inst, mask, env)?,
            Op::Brx { .. } => return Ok(Flow::Table),
            Op::Exit => return Ok(Flow::Exit),
            Op::Trap => {
                let lane = mask.trailing_zeros() as usize;
                return Err(Fault {
                    code: LAUNCH_FAILED,
                    lane,
                    message: "trap".to_owned(),
                });
            }
            Op::Bar { id, count, arrive } => return self.barrier([id, count], arrive, mask, env),
            Op::BarRed { id, a, negated, .. } => {
                let p = self.regs.preds[a as usize] ^ if negated { FULL } else { 0 };
                self.votes = (self.votes & !mask) | (p & mask);
                return self.barrier([id, NONE], false, mask, env);
            }
            Op::CpAsync { .. } => asynch::copy(self, inst, mask, env)?,
            Op::CpCommit => self.copies.commit(mask),
            Op::CpWait { keep } => self.copies.wait(mask, keep, self.id, env)?,
            Op::MbarTest { .. } => {
                return Ok(if asynch::test(self, inst, mask, env)? {
                    Flow::Next
                } else {
                    Flow::Yield
                });
            }
            Op::MbarInit { .. }
            | Op::MbarInval { .. }
            | Op::MbarArrive { .. }
            | Op::MbarExpectTx { .. }
            | Op::CpAsyncMbar { .. } => asynch::mbarrier(self, inst, mask, env)?,
            _ => {
                let outcome = collective::collective(self, inst, mask, env)?;
                return self.collective(outcome, mask);
            }
        }
        Ok(Flow::Next)
    }

    fn collective(&self, outcome: Outcome, mask: u32) -> Result<Flow, Fault> {
        match outcome {
            Outcome::Done => Ok(Flow::Next),
            Outcome::Wait(wanted) => {
                let missing = wanted & self.alive() & !mask;
                if missing == 0 {
                    let lane = mask.trailing_zeros() as usize;
                    let message = format!(
                        "a warp-wide instruction names lanes {wanted:#010x}, of which {:#010x} have exited",
                        wanted & !self.alive()
                    );
                    return Err(Fault {
                        code: LAUNCH_FAILED,
                        lane,
                        message,
                    });
                }
                Ok(Flow::Wait(Wait::Lanes(wanted)))
            }
        }
    }

    fn barrier(
        &self,
        [id, count]: [u32; 2],
        arrive: bool,
        mask: u32,
        env: &mut Env<'_>,
    ) -> Result<Flow, Fault> {
        let lane = mask.trailing_zeros() as usize;
        let id = self.regs.word(id)[lane];
        let count = if count == NONE {
            0
        } else {
            self.regs.word(count)[lane]
        };
        if id > 15 || !count.is_multiple_of(32) || (arrive && count == 0) {
            let message = format!("barrier {id} with {count} threads: ids go to 15, counts by 32");
            return Err(Fault {
                code: LAUNCH_FAILED,
                lane,
                message,
            });
        }
        if arrive {
            env.arrive(id, mask.count_ones(), self.id);
            return Ok(Flow::Next);
        }
        Ok(Flow::Wait(Wait::Barrier { id, count }))
    }
}
