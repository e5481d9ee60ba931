//! The files of a model: their names, and how they are mapped and written.

use std::path::Path;

use half::bf16;
use llada_tensor::DType;
use memmap2::Mmap;
use safetensors::tensor::{Dtype, TensorView};

use crate::{Error, Result};

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

pub(crate) fn map_file(path: &Path) -> Result<Mmap> {
    let file = std::fs::File::open(path).map_err(Error::io("opening", path))?;
    // SAFETY: the map is read-only and lives while the weights are copied; a file that another
    // process shortens meanwhile ends this one with a bus error, as with every mapped reader.
    #[expect(unsafe_code, reason = "memory-mapped checkpoints")]
    unsafe {
        Mmap::map(&file).map_err(Error::io("opening", path))
    }
}

/// Writes a file through a synced temporary one.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    llada_files::write(path, bytes).map_err(Error::io("writing", path))
}

/// A tensor to be written.
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Little-endian values.
    pub(crate) data: Vec<u8>,
}

/// Writes a safetensors file, as [`write_file`].
pub(crate) fn write_safetensors(path: &Path, parts: &[Part]) -> Result<()> {
    let views = parts.iter().map(|part| {
        let view = TensorView::new(part.dtype, part.shape.clone(), &part.data);
        Ok((&*part.name, view?))
    });
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let bytes = views
        .collect::<std::result::Result<Vec<_>, _>>()
        .and_then(|views| safetensors::serialize(views, Some(metadata)));
    write_file(path, &bytes.map_err(Error::safetensors(path))?)
}

/// A type by its name in safetensors.
pub(crate) fn stored_dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::Bf16 => Dtype::BF16,
    }
}

/// Little-endian values of a type.
pub(crate) fn encode(values: &[f32], dtype: DType) -> Vec<u8> {
    let values = values.iter();
    match dtype {
        DType::F32 => values.flat_map(|x| x.to_le_bytes()).collect(),
        DType::Bf16 => values
            .flat_map(|&x| bf16::from_f32(x).to_le_bytes())
            .collect(),
    }
}
