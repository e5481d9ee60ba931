//! What `nvdisasm -c` prints: instructions, the loops among them, and what the main loop is made of.
//!
//! Loops are the natural loops of the flow graph, so that neither the order in which the compiler
//! lays out its blocks nor the padding behind the code counts.

use std::collections::{BTreeMap, BTreeSet};

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    /// With its modifiers: `HMMA.16816.F32.BF16`.
    pub(super) opcode: String,
    is_predicated: bool,
    operands: String,
}

impl Instruction {
    /// The opcode without modifiers.
    pub(super) fn base(&self) -> &str {
        self.opcode.split('.').next().unwrap_or_default()
    }

    /// The label that a branch goes to. The compiler also leaves a loop by a call of a label that
    /// never returns.
    fn target(&self) -> Option<&str> {
        let is_branch = matches!(self.base(), "BRA" | "UBRA" | "JMP" | "CALL");
        let (_, label) = self.operands.split_once("`(").filter(|_| is_branch)?;
        label.strip_suffix(')')
    }

    /// Whether the next instruction may follow.
    fn falls_through(&self) -> bool {
        let always = match self.base() {
            // Further operands are conditions.
            "BRA" | "UBRA" | "JMP" => self.operands.starts_with('`'),
            "EXIT" | "RET" => self.operands.is_empty() || self.base() == "RET",
            "KILL" => true,
            _ => false,
        };
        !always || self.is_predicated
    }
}

/// The instructions of one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Function {
    instructions: Vec<Instruction>,
    /// Labels, and the instruction that each stands before.
    labels: BTreeMap<String, usize>,
}

/// What a kernel is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mix {
    /// Instructions, those that do nothing left out.
    pub(super) length: usize,
    /// Products of tensor cores: `HMMA`, `IMMA`, `QGMMA` and the like.
    pub(super) tensor: usize,
    pub(super) ldsm: usize,
    pub(super) ldgsts: usize,
    pub(super) mufu: usize,
    pub(super) bar: usize,
    /// Loads and stores of global memory, and multiply-adds of f32.
    pub(super) work: usize,
    /// Loads and stores of local memory: spilled registers and arrays that are not in registers.
    pub(super) local: usize,
}

impl Mix {
    fn of<'a>(instructions: impl Iterator<Item = &'a Instruction>) -> Self {
        let mut mix = Self::default();
        for instruction in instructions {
            let base = instruction.base();
            if base == "NOP" {
                continue;
            }
            mix.length += 1;
            match base {
                "LDSM" => mix.ldsm += 1,
                "LDGSTS" => mix.ldgsts += 1,
                "MUFU" => mix.mufu += 1,
                "BAR" => mix.bar += 1,
                "LDL" | "STL" => mix.local += 1,
                _ if base.ends_with("MMA") => mix.tensor += 1,
                _ => {}
            }
            let is_work = matches!(base, "LDG" | "STG" | "LDGSTS" | "UBLKCP" | "FFMA" | "FFMA2");
            mix.work += usize::from(is_work);
        }
        mix
    }

    /// Tensor-core instructions per instruction.
    pub(super) fn tensor_ratio(&self) -> f64 {
        if self.length == 0 {
            0.0
        } else {
            self.tensor as f64 / self.length as f64
        }
    }
}

/// The functions in the text of a cubin, by name.
pub(super) fn parse(text: &str) -> BTreeMap<String, Function> {
    let mut functions = BTreeMap::new();
    let mut current: Option<(String, Function)> = None;
    for line in text.lines() {
        if let Some(section) = line.strip_prefix("//---") {
            functions.extend(current.take());
            let name = section.trim_matches(['-', ' ']).strip_prefix(".text.");
            current = name.map(|name| (name.to_owned(), Function::default()));
            continue;
        }
        let Some((_, function)) = &mut current else {
            continue;
        };
        if let Some(label) = line.strip_suffix(':').filter(|_| line.starts_with(".L")) {
            let at = function.instructions.len();
            function.labels.insert(label.to_owned(), at);
        } else if let Some(instruction) = parse_instruction(line) {
            function.instructions.push(instruction);
        }
    }
    functions.extend(current);
    functions
}

