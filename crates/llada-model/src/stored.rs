//! A tensor of a checkpoint: where it is, and how its values become those of a model.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use half::bf16;
use llada_tensor::backend::{BlockFormat, GroupCodes, PackedWeight};
use llada_tensor::ops::matmul::pack;
use llada_tensor::ops::moe::pack_expert_codes;
use llada_tensor::quantize::{RowCodes, pack_codes};
use llada_tensor::{DType, Device, Precision, Tensor};
use memmap2::{Mmap, UncheckedAdvice};

use crate::family::places::n_rows;
use crate::{Error, Result};

/// Writes the given rows of a tensor as `f32`; a vector has one value a row, and a stack of matrices
/// the rows of all of them.
pub(crate) type Fill<'a> = Box<dyn Fn(Range<usize>, &mut [f32]) + Send + Sync + 'a>;

/// Writes the codes of the given rows.
pub(crate) type ReadCodes<'a> = Box<dyn Fn(Range<usize>, RowCodes<'_>) + Send + Sync + 'a>;

/// Writes the bytes of the given rows, as they are in the file.
pub(crate) type ReadBlocks<'a> = Box<dyn Fn(Range<usize>, &mut [u8]) + Send + Sync + 'a>;

/// A tensor that has not been read.
pub(crate) struct Stored<'a> {
    /// Name in the file, for messages.
    pub(crate) name: String,
    /// The file, for messages.
    pub(crate) path: &'a Path,
    pub(crate) shape: Vec<usize>,
    /// Whether all values are bf16.
    pub(crate) is_bf16: bool,
    pub(crate) fill: Fill<'a>,
    /// The codes that the values stand for, of a matrix that was quantised, and their precision.
    pub(crate) codes: Option<(Precision, ReadCodes<'a>)>,
    /// The blocks of its rows, of a matrix whose rows are blocks of a file.
    pub(crate) blocks: Option<(BlockFormat, ReadBlocks<'a>)>,
    /// The bytes, if they are mapped.
    pub(crate) range: Option<(&'a Mmap, Range<usize>)>,
}

impl<'a> Stored<'a> {
    /// Some rows of a matrix, or some values of a vector.
    pub(crate) fn narrow(self, rows: Range<usize>) -> Self {
        let (start, of) = (rows.start, self.rows());
        let moved = move |at: &Range<usize>| at.start + start..at.end + start;
        let fill = self.fill;
        let codes = self.codes.map(|(precision, read)| {
            let moved: ReadCodes<'a> = Box::new(move |at, out| read(moved(&at), out));
            (precision, moved)
        });
        let blocks = self.blocks.map(|(format, read)| {
            let moved: ReadBlocks<'a> = Box::new(move |at, out| read(moved(&at), out));
            (format, moved)
        });
        let range = self.range.map(|(map, bytes)| {
            let place = |row: usize| bytes.start + bytes.len() * row / of.max(1);
            (map, place(rows.start)..place(rows.end))
        });
        let mut shape = self.shape;
        shape[0] = rows.len();
        Self {
            shape,
            fill: Box::new(move |at, out| fill(moved(&at), out)),
            codes,
            blocks,
            range,
            ..self
        }
    }

    /// Matrices of one shape as one tensor, one behind the other; at least one.
    pub(crate) fn stack(parts: Vec<Self>) -> Self {
        let (first, each) = (&parts[0], parts[0].rows());
        let shape = [&[parts.len()][..], &first.shape].concat();
        let (name, path) = (first.name.clone(), first.path);
        let is_bf16 = parts.iter().all(|part| part.is_bf16);
        let precision = first.codes.as_ref().map(|(precision, _)| *precision);
        let parts = Arc::new(parts);
        let codes = precision.map(|precision| {
            let parts = Arc::clone(&parts);
            let read: ReadCodes<'a> = Box::new(move |rows, out| {
                let n = rows.len().max(1);
                let (width, groups) = (out.codes.len() / n, out.multipliers.len() / n);
                for row in rows.clone() {
                    let (part, at) = (&parts[row / each], row % each);
                    let to = row - rows.start;
                    if let Some((_, read)) = &part.codes {
                        let out = RowCodes {
                            codes: &mut out.codes[to * width..][..width],
                            multipliers: &mut out.multipliers[to * groups..][..groups],
                            scales: &mut out.scales[to..=to],
                        };
                        read(at..at + 1, out);
                    }
                    if at + 1 == each {
                        part.drop_pages(0..each);
                    }
                }
            });
            (precision, read)
        });
        let fill: Fill<'a> = Box::new(move |rows, out| {
            let width = out.len() / rows.len().max(1);
            let mut row = rows.start;
            while row < rows.end {
                let (part, at) = (&parts[row / each], row % each);
                let n = (each - at).min(rows.end - row);
                let out = &mut out[(row - rows.start) * width..][..n * width];
                (part.fill)(at..at + n, out);
                part.drop_pages(at..at + n);
                row += n;
            }
        });
        Self {
            name,
            path,
            shape,
            is_bf16,
            fill,
            codes,
            blocks: None,
            range: None,
        }
    }
}

