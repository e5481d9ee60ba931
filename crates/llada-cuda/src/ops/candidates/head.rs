//! An LM head as the kernels of `head.cuh` have it.

use std::ops::Range;

use llada_kernels::args::LladaHead;
use llada_tensor::backend::Rhs;
use llada_tensor::{DType, Error, Precision, Result, Tensor};

use crate::context::Context;
use crate::launch::candidates::{Operands, PART};
use crate::launch::narrow;
use crate::memory::Scratch;
use crate::operands::{Matrices, Ready, round_to_bf16};
use crate::ops::matmul::{CudaWeight, Form, Left};
use crate::product::{Output, Write};

/// Rows in device memory.
#[derive(Debug)]
struct Rows {
    pointer: u64,
    /// Elements from one to the next.
    stride: usize,
    dtype: DType,
    /// Their memory, if they were made for this.
    _made: Option<Ready>,
}

impl Rows {
    /// Rows of another owner.
    fn of(pointer: u64, stride: usize, dtype: DType) -> Self {
        let _made = None;
        Self {
            pointer,
            stride,
            dtype,
            _made,
        }
    }

    /// A copy of `f32` rows without gaps.
    fn rounded(cx: &Context, pointer: u64, [rows, d]: [usize; 2]) -> Result<Self> {
        let made = round_to_bf16(cx, &Matrices::contiguous(pointer, rows, d))?;
        let operand = made.operand();
        Ok(Self {
            pointer: operand.pointer,
            stride: operand.row_stride,
            dtype: DType::Bf16,
            _made: Some(made),
        })
    }

    fn at(&self, row: usize) -> u64 {
        self.pointer + (row * self.stride * self.dtype.size_bytes()) as u64
    }
}

/// The weight `[V, D]` of a head, with the hidden states that it is applied to.
#[derive(Debug)]
enum Product<'a> {
    /// In memory as they are multiplied; but a weight in `f32` for states in bf16 is rounded a part
    /// at a time.
    Values {
        weight: Rows,
        hidden: Rows,
        unconditional: Option<Rows>,
    },
    /// Integers: logits are products of their own, a part at a time.
    Codes {
        weight: Rhs<'a>,
        hidden: Left,
        unconditional: Option<Left>,
    },
}

/// A head and what it is applied to.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    /// What its logits are made of.
    pub(crate) operands: Operands,
    /// Entries `V`.
    pub(crate) vocab_size: usize,
    product: Product<'a>,
    /// Address of the bias, or 0.
    bias: u64,
    /// Rows of the hidden states.
    rows: usize,
    d: usize,
}

impl<'a> Head<'a> {
    /// A head for hidden states `[N, D]`, and for unconditional ones with guidance.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the head is of a kind that is not multiplied in this
    /// precision; if an operand is on another device or not contiguous.
    pub(crate) fn new(
        cx: &Context,
        op: &'static str,
        (hidden, unconditional): (&Tensor, Option<&Tensor>),
        weight: Rhs<'a>,
        bias: Option<&Tensor>,
        precision: Precision,
    ) -> Result<Self> {
        let (d, vocab_size) = weight.k_n().unwrap_or_default();
        let rows = hidden.shape()[0];
        let dtype = match precision {
            Precision::F32 => DType::F32,
            _ => DType::Bf16,
        };
        let as_multiplied = |states: &Tensor| match dtype {
            DType::F32 => Ok(Rows::of(cx.f32s(op, states)?, d, dtype)),
            DType::Bf16 => Rows::rounded(cx, cx.f32s(op, states)?, [rows, d]),
        };
        let values = |weight: Rows| {
            Ok(Product::Values {
                weight,
                hidden: as_multiplied(hidden)?,
                unconditional: unconditional.map(as_multiplied).transpose()?,
            })
        };
        let refused = |what| Err(Error::InvalidArgument { op, what });
        let product = match (Weight::of(cx, op, weight)?, precision.is_integer()) {
            (Weight::Tensor(weight), false) => values(Rows::of(weight, d, DType::F32)),
            (Weight::Values(weight), false) if weight.dtype == dtype => values(weight),
            (Weight::Codes, true) => {
                let left = |states: &Tensor| Left::new(cx, states, precision);
                Ok(Product::Codes {
                    weight,
                    hidden: left(hidden)?,
                    unconditional: unconditional.map(left).transpose()?,
                })
            }
            (Weight::Tensor(_), true) => refused("integers are only multiplied by packed weights"),
            _ => refused("the weight was packed for another precision"),
        }?;
        let operands = match &product {
            Product::Values { hidden, .. } => Operands::Values(hidden.dtype),
            Product::Codes { .. } => Operands::Logits,
        };
        Ok(Self {
            operands,
            vocab_size,
            product,
            bias: bias.map_or(Ok(0), |bias| cx.f32s(op, bias))?,
            rows,
            d,
        })
    }

