//! A tensor of a checkpoint: where it is, and how its values become those of a model.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use half::bf16;
use llada_tensor::backend::PackedWeight;
use llada_tensor::quantize::{RowCodes, pack_codes};
use llada_tensor::{Device, Precision, Tensor};
use memmap2::{Mmap, UncheckedAdvice};

use crate::quantized::StoredCodes;
use crate::{Error, Result};

/// Writes the given rows of a tensor as `f32`; a vector has one value a row.
pub(crate) type Fill<'a> = Box<dyn Fn(Range<usize>, &mut [f32]) + Sync + 'a>;

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
    /// The codes that the values stand for, of a matrix that was quantised.
    pub(crate) codes: Option<StoredCodes<'a>>,
    /// The bytes, if they are mapped.
    pub(crate) range: Option<(&'a Mmap, Range<usize>)>,
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

    /// The matrix in the layout of the device.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub(crate) fn pack(
        &self,
        device: &Device,
        precision: Precision,
    ) -> Result<Arc<dyn PackedWeight>> {
        let &[n, k] = &*self.shape else {
            unreachable!("only matrices are packed, and shapes were checked")
        };
        if let Some(codes) = self.codes.filter(|codes| codes.precision == precision) {
            let fill = |rows: Range<usize>, out: RowCodes<'_>| {
                codes.read(rows.clone(), out);
                self.drop_pages(rows);
            };
            return Ok(pack_codes(device, [n, k], precision, &fill)?);
        }
        let all_finite = AtomicBool::new(true);
        let fill = |rows: Range<usize>, out: &mut [f32]| {
            if !self.fill_once(rows, out) {
                all_finite.store(false, Ordering::Relaxed);
            }
        };
        let packed = device.backend().pack([n, k], precision, &fill)?;
        self.expect_finite(all_finite.into_inner())?;
        Ok(packed)
    }

    /// Looks at all values without keeping them.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub(crate) fn check_finite(&self) -> Result<()> {
        const ROWS: usize = 256;
        let row = self.shape.iter().skip(1).product::<usize>();
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
        // Without an early end, so that it is vectorized.
        out.iter().fold(true, |all, x| all & x.is_finite())
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

    /// Bytes in the file, or in `f32` if that is not known.
    pub(crate) fn bytes(&self) -> u64 {
        let numel: usize = self.shape.iter().product();
        let in_file = self.range.as_ref().map(|(_, bytes)| bytes.len());
        in_file.unwrap_or(4 * numel) as u64
    }

    pub(crate) fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
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