/// The weight of a router, packed for products in `f32`: it decides in `f32`, as in the references,
/// whatever the precision of other products. Its values are those of a checkpoint of the precision.
pub(crate) fn pack_router(
    weight: &Tensor,
    precision: Precision,
) -> llada_tensor::Result<Arc<dyn PackedWeight>> {
    match precision {
        Precision::Bf16 => pack(
            &weight.to_dtype(DType::Bf16)?.to_dtype(DType::F32)?,
            Precision::F32,
        ),
        _ => pack(weight, Precision::F32),
    }
}

/// Without an early end, so that it is vectorized.
fn are_finite(values: &[f32]) -> bool {
    values.iter().fold(true, |all, x| all & x.is_finite())
}

/// Whether the values of all rows of `k` values are finite.
fn blocks_are_finite<'a>(
    format: &BlockFormat,
    mut rows: impl Iterator<Item = &'a [u8]>,
    k: usize,
) -> bool {
    /// No code is larger.
    const LARGEST: f32 = 255.0;
    let Some(integers) = format.integers else {
        let mut values = vec![0.0; k];
        return rows.all(|row| {
            format.values(row, &mut values);
            are_finite(&values)
        });
    };
    let groups = k / integers.group;
    let (mut codes, mut values) = (vec![0; k], Vec::new());
    let (mut scales, mut minimums) = (vec![0.0; groups], vec![0.0; groups]);
    rows.all(|row| {
        let mut out = GroupCodes {
            codes: &mut codes,
            scales: &mut scales,
            minimums: &mut minimums,
        };
        (integers.read)(row, &mut out);
        let groups = scales.iter().zip(&minimums);
        let bounds = groups.map(|(scale, minimum)| scale.abs() * LARGEST + minimum.abs());
        if bounds.fold(true, |all, x| all & x.is_finite()) {
            return true;
        }
        values.resize(k, 0.0);
        format.values(row, &mut values);
        are_finite(&values)
    })
}

/// The words of `N` bytes.
pub(crate) fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    let word = |word: &[u8]| word.try_into().expect("chunks of N bytes");
    bytes.chunks_exact(N).map(word)
}

