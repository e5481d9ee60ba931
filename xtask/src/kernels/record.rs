//! A line of figures for each entry and architecture, the table that is kept of them, and what
//! makes a figure worse than the kept one.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::gpu::{Footprint, Gpu};
use super::images::Entry;
use super::launches::dynamic_shared;
use super::simulator::Counters;

/// Registers of a thread may rise by so many: they are given out in eights.
const REGISTER_MARGIN: u32 = 8;
/// The main loop may grow by this share, and so many instructions.
const LOOP_MARGIN: f64 = 0.05;
const LOOP_MARGIN_INSTRUCTIONS: f64 = 8.0;
/// Tensor-core instructions per instruction may fall by so much.
const TENSOR_RATIO_MARGIN: f64 = 0.01;
/// The least of them in the main loop of the forward pass of attention on `sm_80`; gradients are
/// held to their own figures in the table.
const ATTENTION_TENSOR_RATIO: f64 = 0.14;
/// The most passes over shared memory to a pass without conflicts, in kernels with products.
const MAX_CONFLICT_RATIO: f64 = 1.05;

/// The figures of an entry on an architecture.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) entry: String,
    pub(super) arch: String,
    /// Most threads of a block; 0 if the kernel does not say.
    pub(super) threads: u32,
    pub(super) registers: u32,
    /// Loads and stores of local memory.
    pub(super) spills: usize,
    pub(super) local_bytes: u32,
    pub(super) static_shared: u32,
    pub(super) dynamic_shared: u32,
    pub(super) blocks_per_sm: u32,
    /// What allows no more blocks.
    pub(super) limit: String,
    /// Instructions.
    pub(super) sass: usize,
    /// Those of the main loop, and the kinds among them.
    pub(super) main_loop: usize,
    pub(super) tensor: usize,
    pub(super) ldsm: usize,
    pub(super) ldgsts: usize,
    pub(super) mufu: usize,
    pub(super) bar: usize,
    pub(super) tensor_ratio: f64,
    /// Of the software device, not kept in the table.
    pub(super) conflict_ratio: Option<f64>,
    pub(super) sectors_per_request: Option<f64>,
    #[serde(skip)]
    lacks_dynamic_shared: bool,
}

const COLUMNS: &[&str] = &[
    "entry",
    "arch",
    "threads",
    "registers",
    "spills",
    "local_bytes",
    "static_shared",
    "dynamic_shared",
    "blocks_per_sm",
    "limit",
    "sass",
    "main_loop",
    "tensor",
    "ldsm",
    "ldgsts",
    "mufu",
    "bar",
    "tensor_ratio",
];

impl Row {
    pub(super) fn new(entry: &Entry, counters: Option<&Counters>) -> Self {
        let dynamic = dynamic_shared(&entry.name);
        let mut row = Self {
            entry: entry.name.clone(),
            arch: format!("sm_{}", entry.arch),
            threads: entry.ptx.max_threads.unwrap_or(0),
            registers: entry.registers,
            spills: entry.whole.local,
            local_bytes: entry.local_bytes,
            static_shared: entry.static_shared,
            dynamic_shared: dynamic.unwrap_or(0),
            sass: entry.whole.length,
            main_loop: entry.main_loop.length,
            tensor: entry.main_loop.tensor,
            ldsm: entry.main_loop.ldsm,
            ldgsts: entry.main_loop.ldgsts,
            mufu: entry.main_loop.mufu,
            bar: entry.main_loop.bar,
            tensor_ratio: entry.main_loop.tensor_ratio(),
            conflict_ratio: counters.and_then(Counters::conflict_ratio),
            sectors_per_request: counters.and_then(Counters::sectors_per_request),
            lacks_dynamic_shared: entry.ptx.uses_dynamic_shared && dynamic.is_none(),
            ..Self::default()
        };
        if let Some(gpu) = Gpu::of(&entry.arch).filter(|_| row.threads > 0) {
            let occupancy = gpu.occupancy(Footprint {
                threads: row.threads,
                registers: row.registers,
                shared_bytes: row.static_shared + row.dynamic_shared,
            });
            row.blocks_per_sm = occupancy.blocks;
            row.limit = occupancy.limits.join("+");
        }
        row
    }

    fn fields(&self) -> [String; 18] {
        [
            self.entry.clone(),
            self.arch.clone(),
            self.threads.to_string(),
            self.registers.to_string(),
            self.spills.to_string(),
            self.local_bytes.to_string(),
            self.static_shared.to_string(),
            self.dynamic_shared.to_string(),
            self.blocks_per_sm.to_string(),
            self.limit.clone(),
            self.sass.to_string(),
            self.main_loop.to_string(),
            self.tensor.to_string(),
            self.ldsm.to_string(),
            self.ldgsts.to_string(),
            self.mufu.to_string(),
            self.bar.to_string(),
            format!("{:.3}", self.tensor_ratio),
        ]
    }

    fn parse(line: &str) -> Result<Self> {
        let fields: Vec<&str> = line.split(',').collect();
        anyhow::ensure!(fields.len() == COLUMNS.len(), "{} fields", fields.len());
        let of: BTreeMap<&str, &str> = COLUMNS.iter().copied().zip(fields).collect();
        let number = |name: &str| -> Result<u32> { Ok(of[name].parse()?) };
        let count = |name: &str| -> Result<usize> { Ok(of[name].parse()?) };
        Ok(Self {
            entry: of["entry"].to_owned(),
            arch: of["arch"].to_owned(),
            threads: number("threads")?,
            registers: number("registers")?,
            spills: count("spills")?,
            local_bytes: number("local_bytes")?,
            static_shared: number("static_shared")?,
            dynamic_shared: number("dynamic_shared")?,
            blocks_per_sm: number("blocks_per_sm")?,
            limit: of["limit"].to_owned(),
            sass: count("sass")?,
            main_loop: count("main_loop")?,
            tensor: count("tensor")?,
            ldsm: count("ldsm")?,
            ldgsts: count("ldgsts")?,
            mufu: count("mufu")?,
            bar: count("bar")?,
            tensor_ratio: of["tensor_ratio"].parse()?,
            ..Self::default()
        })
    }