    /// Most entries that a part should have: all, where nothing is made for it.
    pub(crate) fn most_entries(&self) -> usize {
        match &self.product {
            Product::Values { weight, hidden, .. } if weight.dtype == hidden.dtype => {
                self.vocab_size.max(1)
            }
            _ => PART,
        }
    }

    /// Calls `visit` with some rows and one part of the vocabulary after another, of at most
    /// `entries` entries, whole tiles but for the last.
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
            let at = |states: &Rows| states.at(rows.start);
            let part = LladaHead {
                bias: self.bias,
                start: wide(start),
                len: wide(len),
                vocab_size: wide(self.vocab_size),
                rows: narrow(op, rows.len())?,
                d: narrow(op, self.d)?,
                ..LladaHead::default()
            };
            match &self.product {
                Product::Values {
                    weight,
                    hidden,
                    unconditional,
                } => {
                    let rounded = (weight.dtype != hidden.dtype)
                        .then(|| Rows::rounded(cx, weight.at(start), [len, self.d]))
                        .transpose()?;
                    let (head, head_stride) = match &rounded {
                        Some(rounded) => (rounded.pointer, rounded.stride),
                        None => (weight.at(start), weight.stride),
                    };
                    visit(&LladaHead {
                        head,
                        hidden: at(hidden),
                        unconditional: unconditional.as_ref().map_or(0, at),
                        head_stride: wide(head_stride),
                        hidden_stride: wide(hidden.stride),
                        ..part
                    })?;
                }
                Product::Codes {
                    weight,
                    hidden,
                    unconditional,
                } => {
                    let logits = |left: &Left| -> Result<(Scratch, u64)> {
                        let memory = cx.scratch(self.rows * len * size_of::<f32>())?;
                        let output = Output {
                            pointer: memory.pointer(),
                            row_stride: len,
                            write: Write::Replace,
                        };
                        left.multiply(cx, *weight, start..start + len, output)?;
                        let first = Rows::of(memory.pointer(), len, DType::F32).at(rows.start);
                        Ok((memory, first))
                    };
                    let (_hidden, hidden) = logits(hidden)?;
                    let unconditional = unconditional.as_ref().map(logits).transpose()?;
                    visit(&LladaHead {
                        hidden,
                        unconditional: unconditional.as_ref().map_or(0, |(_, first)| *first),
                        hidden_stride: wide(len),
                        ..part
                    })?;
                }
            }
        }
        Ok(())
    }
}

/// A weight by what it is made of.
enum Weight {
    /// Address of a tensor of `f32`.
    Tensor(u64),
    Values(Rows),
    Codes,
}

impl Weight {
    fn of(cx: &Context, op: &'static str, weight: Rhs<'_>) -> Result<Self> {
        let refused = |what| Error::InvalidArgument { op, what };
        let packed = match weight {
            Rhs::Weight(weight) => return Ok(Self::Tensor(cx.f32s(op, weight)?)),
            Rhs::Packed(packed) => packed,
            Rhs::Matrix(_) => return Err(refused("the head is a weight [V, D], not a matrix")),
        };
        match &CudaWeight::of(cx, op, packed)?.form {
            Form::Values {
                dtype,
                memory,
                row_stride,
            } => Ok(Self::Values(Rows::of(
                memory.pointer(),
                *row_stride,
                *dtype,
            ))),
            Form::Codes(_) => Ok(Self::Codes),
        }
    }
}

/// A size in memory as the kernels' 64-bit arguments have it.
pub(crate) fn wide(n: usize) -> i64 {
    i64::try_from(n).expect("less than the bytes of a memory")
}
