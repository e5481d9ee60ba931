//! Lets values that are never needed at once share a register.
//!
//! `nvcc` names every value anew, thousands of them in an unrolled kernel, and a register of a warp has
//! 128 bytes: without this the register file would not fit the host's caches. Which values are needed
//! where is found as in any compiler (liveness over the graph of basic blocks), for one lane: lanes that
//! part have registers of their own. Then each value gets the register that was freed last, in the order
//! of the code, from its first place to its last.

use crate::isa::operands::{File, visit};
use crate::isa::{Inst, Kernel, NONE, Op, Reg};

/// Registers of one file that are needed at some place.
#[derive(Clone, PartialEq, Eq)]
struct Set(Vec<u64>);

impl Set {
    fn new(n: usize) -> Self {
        Self(vec![0; n.div_ceil(64)])
    }

    fn insert(&mut self, reg: Reg) {
        self.0[reg as usize / 64] |= 1 << (reg % 64);
    }

    fn remove(&mut self, reg: Reg) {
        self.0[reg as usize / 64] &= !(1 << (reg % 64));
    }

    /// Adds what `other` has; says whether that was anything new.
    fn join(&mut self, other: &Self) -> bool {
        let mut grown = false;
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            grown |= *b & !*a != 0;
            *a |= b;
        }
        grown
    }

    fn iter(&self) -> impl Iterator<Item = Reg> {
        self.0
            .iter()
            .zip(0..)
            .flat_map(|(&word, index): (&u64, u32)| {
                (0..64)
                    .filter(move |bit| word >> bit & 1 == 1)
                    .map(move |bit| index * 64 + bit)
            })
    }
}

/// A register that an instruction names.
#[derive(Clone, Copy)]
struct Mention {
    reg: Reg,
    written: bool,
    /// A write that lanes may skip: the old value is still needed.
    kept: bool,
}

/// A stretch of code without branches, and where it goes.
struct Span {
    start: usize,
    end: usize,
    next: Vec<usize>,
}

/// Renumbers the registers of a kernel.
pub(crate) fn share(kernel: &mut Kernel) {
    let spans = spans(&kernel.code);
    for file in [File::Pred, File::Word, File::Long] {
        let (n, fixed) = match file {
            File::Pred => (kernel.n_pred, Vec::new()),
            File::Word => {
                let constants = kernel.const32.iter().map(|&(reg, _)| reg);
                (
                    kernel.n32,
                    constants
                        .chain(kernel.specials.iter().map(|&(_, reg)| reg))
                        .collect(),
                )
            }
            File::Long => (
                kernel.n64,
                kernel.const64.iter().map(|&(reg, _)| reg).collect(),
            ),
        };
        let mentions = mentions(&mut kernel.code, file);
        let intervals = intervals(&mentions, &spans, n);
        let (map, count) = assign(&intervals, &fixed, n);
        rename(kernel, file, &map);
        match file {
            File::Pred => kernel.n_pred = count,
            File::Word => kernel.n32 = count,
            File::Long => kernel.n64 = count,
        }
    }
}

/// What each instruction reads and writes, of one file.
fn mentions(code: &mut [Inst], file: File) -> Vec<Vec<Mention>> {
    let of = |inst: &mut Inst| {
        let mut list = Vec::new();
        let kept = inst.guard != NONE;
        if kept && file == File::Pred {
            list.push(Mention {
                reg: inst.guard,
                written: false,
                kept: false,
            });
        }
        visit(&mut inst.op, &mut |reg, of, written| {
            if of == file {
                list.push(Mention {
                    reg: *reg,
                    written,
                    kept,
                });
            }
        });
        list
    };
    code.iter_mut().map(of).collect()
}

fn targets(op: &Op) -> Vec<usize> {
    match op {
        Op::Bra { target } => vec![*target as usize],
        Op::Brx { table, .. } => table.iter().map(|&target| target as usize).collect(),
        _ => Vec::new(),
    }
}

