//! Tensors: shape, strides and shared storage.

use std::sync::Arc;

use half::bf16;

use crate::storage::Buffer;
use crate::{DType, Device, Error, Result};

/// A view of shared storage with a shape and strides in elements.
///
/// Cloning, narrowing, transposing and reshaping share the storage.
/// Writing needs a tensor that is the only one on its storage.
#[derive(Debug, Clone)]
pub struct Tensor {
    storage: Arc<Buffer>,
    dtype: DType,
    shape: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
    device: Device,
}

impl Tensor {
    /// A contiguous tensor with unspecified contents.
    #[must_use]
    pub fn empty(device: &Device, dtype: DType, shape: &[usize]) -> Self {
        let bytes = shape.iter().product::<usize>() * dtype.size_bytes();
        Self {
            storage: Arc::new(device.pool().take(bytes)),
            dtype,
            shape: shape.to_vec(),
            strides: contiguous_strides(shape),
            offset: 0,
            device: device.clone(),
        }
    }

    /// A contiguous tensor of zeros.
    #[must_use]
    pub fn zeros(device: &Device, dtype: DType, shape: &[usize]) -> Self {
        let mut tensor = Self::empty(device, dtype, shape);
        tensor.new_bytes().fill(0);
        tensor
    }

    /// A contiguous `f32` tensor with the given values.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if `values.len()` is not the product of `shape`.
    pub fn from_f32(device: &Device, shape: &[usize], values: &[f32]) -> Result<Self> {
        let mut tensor = Self::empty(device, DType::F32, shape);
        let out = tensor.f32s_mut()?;
        if out.len() != values.len() {
            let (lhs, rhs) = (shape.to_vec(), vec![values.len()]);
            return Err(Error::ShapeMismatch {
                op: "from_f32",
                lhs,
                rhs,
            });
        }
        out.copy_from_slice(values);
        Ok(tensor)
    }

    /// A contiguous `bf16` tensor with the given values.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if `values.len()` is not the product of `shape`.
    pub fn from_bf16(device: &Device, shape: &[usize], values: &[bf16]) -> Result<Self> {
        let mut tensor = Self::empty(device, DType::Bf16, shape);
        let out: &mut [bf16] = bytemuck::cast_slice_mut(tensor.new_bytes());
        if out.len() != values.len() {
            let (lhs, rhs) = (shape.to_vec(), vec![values.len()]);
            return Err(Error::ShapeMismatch {
                op: "from_bf16",
                lhs,
                rhs,
            });
        }
        out.copy_from_slice(values);
        Ok(tensor)
    }

