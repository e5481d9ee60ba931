//! Tensors: shape, strides and shared storage.

use std::sync::Arc;

use half::bf16;

use crate::storage::Storage;
use crate::{DType, Device, Error, Result};

/// A view of shared storage with a shape and strides in elements.
///
/// Cloning, narrowing, transposing and reshaping share the storage.
/// Writing needs a tensor that is the only one on its storage.
#[derive(Debug, Clone)]
pub struct Tensor {
    storage: Arc<Storage>,
    dtype: DType,
    shape: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
    device: Device,
}

impl Tensor {
    /// A contiguous tensor with unspecified contents.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], or if the device fails.
    pub fn empty(device: &Device, dtype: DType, shape: &[usize]) -> Result<Self> {
        let bytes = shape.iter().product::<usize>() * dtype.size_bytes();
        Ok(Self {
            storage: Arc::new(device.backend().allocate(bytes)?),
            dtype,
            shape: shape.to_vec(),
            strides: contiguous_strides(shape),
            offset: 0,
            device: device.clone(),
        })
    }

    /// A contiguous tensor of zeros.
    ///
    /// # Errors
    /// As [`Self::empty`].
    pub fn zeros(device: &Device, dtype: DType, shape: &[usize]) -> Result<Self> {
        let mut tensor = Self::empty(device, dtype, shape)?;
        tensor.fill_zero()?;
        Ok(tensor)
    }

    /// A contiguous `f32` tensor with the given values.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if `values.len()` is not the product of `shape`; as
    /// [`Self::empty`].
    pub fn from_f32(device: &Device, shape: &[usize], values: &[f32]) -> Result<Self> {
        Self::from_values("from_f32", device, DType::F32, shape, values)
    }

    /// A contiguous `bf16` tensor with the given values.
    ///
    /// # Errors
    /// As [`Self::from_f32`].
    pub fn from_bf16(device: &Device, shape: &[usize], values: &[bf16]) -> Result<Self> {
        Self::from_values("from_bf16", device, DType::Bf16, shape, values)
    }

    fn from_values<T: bytemuck::NoUninit>(
        op: &'static str,
        device: &Device,
        dtype: DType,
        shape: &[usize],
        values: &[T],
    ) -> Result<Self> {
        if shape.iter().product::<usize>() != values.len() {
            return Err(Error::shapes(op, shape, &[values.len()]));
        }
        let mut tensor = Self::empty(device, dtype, shape)?;
        let bytes = bytemuck::cast_slice(values);
        match tensor.storage_mut(op)? {
            Storage::Host(buffer) => buffer.bytes_mut().copy_from_slice(bytes),
            Storage::Device(memory) => memory.write(0, bytes)?,
        }
        Ok(tensor)
    }

    /// Sets all elements of a contiguous tensor to zero.
    ///
    /// # Errors
    /// [`Error::NotContiguous`], [`Error::SharedOutput`], or if the device fails.
    pub fn fill_zero(&mut self) -> Result<()> {
        let op = "fill_zero";
        self.expect_contiguous(op)?;
        let size = self.dtype.size_bytes();
        let (start, len) = (self.offset * size, self.numel() * size);
        match self.storage_mut(op)? {
            Storage::Host(buffer) => buffer.bytes_mut()[start..start + len].fill(0),
            Storage::Device(memory) => memory.clear(start, len)?,
        }
        Ok(())
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
        let out_of_range = |index, limit| Error::IndexOutOfRange { op, index, limit };
        let axes = self.shape.len();
        let size = *self.shape.get(axis).ok_or(out_of_range(axis, axes))?;
        if start.checked_add(len).is_none_or(|end| end > size) {
            return Err(out_of_range(start.saturating_add(len), size));
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
        let (op, index, limit) = ("transpose", a.max(b), self.shape.len());
        if index >= limit {
            return Err(Error::IndexOutOfRange { op, index, limit });
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
        self.expect_contiguous(op)?;
        if shape.iter().product::<usize>() != self.numel() {
            return Err(Error::shapes(op, &self.shape, shape));
        }
        let mut view = self.clone();
        view.shape = shape.to_vec();
        view.strides = contiguous_strides(shape);
        Ok(view)
    }

    /// A contiguous copy in its own storage, in the given type. On a device, a contiguous tensor is
    /// copied there if its type stays; all else goes through the host.
    ///
    /// # Errors
    /// As [`Self::empty`].
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let mut copy = Self::empty(&self.device, dtype, &self.shape)?;
        if let (Storage::Device(source), true) =
            (&*self.storage, dtype == self.dtype && self.is_contiguous())
        {
            let size = dtype.size_bytes();
            let (start, len) = (self.offset * size, self.numel() * size);
            if let Storage::Device(memory) = copy.storage_mut("to_dtype")? {
                memory.copy(0, &**source, start, len)?;
            }
            return Ok(copy);
        }
        let values = self.to_vec_f32()?;
        match dtype {
            DType::F32 => Self::from_f32(&self.device, &self.shape, &values),
            DType::Bf16 => {
                let values: Vec<bf16> = values.iter().map(|&x| bf16::from_f32(x)).collect();
                Self::from_bf16(&self.device, &self.shape, &values)
            }
        }
    }

    /// All elements in row-major order, widened to `f32`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn to_vec_f32(&self) -> Result<Vec<f32>> {
        let mut out = vec![0.0; self.numel()];
        self.copy_f32(&mut out)?;
        Ok(out)
    }

