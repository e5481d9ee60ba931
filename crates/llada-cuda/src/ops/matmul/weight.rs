//! Packed weights on the device.

use std::any::Any;
use std::sync::Arc;

use llada_tensor::backend::{DeviceMemory as _, FillRows, PackedWeight};
use llada_tensor::{DType, Error, Precision, Result};

use crate::context::Context;
use crate::memory::{Allocator, Memory};
use crate::operands::{Matrices, cast_into, pieces};
use crate::ops::quantized::PackedCodes;
use crate::product::Operand;

/// A weight `[N, K]`, or one of each of several experts.
pub(crate) struct CudaWeight {
    experts: usize,
    /// Of all experts.
    n: usize,
    k: usize,
    pub(crate) form: Form,
    /// Memory of the device that it is on.
    home: Arc<Allocator>,
}

/// How its elements are kept.
#[derive(Debug)]
pub(crate) enum Form {
    /// `f32` or bf16 in row-major order, rows of bf16 filled up with zeros to whole 16 bytes.
    Values {
        /// Type of the elements.
        dtype: DType,
        /// `[N, row_stride]`.
        memory: Memory,
        /// Elements of a row.
        row_stride: usize,
    },
    /// Integers.
    Codes(PackedCodes),
}

impl std::fmt::Debug for CudaWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaWeight")
            .field("experts", &self.experts)
            .field("n", &self.n)
            .field("k", &self.k)
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

impl CudaWeight {
    /// Of weights `[experts, N, K]`.
    pub(crate) fn new(cx: &Context, [experts, n, k]: [usize; 3], form: Form) -> Self {
        let (n, home) = (experts * n, Arc::clone(cx.allocator()));
        Self {
            experts,
            n,
            k,
            form,
            home,
        }
    }

    /// The weight that this backend packed.
    ///
    /// # Errors
    /// As [`Self::of_experts`], of one.
    pub(crate) fn of<'a>(
        cx: &Context,
        op: &'static str,
        packed: &'a Arc<dyn PackedWeight>,
    ) -> Result<&'a Self> {
        Self::of_experts(cx, op, packed, 1)
    }

    /// The weights of `experts` experts that this backend packed.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if they are not in the memory of this device, or are more or fewer.
    pub(crate) fn of_experts<'a>(
        cx: &Context,
        op: &'static str,
        packed: &'a Arc<dyn PackedWeight>,
        experts: usize,
    ) -> Result<&'a Self> {
        let weight: Option<&Self> = packed.as_any().downcast_ref();
        let weight = weight.filter(|weight| Arc::ptr_eq(&weight.home, cx.allocator()));
        let Some(weight) = weight else {
            let what = "the packed weight belongs to another backend or device";
            return Err(Error::InvalidArgument { op, what });
        };
        let what = match experts {
            _ if weight.experts == experts => return Ok(weight),
            1 => "the packed weight is that of several experts",
            _ => "the packed weight is that of another number of experts",
        };
        Err(Error::InvalidArgument { op, what })
    }
}

impl PackedWeight for CudaWeight {
    fn n(&self) -> usize {
        self.n
    }
    fn k(&self) -> usize {
        self.k
    }
    fn bytes(&self) -> usize {
        match &self.form {
            Form::Values {
                dtype, row_stride, ..
            } => self.n * row_stride * dtype.size_bytes(),
            Form::Codes(codes) => codes.bytes(),
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The elements of some rows of values, transposed: `[K, rows]`.
pub(crate) fn right_operand(
    memory: &Memory,
    dtype: DType,
    row_stride: usize,
    first_row: usize,
) -> Operand {
    let offset = (first_row * row_stride * dtype.size_bytes()) as u64;
    Operand::rows(memory.pointer() + offset, row_stride).transposed()
}

/// Packs values in `f32` or bf16; rounding to bf16 is done on the device.
///
/// # Errors
/// If there is no memory, or the device fails.
pub(crate) fn pack_values(
    cx: &Context,
    [n, k]: [usize; 2],
    precision: Precision,
    fill: FillRows<'_>,
) -> Result<Form> {
    let (dtype, row_stride) = match precision {
        Precision::Bf16 | Precision::Blocks => (DType::Bf16, k.next_multiple_of(8)),
        _ => (DType::F32, k),
    };
    let row_bytes = row_stride * dtype.size_bytes();
    let mut memory = cx.scratch(n * row_bytes)?;
    let mut piece = Vec::new();
    let mut staging = None;
    for rows in pieces(n, k * size_of::<f32>()) {
        piece.resize(rows.len() * k, 0.0_f32);
        fill(rows.clone(), &mut piece);
        let bytes = bytemuck::cast_slice(&piece);
        if dtype == DType::F32 {
            memory.write(rows.start * row_bytes, bytes)?;
            continue;
        }
        // All pieces are written to the same memory: the stream keeps their order.
        let staging = match &mut staging {
            Some(staging) => staging,
            none => none.insert(cx.scratch(bytes.len())?),
        };
        staging.write(0, bytes)?;
        let source = Matrices::contiguous(staging.pointer(), rows.len(), k);
        let target = memory.pointer() + (rows.start * row_bytes) as u64;
        cast_into(cx, &source, (1, 0), target, row_stride)?;
    }
    Ok(Form::Values {
        dtype,
        memory,
        row_stride,
    })
}
