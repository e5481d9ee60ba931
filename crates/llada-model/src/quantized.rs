//! Checkpoints of integers: a matrix `NAME` holds codes, see [`llada_tensor::quantize`], and beside
//! it lie `NAME_scale` `[N]` (f32) and, for 4 bits, `NAME_multiplier` `[N, K' / 32]` (I8).
//!
//! Codes are `[N, K']` I8, or `[N, K' / 2]` U8 with two codes a byte, plus 8, the lower bits first;
//! `K'` is `K` padded to whole blocks of the rotation. `config.json` says so in
//! `quantization_config`.

use std::ops::Range;
use std::path::Path;

use llada_tensor::Precision;
use llada_tensor::backend::RowCodes;
use llada_tensor::quantize::{INT4_GROUP, ROTATION, dequantize_row, groups, padded};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// The key of `config.json`.
pub(crate) const CONFIG_KEY: &str = "quantization_config";
/// The method's name in it.
const METHOD: &str = "llada";

/// Ends of the names of a matrix' scales and multipliers.
pub(crate) const SCALE: &str = "_scale";
pub(crate) const MULTIPLIER: &str = "_multiplier";

/// What `config.json` of a checkpoint of integers holds.
pub(crate) fn to_config(precision: Precision) -> Value {
    let bits = if precision == Precision::Int4 { 4 } else { 8 };
    let mut fields = json!({ "quant_method": METHOD, "bits": bits, "rotation": ROTATION });
    if precision == Precision::Int4 {
        fields["group_size"] = INT4_GROUP.into();
    }
    fields
}

/// The precision of a checkpoint of integers.
///
/// # Errors
/// If the weights were quantised in another way.
pub(crate) fn of_config(other: &Map<String, Value>) -> Result<Option<Precision>> {
    let Some(fields) = other.get(CONFIG_KEY).filter(|x| !x.is_null()) else {
        return Ok(None);
    };
    let mut known = [Precision::Int8, Precision::Int4].into_iter();
    let found = known.find(|&precision| *fields == to_config(precision));
    let expected = "what `llada convert` writes";
    let error = || Error::unsupported(CONFIG_KEY, fields, expected);
    found.map(Some).ok_or_else(error)
}

/// Sets or removes the field of the configuration.
pub(crate) fn set_config(other: &mut Map<String, Value>, precision: Precision) {
    other.remove(CONFIG_KEY);
    if precision.is_integer() {
        other.insert(CONFIG_KEY.to_owned(), to_config(precision));
    }
}

/// The codes of a matrix in a file.
#[derive(Clone, Copy)]
pub(crate) struct StoredCodes<'a> {
    pub(crate) precision: Precision,
    k: usize,
    codes: &'a [u8],
    multipliers: &'a [u8],
    scales: &'a [u8],
}

impl<'a> StoredCodes<'a> {
    /// The codes of a matrix `shape`, checked; `part` gives the tensor whose name has an end.
    ///
    /// # Errors
    /// If a part is missing, of another type or shape, or holds what no quantiser writes.
    pub(crate) fn new(
        precision: Precision,
        (name, path): (&str, &Path),
        shape: [usize; 2],
        mut part: impl FnMut(&str) -> Option<TensorView<'a>>,
    ) -> Result<Self> {
        let [n, k] = shape;
        let mut data = |end: &str, dtype: Dtype, expected: Vec<usize>| {
            let (name, path) = (format!("{name}{end}"), path.to_owned());
            let Some(view) = part(end) else {
                return Err(Error::MissingTensor {
                    name,
                    path,
                    hint: String::new(),
                });
            };
            if view.dtype() != dtype {
                let dtype = format!("{:?}", view.dtype());
                return Err(Error::WrongDtype { name, path, dtype });
            }
            if view.shape() != expected {
                let got = view.shape().to_vec();
                return Err(Error::WrongShape {
                    name,
                    path,
                    expected,
                    got,
                });
            }
            Ok(view.data())
        };
        let is_int4 = precision == Precision::Int4;
        let codes = match is_int4 {
            true => data("", Dtype::U8, vec![n, padded(k) / 2])?,
            false => data("", Dtype::I8, vec![n, padded(k)])?,
        };
        let multipliers = match is_int4 {
            true => data(MULTIPLIER, Dtype::I8, vec![n, groups(precision, k)])?,
            false => &[],
        };
        let scales = data(SCALE, Dtype::F32, vec![n])?;
        let stored = Self {
            precision,
            k,
            codes,
            multipliers,
            scales,
        };
        let is_wrong = |m: &u8| m.cast_signed().unsigned_abs() > 15;
        if multipliers.iter().any(is_wrong) || (0..n).any(|row| !stored.scale(row).is_finite()) {
            let (name, path) = (name.to_owned(), path.to_owned());
            return Err(Error::BadCodes { name, path });
        }
        Ok(stored)
    }

    fn scale(&self, row: usize) -> f32 {
        let bytes = self.scales[4 * row..].first_chunk();
        f32::from_le_bytes(*bytes.expect("a scale for each row"))
    }

    /// The codes of some rows.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "outputs come by mutable reference inside"
    )]
    pub(crate) fn read(&self, rows: Range<usize>, out: RowCodes<'_>) {
        let (width, groups) = (padded(self.k), groups(self.precision, self.k));
        if self.precision == Precision::Int4 {
            let bytes = &self.codes[rows.start * width / 2..rows.end * width / 2];
            for (pair, byte) in out.codes.chunks_exact_mut(2).zip(bytes) {
                pair[0] = (byte & 15).cast_signed() - 8;
                pair[1] = (byte >> 4).cast_signed() - 8;
            }
            let multipliers = &self.multipliers[rows.start * groups..rows.end * groups];
            for (out, m) in out.multipliers.iter_mut().zip(multipliers) {
                *out = m.cast_signed();
            }
        } else {
            let bytes = &self.codes[rows.start * width..rows.end * width];
            for (out, byte) in out.codes.iter_mut().zip(bytes) {
                *out = byte.cast_signed();
            }
        }
        for (scale, row) in out.scales.iter_mut().zip(rows) {
            *scale = self.scale(row);
        }
    }

    /// The values that the codes of some rows stand for.
    pub(crate) fn values(&self, rows: Range<usize>, out: &mut [f32]) {
        let (mut codes, mut scales) = (vec![0; padded(self.k)], [0.0]);
        let mut multipliers = vec![0; groups(self.precision, self.k)];
        for (row, out) in rows.zip(out.chunks_exact_mut(self.k)) {
            let into = RowCodes {
                codes: &mut codes,
                multipliers: &mut multipliers,
                scales: &mut scales,
            };
            self.read(row..row + 1, into);
            dequantize_row(&codes, &multipliers, scales[0], out);
        }
    }
}

/// Two codes a byte.
pub(crate) fn pack_nibbles(codes: &[i8]) -> Vec<u8> {
    let nibble = |code: i8| (code + 8).cast_unsigned();
    let pairs = codes.chunks_exact(2);
    pairs.map(|x| nibble(x[0]) | nibble(x[1]) << 4).collect()
}