    /// Lengths of the axes.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Distances between neighbors along each axis, in elements.
    #[must_use]
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// Type of the elements.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the tensor lives.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Number of elements.
    #[must_use]
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the elements lie in row-major order without gaps.
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        self.strides == contiguous_strides(&self.shape)
    }

    /// The part `start..start + len` of an axis.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`] if the axis or the range does not exist.
    pub fn narrow(&self, axis: usize, start: usize, len: usize) -> Result<Self> {
        let op = "narrow";
        let limit = self.shape.len();
        let size = *self.shape.get(axis).ok_or(Error::IndexOutOfRange {
            op,
            index: axis,
            limit,
        })?;
        if start.checked_add(len).is_none_or(|end| end > size) {
            return Err(Error::IndexOutOfRange {
                op,
                index: start.saturating_add(len),
                limit: size,
            });
        }
        let mut view = self.clone();
        view.shape[axis] = len;
        view.offset += start * self.strides[axis];
        Ok(view)
    }

    /// The same elements with two axes exchanged.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`] if an axis does not exist.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Self> {
        let limit = self.shape.len();
        let index = a.max(b);
        if index >= limit {
            return Err(Error::IndexOutOfRange {
                op: "transpose",
                index,
                limit,
            });
        }
        let mut view = self.clone();
        view.shape.swap(a, b);
        view.strides.swap(a, b);
        Ok(view)
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// [`Error::NotContiguous`] or [`Error::ShapeMismatch`].
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        let op = "reshape";
        if !self.is_contiguous() {
            return Err(Error::NotContiguous {
                op,
                shape: self.shape.clone(),
            });
        }
        if shape.iter().product::<usize>() != self.numel() {
            let (lhs, rhs) = (self.shape.clone(), shape.to_vec());
            return Err(Error::ShapeMismatch { op, lhs, rhs });
        }
        let mut view = self.clone();
        view.shape = shape.to_vec();
        view.strides = contiguous_strides(shape);
        Ok(view)
    }

    /// A contiguous copy in its own storage, in the given type.
    #[must_use]
    pub fn to_dtype(&self, dtype: DType) -> Self {
        let mut copy = Self::empty(&self.device, dtype, &self.shape);
        let bytes = copy.new_bytes();
        match dtype {
            DType::F32 => self.copy_f32(bytemuck::cast_slice_mut(bytes)),
            DType::Bf16 => {
                let values = self.to_vec_f32();
                let out: &mut [bf16] = bytemuck::cast_slice_mut(bytes);
                for (out, value) in out.iter_mut().zip(values) {
                    *out = bf16::from_f32(value);
                }
            }
        }
        copy
    }

    /// All elements in row-major order, widened to `f32`.
    #[must_use]
    pub fn to_vec_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.numel()];
        self.copy_f32(&mut out);
        out
    }

    pub(crate) fn copy_f32(&self, out: &mut [f32]) {
        let bytes = self.storage.bytes();
        match self.dtype {
            DType::F32 => self.gather(bytemuck::cast_slice(bytes), out, |x: f32| x),
            DType::Bf16 => self.gather(bytemuck::cast_slice(bytes), out, bf16::to_f32),
        }
    }

    fn gather<T: Copy>(&self, data: &[T], out: &mut [f32], widen: impl Fn(T) -> f32) {
        if self.is_contiguous() {
            for (out, &x) in out.iter_mut().zip(&data[self.offset..]) {
                *out = widen(x);
            }
            return;
        }
        let mut index = vec![0; self.shape.len()];
        for out in out {
            let at: usize = index.iter().zip(&self.strides).map(|(i, s)| i * s).sum();
            *out = widen(data[self.offset + at]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
    }

    /// The elements of a contiguous `f32` tensor.
    ///
    /// # Errors
    /// [`Error::DTypeMismatch`] or [`Error::NotContiguous`].
    pub fn f32s(&self) -> Result<&[f32]> {
        self.expect_layout("f32s", DType::F32)?;
        Ok(&self.storage.f32s()[self.offset..self.offset + self.numel()])
    }

    /// The elements of a contiguous `bf16` tensor.
    ///
    /// # Errors
    /// [`Error::DTypeMismatch`] or [`Error::NotContiguous`].
    pub fn bf16s(&self) -> Result<&[bf16]> {
        self.expect_layout("bf16s", DType::Bf16)?;
        let all: &[bf16] = bytemuck::cast_slice(self.storage.bytes());
        Ok(&all[self.offset..self.offset + self.numel()])
    }

    /// The elements of a contiguous `f32` tensor, to be written.
    ///
    /// # Errors
    /// [`Error::DTypeMismatch`], [`Error::NotContiguous`], or [`Error::SharedOutput`] if another
    /// tensor uses the same storage.
    pub fn f32s_mut(&mut self) -> Result<&mut [f32]> {
        self.expect_layout("f32s_mut", DType::F32)?;
        let (start, end) = (self.offset, self.offset + self.numel());
        match Arc::get_mut(&mut self.storage) {
            Some(buffer) => Ok(&mut buffer.f32s_mut()[start..end]),
            None => Err(Error::SharedOutput {
                op: "f32s_mut",
                shape: self.shape.clone(),
            }),
        }
    }

    /// All `f32` elements of the storage from the view's first element on, for strided reads.
    pub(crate) fn f32s_from_offset(&self) -> &[f32] {
        debug_assert_eq!(self.dtype, DType::F32, "checked by the op");
        &self.storage.f32s()[self.offset..]
    }

    /// An error if the elements are not `f32`.
    pub(crate) fn expect_f32(&self, op: &'static str) -> Result<()> {
        self.expect_dtype(op, DType::F32)
    }

    fn expect_dtype(&self, op: &'static str, expected: DType) -> Result<()> {
        let got = self.dtype;
        if got == expected {
            return Ok(());
        }
        Err(Error::DTypeMismatch { op, expected, got })
    }

    /// The storage of a tensor that was just made.
    fn new_bytes(&mut self) -> &mut [u8] {
        Arc::get_mut(&mut self.storage)
            .expect("nothing else knows it yet")
            .bytes_mut()
    }

    fn expect_layout(&self, op: &'static str, expected: DType) -> Result<()> {
        self.expect_dtype(op, expected)?;
        if !self.is_contiguous() {
            return Err(Error::NotContiguous {
                op,
                shape: self.shape.clone(),
            });
        }
        Ok(())
    }
}

fn contiguous_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

#[cfg(test)]
mod tests;