    /// What holds of this row whatever it was before.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.spills > 0 {
            faults.push(format!(
                "{} loads and stores of local memory: registers are spilled, or an array is not \
                 in registers",
                self.spills
            ));
        }
        if self.threads == 0 {
            faults.push("the kernel has no __launch_bounds__".to_owned());
        } else if self.blocks_per_sm == 0 {
            faults.push(format!("no block fits: {}", self.limit));
        }
        if self.lacks_dynamic_shared {
            faults.push(
                "its dynamic shared memory is not in xtask/src/kernels/launches.rs".to_owned(),
            );
        }
        let is_attention = self.entry.starts_with("llada_attention_fwd_") && self.tensor > 0;
        if is_attention && self.arch == "sm_80" && self.tensor_ratio < ATTENTION_TENSOR_RATIO {
            faults.push(format!(
                "{:.3} tensor-core instructions per instruction of the main loop, below \
                 {ATTENTION_TENSOR_RATIO}",
                self.tensor_ratio
            ));
        }
        if let Some(ratio) = self.conflict_ratio.filter(|_| self.tensor > 0)
            && ratio > MAX_CONFLICT_RATIO
        {
            faults.push(format!(
                "{ratio:.3} passes over shared memory where one would do, above {MAX_CONFLICT_RATIO}"
            ));
        }
        faults
    }

    /// What is worse than in the kept row.
    fn losses(&self, kept: &Self) -> Vec<String> {
        let mut losses = Vec::new();
        if self.registers > kept.registers + REGISTER_MARGIN {
            losses.push(format!(
                "{} registers, {} before",
                self.registers, kept.registers
            ));
        }
        if self.blocks_per_sm < kept.blocks_per_sm {
            losses.push(format!(
                "{} blocks on a multiprocessor (limit: {}), {} before",
                self.blocks_per_sm, self.limit, kept.blocks_per_sm
            ));
        }
        let most = kept.main_loop as f64 * (1.0 + LOOP_MARGIN) + LOOP_MARGIN_INSTRUCTIONS;
        if self.main_loop as f64 > most {
            losses.push(format!(
                "{} instructions in the main loop, {} before",
                self.main_loop, kept.main_loop
            ));
        }
        if self.tensor_ratio < kept.tensor_ratio - TENSOR_RATIO_MARGIN {
            losses.push(format!(
                "{:.3} tensor-core instructions per instruction, {:.3} before",
                self.tensor_ratio, kept.tensor_ratio
            ));
        }
        losses
    }
}

pub(super) fn csv(rows: &[Row]) -> String {
    let lines = rows.iter().map(|row| row.fields().join(",") + "\n");
    COLUMNS.join(",") + "\n" + &lines.collect::<String>()
}

pub(super) fn parse_csv(text: &str) -> Result<Vec<Row>> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    anyhow::ensure!(head == COLUMNS.join(","), "the first line is {head:?}");
    lines
        .enumerate()
        .map(|(at, line)| Row::parse(line).with_context(|| format!("line {}", at + 2)))
        .collect()
}

/// Everything that is wrong with the rows or worse than in the kept table, a line each.
pub(super) fn check(rows: &[Row], kept: &[Row]) -> Vec<String> {
    fn key(row: &Row) -> (&str, &str) {
        (&row.entry, &row.arch)
    }
    let before: BTreeMap<_, &Row> = kept.iter().map(|row| (key(row), row)).collect();
    let now: BTreeMap<_, &Row> = rows.iter().map(|row| (key(row), row)).collect();
    let mut problems = Vec::new();
    for row in rows {
        let mut wrong = row.faults();
        match before.get(&key(row)) {
            Some(kept) => wrong.extend(row.losses(kept)),
            None => wrong.push("it is not in the table".to_owned()),
        }
        let line = |wrong: String| format!("{} {}: {wrong}", row.entry, row.arch);
        problems.extend(wrong.into_iter().map(line));
    }
    let gone = kept.iter().filter(|row| !now.contains_key(&key(row)));
    problems.extend(gone.map(|row| {
        format!(
            "{} {}: it is in the table, and there is no such kernel",
            row.entry, row.arch
        )
    }));
    problems
}

/// The figures in columns.
pub(super) fn table(rows: &[Row]) -> String {
    let head = [
        "entry", "arch", "thr", "regs", "spill", "local", "shared", "+dyn", "blk/SM", "limit",
        "SASS", "loop", "MMA", "LDSM", "LDGSTS", "MUFU", "BAR", "MMA/ins", "conflict", "sect/req",
    ];
    let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |x| format!("{x:.2}"));
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for row in rows {
        let mut fields = row.fields().to_vec();
        fields.push(optional(row.conflict_ratio));
        fields.push(optional(row.sectors_per_request));
        lines.push(fields);
    }
    columns(&lines)
}

/// Text in columns: the first is flush left, the others flush right.
pub(super) fn columns(lines: &[Vec<String>]) -> String {
    let n_columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let fields = lines.iter().filter_map(|line| line.get(column));
        fields.map(|field| field.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let fields = line.iter().zip(&widths).enumerate();
        let padded = fields.map(|(at, (field, &width))| match at {
            0 => format!("{field:width$}"),
            _ => format!("{field:>width$}"),
        });
        let line = padded.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