fn spans(code: &[Inst]) -> Vec<Span> {
    let mut starts = vec![false; code.len() + 1];
    starts[0] = true;
    for (i, inst) in code.iter().enumerate() {
        if matches!(inst.op, Op::Bra { .. } | Op::Brx { .. } | Op::Exit) {
            starts[i + 1] = true;
        }
        for target in targets(&inst.op) {
            starts[target] = true;
        }
    }
    let places: Vec<usize> = (0..code.len()).filter(|&i| starts[i]).collect();
    let mut span_at = vec![0; code.len()];
    for (number, &start) in places.iter().enumerate() {
        span_at[start] = number;
    }
    let span = |(number, &start): (usize, &usize)| {
        let end = places.get(number + 1).copied().unwrap_or(code.len());
        let last = &code[end - 1];
        let mut next: Vec<usize> = targets(&last.op)
            .into_iter()
            .map(|target| span_at[target])
            .collect();
        let leaves =
            matches!(last.op, Op::Bra { .. } | Op::Brx { .. } | Op::Exit) && last.guard == NONE;
        if !leaves && end < code.len() {
            next.push(number + 1);
        }
        Span { start, end, next }
    };
    places.iter().enumerate().map(span).collect()
}

/// First and last place of each register's value; reading happens at even places, writing at odd ones.
fn intervals(mentions: &[Vec<Mention>], spans: &[Span], n: usize) -> Vec<Option<(usize, usize)>> {
    let mut live_in = vec![Set::new(n); spans.len()];
    let mut live_out = vec![Set::new(n); spans.len()];
    let mut changed = true;
    while changed {
        changed = false;
        for (number, span) in spans.iter().enumerate().rev() {
            for &next in &span.next {
                live_out[number].join(&live_in[next]);
            }
            let mut live = live_out[number].clone();
            for list in mentions[span.start..span.end].iter().rev() {
                for mention in list.iter().filter(|m| m.written && !m.kept) {
                    live.remove(mention.reg);
                }
                for mention in list.iter().filter(|m| !m.written) {
                    live.insert(mention.reg);
                }
            }
            changed |= live_in[number].join(&live);
        }
    }
    let mut found: Vec<Option<(usize, usize)>> = vec![None; n];
    let mut extend = |reg: Reg, place: usize| {
        let entry = found[reg as usize].get_or_insert((place, place));
        *entry = (entry.0.min(place), entry.1.max(place));
    };
    for (number, span) in spans.iter().enumerate() {
        for reg in live_in[number].iter() {
            extend(reg, 2 * span.start);
        }
        for reg in live_out[number].iter() {
            extend(reg, 2 * span.end - 1);
        }
        for (offset, list) in mentions[span.start..span.end].iter().enumerate() {
            for mention in list {
                extend(
                    mention.reg,
                    2 * (span.start + offset) + usize::from(mention.written),
                );
            }
        }
    }
    found
}

/// New numbers, and how many there are. Fixed registers keep one for themselves.
fn assign(intervals: &[Option<(usize, usize)>], fixed: &[Reg], n: usize) -> (Vec<Reg>, usize) {
    let mut map = vec![NONE; n];
    let mut count: Reg = 0;
    for &reg in fixed {
        if map[reg as usize] == NONE {
            map[reg as usize] = count;
            count += 1;
        }
    }
    let mut order: Vec<(usize, usize, usize)> = intervals
        .iter()
        .enumerate()
        .filter(|&(reg, _)| map[reg] == NONE)
        .filter_map(|(reg, interval)| interval.map(|(start, end)| (start, end, reg)))
        .collect();
    order.sort_unstable();
    // Values by their end, soonest first.
    let mut active = std::collections::BinaryHeap::new();
    let mut free: Vec<Reg> = Vec::new();
    for (start, end, reg) in order {
        while let Some(&std::cmp::Reverse((ended, number))) = active.peek() {
            if ended >= start {
                break;
            }
            free.push(number);
            active.pop();
        }
        let number = free.pop().unwrap_or_else(|| {
            count += 1;
            count - 1
        });
        map[reg] = number;
        active.push(std::cmp::Reverse((end, number)));
    }
    (map, count as usize)
}

fn rename(kernel: &mut Kernel, file: File, map: &[Reg]) {
    for inst in &mut kernel.code {
        if file == File::Pred && inst.guard != NONE {
            inst.guard = map[inst.guard as usize];
        }
        visit(&mut inst.op, &mut |reg, of, _| {
            if of == file {
                *reg = map[*reg as usize];
            }
        });
    }
    match file {
        File::Pred => {}
        File::Word => {
            for (reg, _) in &mut kernel.const32 {
                *reg = map[*reg as usize];
            }
            for (_, reg) in &mut kernel.specials {
                *reg = map[*reg as usize];
            }
        }
        File::Long => {
            for (reg, _) in &mut kernel.const64 {
                *reg = map[*reg as usize];
            }
        }
    }
}

#[cfg(test)]
mod tests;