    /// All elements in row-major order, widened to `f32`, into `out`, which is as long.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn copy_f32(&self, out: &mut [f32]) -> Result<()> {
        let fetched;
        let (bytes, offset) = match &*self.storage {
            Storage::Host(buffer) => (buffer.bytes(), self.offset),
            Storage::Device(memory) => {
                let size = self.dtype.size_bytes();
                let len = self.reach() * size;
                // Whole words, so that they can be read as either type.
                let mut words = vec![0_u32; len.div_ceil(4)];
                if len > 0 {
                    let into = &mut bytemuck::cast_slice_mut(&mut words)[..len];
                    memory.read(self.offset * size, into)?;
                }
                fetched = words;
                (bytemuck::cast_slice(&fetched), 0)
            }
        };
        match self.dtype {
            DType::F32 => self.gather(&bytemuck::cast_slice(bytes)[offset..], out, |x: f32| x),
            DType::Bf16 => self.gather(&bytemuck::cast_slice(bytes)[offset..], out, bf16::to_f32),
        }
        Ok(())
    }

    fn gather<T: Copy>(&self, data: &[T], out: &mut [f32], widen: impl Fn(T) -> f32) {
        if self.is_contiguous() {
            for (out, &x) in out.iter_mut().zip(data) {
                *out = widen(x);
            }
            return;
        }
        let mut index = vec![0; self.shape.len()];
        for out in out {
            let at: usize = index.iter().zip(&self.strides).map(|(i, s)| i * s).sum();
            *out = widen(data[at]);
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
        let all = self.storage.host("f32s")?.f32s();
        Ok(&all[self.offset..self.offset + self.numel()])
    }

    /// The elements of a contiguous `bf16` tensor.
    ///
    /// # Errors
    /// [`Error::DTypeMismatch`] or [`Error::NotContiguous`].
    pub fn bf16s(&self) -> Result<&[bf16]> {
        self.expect_layout("bf16s", DType::Bf16)?;
        let all: &[bf16] = bytemuck::cast_slice(self.storage.host("bf16s")?.bytes());
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
        match self.storage_mut("f32s_mut")? {
            Storage::Host(buffer) => Ok(&mut buffer.f32s_mut()[start..end]),
            Storage::Device(_) => Err(Error::NotOnHost { op: "f32s_mut" }),
        }
    }

    /// The elements of a contiguous `bf16` tensor, to be written.
    ///
    /// # Errors
    /// As [`Self::f32s_mut`].
    pub fn bf16s_mut(&mut self) -> Result<&mut [bf16]> {
        self.expect_contiguous("bf16s_mut")?;
        self.bf16_rows_mut()
    }

    /// The elements of a `bf16` tensor from the first to the last: those of a matrix may have gaps
    /// between rows.
    ///
    /// # Errors
    /// [`Error::DTypeMismatch`], or [`Error::NotContiguous`] if elements of a row are apart.
    pub(crate) fn bf16_rows(&self) -> Result<&[bf16]> {
        let reach = self.reach_of_rows("bf16_rows")?;
        Ok(&self.bf16s_from_offset()?[..reach])
    }

    /// The same, to be written.
    ///
    /// # Errors
    /// As [`Self::bf16_rows`], or [`Error::SharedOutput`] if another tensor uses the same storage.
    pub(crate) fn bf16_rows_mut(&mut self) -> Result<&mut [bf16]> {
        let op = "bf16_rows_mut";
        let (start, reach) = (self.offset, self.reach_of_rows(op)?);
        match self.storage_mut(op)? {
            Storage::Host(buffer) => {
                let all: &mut [bf16] = bytemuck::cast_slice_mut(buffer.bytes_mut());
                Ok(&mut all[start..start + reach])
            }
            Storage::Device(_) => Err(Error::NotOnHost { op }),
        }
    }

    fn reach_of_rows(&self, op: &'static str) -> Result<usize> {
        self.expect_dtype(op, DType::Bf16)?;
        if !matches!(self.strides[..], [_, 1]) {
            self.expect_contiguous(op)?;
        }
        Ok(self.reach())
    }

    /// Elements from the first to the last, and what lies between them.
    fn reach(&self) -> usize {
        let axes = self.shape.iter().zip(&self.strides);
        match self.numel() {
            0 => 0,
            _ => 1 + axes.map(|(&n, &stride)| (n - 1) * stride).sum::<usize>(),
        }
    }

    /// Where the elements are; for backends.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Where the elements are, to be written by `op`; for backends.
    ///
    /// # Errors
    /// [`Error::SharedOutput`] if another tensor uses the same storage.
    pub fn storage_mut(&mut self, op: &'static str) -> Result<&mut Storage> {
        let shape = &self.shape;
        Arc::get_mut(&mut self.storage).ok_or_else(|| Error::SharedOutput {
            op,
            shape: shape.clone(),
        })
    }

    /// Whether no other tensor uses the same storage.
    pub(crate) fn is_unique(&mut self) -> bool {
        Arc::get_mut(&mut self.storage).is_some()
    }

    /// Place of the first element in the storage, in elements; for backends.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// All `f32` elements of the storage from the view's first element on, for strided reads.
    pub(crate) fn f32s_from_offset(&self) -> Result<&[f32]> {
        debug_assert_eq!(self.dtype, DType::F32, "checked by the op");
        Ok(&self.storage.host("f32s")?.f32s()[self.offset..])
    }

    /// All `bf16` elements of the storage from the view's first element on, for strided reads.
    pub(crate) fn bf16s_from_offset(&self) -> Result<&[bf16]> {
        debug_assert_eq!(self.dtype, DType::Bf16, "checked by the caller");
        let all: &[bf16] = bytemuck::cast_slice(self.storage.host("bf16s")?.bytes());
        Ok(&all[self.offset..])
    }

    /// Rows and columns of a matrix.
    ///
    /// # Errors
    /// [`Error::Rank`].
    pub fn matrix_shape(&self, op: &'static str) -> Result<[usize; 2]> {
        self.shape[..].try_into().map_err(|_| Error::Rank {
            op,
            expected: 2,
            shape: self.shape.clone(),
        })
    }

    /// An error if the elements are not `f32`.
    pub(crate) fn expect_f32(&self, op: &'static str) -> Result<()> {
        self.expect_dtype(op, DType::F32)
    }

    /// Checks the type of the elements; for backends.
    ///
    /// # Errors
    /// [`Error::DTypeMismatch`].
    pub fn expect_dtype(&self, op: &'static str, expected: DType) -> Result<()> {
        let got = self.dtype;
        if got == expected {
            return Ok(());
        }
        Err(Error::DTypeMismatch { op, expected, got })
    }

    fn expect_layout(&self, op: &'static str, expected: DType) -> Result<()> {
        self.expect_dtype(op, expected)?;
        self.expect_contiguous(op)
    }

    /// Checks that the elements lie in row-major order without gaps; for backends.
    ///
    /// # Errors
    /// [`Error::NotContiguous`].
    pub fn expect_contiguous(&self, op: &'static str) -> Result<()> {
        if self.is_contiguous() {
            return Ok(());
        }
        Err(Error::NotContiguous {
            op,
            shape: self.shape.clone(),
        })
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
