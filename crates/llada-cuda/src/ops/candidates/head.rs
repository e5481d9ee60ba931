//! An LM head as the kernels of `head.cuh` have it.

use std::ops::Range;
use std::sync::Arc;

use llada_kernels::args::{LladaHead, LladaRoundArgs};
use llada_tensor::backend::{PackedWeight, Rhs};
use llada_tensor::{DType, Error, Precision, Result, Tensor};

use crate::context::Context;
use crate::launch::candidates as plan;
use crate::launch::narrow;
use crate::memory::Scratch;

/// Elements of rounded rows are padded to whole 16 bytes.
const ALIGNED: usize = 8;

/// Rows in device memory.
#[derive(Debug)]
struct Rows {
    pointer: u64,
    /// Elements from one to the next.
    stride: usize,
    /// Their memory, if they were made for this.
    _made: Option<Scratch>,
}

impl Rows {
    fn at(&self, row: usize, dtype: DType) -> u64 {
        self.pointer + (row * self.stride * dtype.size_bytes()) as u64
    }
}

/// The weight `[V, D]` of a head.
#[derive(Debug)]
enum Weight {
    /// In memory as it is multiplied.
    Plain(Rows),
    /// `f32`, rounded to bf16 a part at a time.
    Rounded(Rows),
}

/// Hidden states of the rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadRows<'a> {
    /// `[N, D]`
    pub(crate) hidden: &'a Tensor,
    /// `[N, D]`, with guidance.
    pub(crate) unconditional: Option<&'a Tensor>,
}

/// A head with the hidden states that it is applied to, both of one type.
#[derive(Debug)]
pub(crate) struct Head {
    /// Type of the operands of the product.
    pub(crate) dtype: DType,
    /// Entries `V`.
    pub(crate) vocab_size: usize,
    weight: Weight,
    hidden: Rows,
    unconditional: Option<Rows>,
    /// Address of the bias, or 0.
    bias: u64,
    d: usize,
}

impl Head {
    /// # Errors
    /// [`Error::InvalidArgument`] if the head is of a kind that is not multiplied in this
    /// precision; if an operand is on another device or not contiguous.
    pub(crate) fn new(
        cx: &Context,
        op: &'static str,
        rows: HeadRows<'_>,
        weight: Rhs<'_>,
        bias: Option<&Tensor>,
        precision: Precision,
    ) -> Result<Self> {
        let (d, vocab_size) = weight.k_n().unwrap_or_default();
        let (weight, dtype) = match weight {
            Rhs::Weight(weight) => {
                let (pointer, stride) = (cx.f32s(op, weight)?, d);
                let rows = Rows {
                    pointer,
                    stride,
                    _made: None,
                };
                match precision {
                    Precision::F32 => (Weight::Plain(rows), DType::F32),
                    Precision::Bf16 => (Weight::Rounded(rows), DType::Bf16),
                    Precision::Int8 | Precision::Int4 => {
                        let what = "integers are only multiplied by packed weights";
                        return Err(Error::InvalidArgument { op, what });
                    }
                }
            }
            Rhs::Packed(weight) => packed(op, weight)?,
            Rhs::Matrix(_) => {
                let what = "the head is a weight [V, D], not a matrix";
                return Err(Error::InvalidArgument { op, what });
            }
        };
        let states = |states: &Tensor| {
            let pointer = cx.f32s(op, states)?;
            match dtype {
                DType::F32 => Ok(Rows {
                    pointer,
                    stride: d,
                    _made: None,
                }),
                DType::Bf16 => rounded(cx, op, (pointer, d), [states.shape()[0], d]),
            }
        };
        Ok(Self {
            dtype,
            vocab_size,
            weight,
            hidden: states(rows.hidden)?,
            unconditional: rows.unconditional.map(states).transpose()?,
            bias: bias.map_or(Ok(0), |bias| cx.f32s(op, bias))?,
            d,
        })
    }

    /// Most entries that a part may have: all, where nothing is made for it.
    pub(crate) fn most_entries(&self) -> usize {
        match self.weight {
            Weight::Plain(_) => self.vocab_size.max(1),
            Weight::Rounded(_) => plan::PART,
        }
    }

    /// Calls `visit` with some rows and one part of the vocabulary after another, of at most
    /// `entries` entries, a multiple of the tile but for the last.
    pub(crate) fn for_each_part(
        &self,
        cx: &Context,
        rows: Range<usize>,
        entries: usize,
        mut visit: impl FnMut(&LladaHead) -> Result<()>,
    ) -> Result<()> {
        let op = "lm_head";
        for start in (0..self.vocab_size).step_by(entries) {
            let len = entries.min(self.vocab_size - start);
            let made;
            let (part, stride) = match &self.weight {
                Weight::Plain(weight) => (weight.at(start, self.dtype), weight.stride),
                Weight::Rounded(weight) => {
                    let source = (weight.at(start, DType::F32), weight.stride);
                    made = rounded(cx, op, source, [len, self.d])?;
                    (made.pointer, made.stride)
                }
            };
            let unconditional = self.unconditional.as_ref();
            visit(&LladaHead {
                head: part,
                hidden: self.hidden.at(rows.start, self.dtype),
                unconditional: unconditional.map_or(0, |un| un.at(rows.start, self.dtype)),
                bias: self.bias,
                head_stride: wide(stride),
                hidden_stride: wide(self.hidden.stride),
                start: wide(start),
                len: wide(len),
                vocab_size: wide(self.vocab_size),
                rows: narrow(op, rows.len())?,
                d: narrow(op, self.d)?,
            })?;
        }
        Ok(())
    }
}

/// A packed weight of this backend.
fn packed(op: &'static str, _weight: &Arc<dyn PackedWeight>) -> Result<(Weight, DType)> {
    let what = "the packed weight belongs to another backend";
    Err(Error::InvalidArgument { op, what })
}

/// A size in memory as the kernels' 64-bit arguments have it.
pub(crate) fn wide(n: usize) -> i64 {
    i64::try_from(n).expect("less than the bytes of a memory")
}

/// `f32` rows, known by their address and stride, in bf16.
fn rounded(
    cx: &Context,
    op: &'static str,
    (x, x_stride): (u64, usize),
    [rows, d]: [usize; 2],
) -> Result<Rows> {
    let stride = d.next_multiple_of(ALIGNED);
    let memory = cx.scratch(rows * stride * DType::Bf16.size_bytes())?;
    let args = LladaRoundArgs {
        x,
        y: memory.pointer(),
        x_stride: wide(x_stride),
        y_stride: wide(stride),
        rows: wide(rows),
        d: wide(d),
    };
    let grid = plan::round(op, &args)?;
    cx.launch("candidates", "llada_candidates_round_bf16", grid, &args)?;
    Ok(Rows {
        pointer: memory.pointer(),
        stride,
        _made: Some(memory),
    })
}