impl Stored<'_> {
    /// All values as `f32`.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub(crate) fn read(&self, device: &Device) -> Result<Tensor> {
        let mut values = vec![0.0; self.shape.iter().product()];
        self.expect_finite(self.fill_once(0..self.rows(), &mut values))?;
        Ok(Tensor::from_f32(device, &self.shape, &values)?)
    }

    /// All values as a checkpoint of this precision holds them: a matrix as bf16 where they are, or
    /// where products are not of f32; a vector in f32, rounded first for products of bf16.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub(crate) fn read_in(&self, device: &Device, precision: Precision) -> Result<Tensor> {
        /// Rows that are wide at once.
        const ROWS: usize = 256;
        if self.shape.len() < 2 {
            let values = self.read(device)?;
            if precision != Precision::Bf16 || self.is_bf16 {
                return Ok(values);
            }
            let rounded = |x: f32| bf16::from_f32(x).to_f32();
            let values: Vec<f32> = values.to_vec_f32()?.into_iter().map(rounded).collect();
            return Ok(Tensor::from_f32(device, &self.shape, &values)?);
        }
        if precision == Precision::F32 && !self.is_bf16 {
            return self.read(device);
        }
        let (n, numel) = (self.rows(), self.shape.iter().product());
        let row = numel / n.max(1);
        let mut values: Vec<bf16> = Vec::with_capacity(numel);
        let mut wide = vec![0.0; ROWS * row];
        for start in (0..n).step_by(ROWS) {
            let rows = start..(start + ROWS).min(n);
            let wide = &mut wide[..rows.len() * row];
            self.expect_finite(self.fill_once(rows, wide))?;
            values.extend(wide.iter().map(|&x| bf16::from_f32(x)));
        }
        Ok(Tensor::from_bf16(device, &self.shape, &values)?)
    }

    /// The weight of a router in the layout of the device: as a checkpoint of this precision holds it,
    /// for products in `f32`.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub(crate) fn pack_router(
        &self,
        device: &Device,
        precision: Precision,
    ) -> Result<Arc<dyn PackedWeight>> {
        let mut values = vec![0.0; self.shape.iter().product()];
        self.expect_finite(self.fill_once(0..self.rows(), &mut values))?;
        let values = Tensor::from_f32(device, &self.shape, &values)?;
        Ok(pack_router(&values, precision)?)
    }

    /// The matrix, or the stack of matrices, in the layout of the device.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub(crate) fn pack(
        &self,
        device: &Device,
        precision: Precision,
    ) -> Result<Arc<dyn PackedWeight>> {
        if let Some((_, read)) = self.codes.as_ref().filter(|(of, _)| *of == precision) {
            let fill = |rows: Range<usize>, out: RowCodes<'_>| {
                read(rows.clone(), out);
                self.drop_pages(rows);
            };
            return Ok(match *self.shape {
                [n, k] => pack_codes(device, [n, k], precision, &fill)?,
                [e, n, k] => pack_expert_codes(device, [e, n, k], precision, &fill)?,
                _ => unreachable!("only matrices are packed, and shapes were checked"),
            });
        }
        let all_finite = AtomicBool::new(true);
        if let Some((format, read)) = &self.blocks {
            let shape = match *self.shape {
                [n, k] => [1, n, k],
                [e, n, k] => [e, n, k],
                _ => unreachable!("only matrices are packed, and shapes were checked"),
            };
            let fill = |rows: Range<usize>, out: &mut [u8]| {
                read(rows.clone(), out);
                let row_bytes = out.len() / rows.len().max(1);
                if !blocks_are_finite(format, out.chunks_exact(row_bytes), shape[2]) {
                    all_finite.store(false, Ordering::Relaxed);
                }
                self.drop_pages(rows);
            };
            let packed = (device.backend()).pack_blocks(shape, precision, *format, &fill);
            if let Some(packed) = packed {
                self.expect_finite(all_finite.into_inner())?;
                return Ok(packed);
            }
        }
        let fill = |rows: Range<usize>, out: &mut [f32]| {
            if !self.fill_once(rows, out) {
                all_finite.store(false, Ordering::Relaxed);
            }
        };
        let packed = match *self.shape {
            [n, k] => device.backend().pack([n, k], precision, &fill)?,
            [e, n, k] => device.backend().pack_experts([e, n, k], precision, &fill)?,
            _ => unreachable!("only matrices are packed, and shapes were checked"),
        };
        self.expect_finite(all_finite.into_inner())?;
        Ok(packed)
    }

    /// Looks at all values without keeping them.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub(crate) fn check_finite(&self) -> Result<()> {
        const ROWS: usize = 256;
        let row = self.shape.iter().product::<usize>() / self.rows().max(1);
        let mut values = vec![0.0; ROWS * row];
        for start in (0..self.rows()).step_by(ROWS) {
            let rows = start..(start + ROWS).min(self.rows());
            let values = &mut values[..rows.len() * row];
            self.expect_finite(self.fill_once(rows, values))?;
        }
        Ok(())
    }

    /// Values of some rows, and whether all are finite.
    pub(crate) fn fill_once(&self, rows: Range<usize>, out: &mut [f32]) -> bool {
        (self.fill)(rows.clone(), out);
        self.drop_pages(rows);
        are_finite(out)
    }

    /// Lets the system drop the pages of rows that were read: they would count as memory of this
    /// process, and a large file does not fit beside its weights.
    fn drop_pages(&self, rows: Range<usize>) {
        /// More than the system maps around a page that is read.
        const AROUND: usize = 1 << 18;
        if let Some((map, bytes)) = &self.range {
            let place = |row: usize| bytes.start + bytes.len() * row / self.rows().max(1);
            // Pages that were dropped come back when one beside them is read.
            let start = place(rows.start).saturating_sub(AROUND).max(bytes.start);
            let end = place(rows.end);
            // SAFETY: the map is read-only and of a file; a dropped page is read again when touched.
            #[expect(unsafe_code, reason = "advice about a mapped file")]
            let advised = unsafe {
                map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start)
            };
            // Without the advice there is only more memory in use.
            let _ = advised;
        }
    }

    /// Bytes in the file, or in `f32` if that is not known, as of a stack.
    pub(crate) fn bytes(&self) -> u64 {
        let numel: usize = self.shape.iter().product();
        let in_file = self.range.as_ref().map(|(_, bytes)| bytes.len());
        in_file.unwrap_or(4 * numel) as u64
    }

    pub(crate) fn rows(&self) -> usize {
        n_rows(&self.shape)
    }

    pub(crate) fn expect_finite(&self, is_finite: bool) -> Result<()> {
        if is_finite {
            return Ok(());
        }
        Err(Error::NotFinite {
            name: self.name.clone(),
            path: self.path.to_owned(),
        })
    }
}