/// From ``/*0190*/  @!P1 BRA `(.L_x_3) ;``.
fn parse_instruction(line: &str) -> Option<Instruction> {
    let (address, rest) = line.trim_start().strip_prefix("/*")?.split_once("*/")?;
    if !address.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut rest = rest.split(';').next()?.trim();
    let mut is_predicated = false;
    if rest.starts_with('@') {
        rest = rest.split_once(char::is_whitespace)?.1.trim_start();
        is_predicated = true;
    }
    let (opcode, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    Some(Instruction {
        opcode: opcode.to_owned(),
        is_predicated,
        operands: operands.trim().to_owned(),
    })
}

impl Function {
    pub(super) fn mix(&self) -> Mix {
        Mix::of(self.instructions.iter())
    }

    /// The mix of the loop in which the kernel spends its time: the shortest loop that holds at
    /// least half as many of its instructions of interest as any loop. They are those of tensor
    /// cores; without any, accesses to global memory and multiply-adds; without any, all.
    pub(super) fn main_loop(&self) -> Option<Mix> {
        let loops: Vec<Mix> = self
            .loops()
            .iter()
            .map(|body| Mix::of(body.iter().map(|&at| &self.instructions[at])))
            .collect();
        let interests: [fn(&Mix) -> usize; 3] =
            [|mix| mix.tensor, |mix| mix.work, |mix| mix.length];
        for interest in interests {
            let most = loops.iter().map(interest).max()?;
            if most > 0 {
                let holds_half = |mix: &&Mix| 2 * interest(mix) >= most;
                return loops
                    .iter()
                    .filter(holds_half)
                    .min_by_key(|mix| mix.length)
                    .copied();
            }
        }
        None
    }

    /// Every natural loop, as its instructions.
    fn loops(&self) -> Vec<BTreeSet<usize>> {
        let blocks = self.blocks();
        let graph = self.graph(&blocks);
        let dominators = immediate_dominators(&graph);
        let mut predecessors = vec![Vec::new(); graph.len()];
        for (from, targets) in graph.iter().enumerate() {
            for &to in targets {
                predecessors[to].push(from);
            }
        }
        // Edges back to one header make one loop.
        let mut bodies: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (from, targets) in graph.iter().enumerate() {
            for &header in targets {
                if !dominates(&dominators, header, from) {
                    continue;
                }
                let body = bodies.entry(header).or_insert_with(|| [header].into());
                let mut waiting = vec![from];
                while let Some(block) = waiting.pop() {
                    if dominators[block].is_some() && body.insert(block) {
                        waiting.extend(&predecessors[block]);
                    }
                }
            }
        }
        let instructions = |body: BTreeSet<usize>| {
            let ranges = body.into_iter().map(|block| blocks[block].clone());
            ranges.flatten().collect()
        };
        bodies.into_values().map(instructions).collect()
    }

    /// Ranges of instructions that are entered at their first and left at their last.
    fn blocks(&self) -> Vec<std::ops::Range<usize>> {
        let end = self.instructions.len();
        let mut starts: BTreeSet<usize> = self.labels.values().copied().collect();
        starts.extend([0, end]);
        for (at, instruction) in self.instructions.iter().enumerate() {
            if instruction.target().is_some() || !instruction.falls_through() {
                starts.insert(at + 1);
            }
        }
        let starts: Vec<usize> = starts.into_iter().collect();
        starts.windows(2).map(|pair| pair[0]..pair[1]).collect()
    }

    /// The blocks that may follow each block.
    fn graph(&self, blocks: &[std::ops::Range<usize>]) -> Vec<Vec<usize>> {
        let block_at = |at: usize| blocks.binary_search_by_key(&at, |block| block.start).ok();
        let successors = |block: &std::ops::Range<usize>| {
            let last = &self.instructions[block.end - 1];
            let label = last.target().and_then(|label| self.labels.get(label));
            let next = Some(&block.end).filter(|_| last.falls_through());
            let mut found: Vec<usize> = [label, next]
                .into_iter()
                .flatten()
                .filter_map(|&at| block_at(at))
                .collect();
            found.dedup();
            found
        };
        blocks.iter().map(successors).collect()
    }
}

/// The immediate dominator of every block that the first one reaches; the first is its own.
///
/// Source: Cooper, Harvey and Kennedy 2001, "A simple, fast dominance algorithm".
fn immediate_dominators(graph: &[Vec<usize>]) -> Vec<Option<usize>> {
    let order = reverse_postorder(graph);
    let mut place = vec![usize::MAX; graph.len()];
    for (at, &block) in order.iter().enumerate() {
        place[block] = at;
    }
    let mut dominators = vec![None; graph.len()];
    let Some(&entry) = order.first() else {
        return dominators;
    };
    dominators[entry] = Some(entry);
    let mut changed = true;
    while changed {
        changed = false;
        for &from in &order {
            let Some(_) = dominators[from] else { continue };
            for &to in graph[from].iter().filter(|&&to| to != entry) {
                let merged = match dominators[to] {
                    None => from,
                    Some(other) => common(&dominators, &place, from, other),
                };
                if dominators[to] != Some(merged) {
                    dominators[to] = Some(merged);
                    changed = true;
                }
            }
        }
    }
    dominators
}

/// The nearest block that dominates both.
fn common(dominators: &[Option<usize>], place: &[usize], a: usize, b: usize) -> usize {
    let (mut a, mut b) = (a, b);
    while a != b {
        let later = if place[a] > place[b] { &mut a } else { &mut b };
        match dominators[*later] {
            Some(above) if above != *later => *later = above,
            _ => break,
        }
    }
    a
}

fn dominates(dominators: &[Option<usize>], above: usize, block: usize) -> bool {
    let mut at = block;
    while at != above {
        match dominators[at] {
            Some(next) if next != at => at = next,
            _ => return false,
        }
    }
    dominators[block].is_some()
}

fn reverse_postorder(graph: &[Vec<usize>]) -> Vec<usize> {
    let mut order = Vec::new();
    let mut seen = vec![false; graph.len()];
    // Blocks on the way, with the number of their successors that were visited.
    let mut path = Vec::new();
    if !graph.is_empty() {
        seen[0] = true;
        path.push((0, 0));
    }
    while let Some((block, visited)) = path.last_mut() {
        if let Some(&next) = graph[*block].get(*visited) {
            *visited += 1;
            if !seen[next] {
                seen[next] = true;
                path.push((next, 0));
            }
        } else {
            order.push(*block);
            path.pop();
        }
    }
    order.reverse();
    order
}

#[cfg(test)]
mod tests;
