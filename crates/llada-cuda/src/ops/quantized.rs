//! Products with weights of small integers, see [`llada_tensor::quantize`] for what the codes mean
//! and `/kernels/quantized.cu` for how they lie in memory.
//!
//! The CPU rounds the other operand to 8 bits; here it is rounded to bf16, and all else is exact,
//! so that results are a little closer to those of the unrounded operand. Up to 64 rows are
//! multiplied by a kernel that reads codes; for more rows the codes are widened, some rows of the
//! weight at a time. The two add in different orders: a row alone and among more than 64 can
//! differ in the last bits.

use std::ops::Range;

use llada_kernels::args::{
    LladaDequantizeArgs, LladaPackCodesArgs, LladaPackedCodes, LladaQuantizedMatmulArgs,
    LladaRotateArgs,
};
use llada_tensor::backend::{DeviceMemory as _, FillCodes, FillRows, RowCodes};
use llada_tensor::quantize::{self, groups, padded};
use llada_tensor::{DType, Error, Precision, Result};

use crate::context::Context;
use crate::launch::quantized::{self as launch, Bits, MAX_M, STEP, STEP_GROUPS, TILE_N};
use crate::launch::{LaunchPlan, narrow};
use crate::memory::{Memory, Scratch};
use crate::operands::{Matrices, pieces};
use crate::product::{GemmArgs, Operand, Output, Write};

const OP: &str = "quantized";

/// The codes of a weight `[N, K]` in their packed form.
#[derive(Debug)]
pub(crate) struct PackedCodes {
    bits: Bits,
    n: usize,
    steps: usize,
    codes: Memory,
    /// Of 4-bit codes.
    multipliers: Memory,
    /// `[N]`, as `f32`.
    scales: Memory,
}

/// A left operand `[M, K]` in bf16, rotated and filled up with zeros to whole steps.
#[derive(Debug)]
pub(crate) struct Rotated {
    memory: Scratch,
    m: usize,
    steps: usize,
}

/// Rotates the rows of a matrix and rounds them to bf16.
///
/// # Errors
/// If there is no memory, or the device fails.
pub(crate) fn rotate(cx: &Context, x: &Matrices) -> Result<Rotated> {
    let (m, steps) = (x.rows, x.columns.div_ceil(STEP));
    let memory = cx.scratch(m * steps * STEP * DType::Bf16.size_bytes())?;
    let source = x.operand(0);
    let args = LladaRotateArgs {
        x: source.pointer,
        y: memory.pointer(),
        x_row_stride: source.row_stride as i64,
        x_column_stride: source.column_stride as i64,
        rows: narrow(OP, m)?,
        k: narrow(OP, x.columns)?,
        y_columns: narrow(OP, steps * STEP)?,
        padding: 0,
    };
    let plan = launch::rotate(m, steps * STEP)?;
    cx.launch(OP, "llada_rotate_fwd_bf16", plan, &args)?;
    Ok(Rotated { memory, m, steps })
}

impl Rotated {
    /// Address of the first row, and elements of a row.
    pub(crate) fn rows(&self) -> (u64, usize) {
        (self.memory.pointer(), self.steps * STEP)
    }

    /// What the rows are in.
    pub(crate) fn into_memory(self) -> Scratch {
        self.memory
    }
}

impl PackedCodes {
    /// Memory for the codes of a weight.
    fn new(cx: &Context, bits: Bits, [n, k]: [usize; 2]) -> Result<Self> {
        let steps = k.div_ceil(STEP);
        let multiplier_bytes = steps * bits.multiplier_bytes(n.next_multiple_of(TILE_N));
        let mut multipliers = cx.scratch(multiplier_bytes)?;
        // Whole tiles are read, with rows that the weight does not have.
        multipliers.clear(0, multiplier_bytes)?;
        Ok(Self {
            bits,
            n,
            steps,
            codes: cx.scratch(n * steps * bits.step_bytes())?,
            multipliers,
            scales: cx.scratch(n * size_of::<f32>())?,
        })
    }

    /// As kernels see it: the codes, and the scales of rows.
    ///
    /// # Errors
    /// If it is too large.
    pub(crate) fn operand(&self) -> Result<(Bits, LladaPackedCodes, u64)> {
        Ok((self.bits, self.starting_at(0)?, self.scales_from(0)))
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        let multipliers = self.bits.multiplier_bytes(self.n.next_multiple_of(TILE_N));
        let row_bytes = self.steps * self.bits.step_bytes() + size_of::<f32>();
        self.n * row_bytes + self.steps * multipliers
    }

    /// The weight from some row on, as kernels see it.
    fn starting_at(&self, first: usize) -> Result<LladaPackedCodes> {
        let codes = first * self.steps * self.bits.step_bytes();
        Ok(LladaPackedCodes {
            codes: self.codes.pointer() + codes as u64,
            multipliers: self.multipliers.pointer() + (first * STEP_GROUPS) as u64,
            steps: narrow(OP, self.steps)?,
            padded_rows: narrow(OP, self.n.next_multiple_of(TILE_N))?,
        })
    }

    /// `c (+)= a wᵀ[:, columns]`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `columns` does not start at a multiple of 32.
    pub(crate) fn multiply(
        &self,
        cx: &Context,
        a: &Rotated,
        columns: Range<usize>,
        c: Output,
    ) -> Result<()> {
        debug_assert_eq!(a.steps, self.steps, "the op has compared K");
        if !columns.start.is_multiple_of(TILE_N) {
            let what = "tiles of a packed weight start at a multiple of 32 columns";
            return Err(Error::InvalidArgument { op: OP, what });
        }
        if a.m > MAX_M {
            return self.multiply_widened(cx, a, columns, c);
        }
        let (entry, plan) = launch::matmul(self.bits, columns.len())?;
        let args = LladaQuantizedMatmulArgs {
            x: a.memory.pointer(),
            weight: self.starting_at(columns.start)?,
            scales: self.scales_from(columns.start),
            y: c.pointer,
            y_row_stride: c.row_stride as i64,
            m: narrow(OP, a.m)?,
            n: narrow(OP, columns.len())?,
            accumulate: i32::from(c.write == Write::Add),
            padding: 0,
        };
        cx.launch(OP, entry, plan, &args)
    }

    /// The same for any number of rows: some rows of the weight at a time become bf16.
    fn multiply_widened(
        &self,
        cx: &Context,
        a: &Rotated,
        columns: Range<usize>,
        c: Output,
    ) -> Result<()> {
        let width = self.steps * STEP;
        let at_once = launch::dequantized_rows(self.steps).min(columns.len());
        let rows = cx.scratch(at_once * width * DType::Bf16.size_bytes())?;
        for first in columns.clone().step_by(at_once) {
            let n = at_once.min(columns.end - first);
            let (entry, plan) = launch::dequantize(self.bits, n, self.steps)?;
            let args = LladaDequantizeArgs {
                weight: self.starting_at(0)?,
                y: rows.pointer(),
                first_row: narrow(OP, first)?,
                rows: narrow(OP, n)?,
            };
            cx.launch(OP, entry, plan, &args)?;
            let done = (first - columns.start) * size_of::<f32>();
            let args = GemmArgs {
                dtype: DType::Bf16,
                a: Operand::rows(a.memory.pointer(), width),
                b: Operand::rows(rows.pointer(), width).transposed(),
                c: c.pointer + done as u64,
                c_row_stride: c.row_stride,
                c_batch_stride: 0,
                m: a.m,
                n,
                k: width,
                batch: 1,
                column_scales: Some(self.scales_from(first)),
                write: c.write,
            };
            cx.gemm(&args)?;
        }
        Ok(())
    }

    fn scales_from(&self, first: usize) -> u64 {
        self.scales.pointer() + (first * size_of::<f32>()) as u64
    }
}

/// Packed rows from one expert to the next.
pub(crate) fn expert_rows(experts: usize, n: usize) -> usize {
    match experts {
        1 => n,
        _ => n.next_multiple_of(TILE_N),
    }
}

/// What is packed.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// Values that are quantised here, on the host's cores.
    Values(FillRows<'a>),
    /// Codes that are known.
    Codes(FillCodes<'a>),
}

/// Packs a weight of integers, or that of each of several experts, some MiB at a time. The packed rows
/// of each of several experts are filled up to whole tiles.
///
/// # Errors
/// If there is no memory, or the device fails.
pub(crate) fn pack(
    cx: &Context,
    [experts, n, k]: [usize; 3],
    precision: Precision,
    source: Source<'_>,
) -> Result<PackedCodes> {
    let bits = match precision {
        Precision::Int4 => Bits::Four,
        _ => Bits::Eight,
    };
    let expert_rows = expert_rows(experts, n);
    let mut packed = PackedCodes::new(cx, bits, [experts * expert_rows, k])?;
    let (row_codes, row_groups) = (padded(k), groups(precision, k));
    let (mut values, mut codes, mut multipliers) = (Vec::new(), Vec::new(), Vec::new());
    let mut scales = vec![0.0_f32; experts * expert_rows];
    let mut staging: Option<[Memory; 2]> = None;
    let of_each = |e: usize| {
        let pieces = pieces(n, row_codes * size_of::<f32>());
        pieces.map(move |rows| {
            (
                e * expert_rows + rows.start,
                e * n + rows.start..e * n + rows.end,
            )
        })
    };
    for (first_row, rows) in (0..experts).flat_map(of_each) {
        codes.resize(rows.len() * row_codes, 0_i8);
        multipliers.resize(rows.len() * row_groups, 0_i8);
        let out = RowCodes {
            codes: &mut codes,
            multipliers: &mut multipliers,
            scales: &mut scales[first_row..first_row + rows.len()],
        };
        match source {
            Source::Codes(fill) => fill(rows.clone(), out),
            Source::Values(fill) => {
                values.resize(rows.len() * k, 0.0_f32);
                fill(rows.clone(), &mut values);
                quantize::quantize_rows(cx.host()?, precision, &values, k, out)?;
            }
        }
        // All pieces are written to the same memory: the stream keeps their order.
        let [staged_codes, staged_multipliers] = match &mut staging {
            Some(staging) => staging,
            none => none.insert([cx.scratch(codes.len())?, cx.scratch(multipliers.len())?]),
        };
        staged_codes.write(0, bytemuck::cast_slice(&codes))?;
        staged_multipliers.write(0, bytemuck::cast_slice(&multipliers))?;
        let args = LladaPackCodesArgs {
            codes: staged_codes.pointer(),
            multipliers: staged_multipliers.pointer(),
            packed: packed.starting_at(0)?,
            first_row: narrow(OP, first_row)?,
            rows: narrow(OP, rows.len())?,
            k: narrow(OP, row_codes)?,
            padding: 0,
        };
        let (entry, plan): (_, LaunchPlan) = launch::pack_codes(bits, rows.len(), packed.steps)?;
        cx.launch(OP, entry, plan, &args)?;
    }
    packed.scales.write(0, bytemuck::cast_slice(&scales))?;
    Ok(packed)
}

/// See [`llada_tensor::backend::Backend::quantize_rows`]: done on the host, where the codes go.
pub(crate) fn quantize_rows(
    cx: &Context,
    precision: Precision,
    values: &[f32],
    k: usize,
    out: RowCodes<'_>,
) -> Result<()> {
    quantize::quantize_rows(cx.host()?, precision, values, k, out)
}
