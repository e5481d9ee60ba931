//! Cases and tensors on disk.

use std::path::{Path, PathBuf};

use llada::{CpuConfig, CpuLevel, Device, LladaModel, ModelSource, Precision};
use safetensors::{SafeTensors, tensor::Dtype};
use serde_json::Value;

/// The folder of all cases.
pub(crate) fn root() -> PathBuf {
    std::env::var_os("LLADA_GOLDENS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens"),
        PathBuf::from,
    )
}

/// A recorded run: its name and its settings and results.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) json: Value,
}

impl Case {
    pub(crate) fn has(&self, key: &str) -> bool {
        self.json.get(key).is_some_and(|value| !value.is_null())
    }
    pub(crate) fn number(&self, key: &str) -> f64 {
        let value = &self.json[key];
        value
            .as_f64()
            .unwrap_or_else(|| panic!("{}: {key} is {value}", self.name))
    }
    pub(crate) fn number_or(&self, key: &str, default: f64) -> f64 {
        if self.has(key) {
            self.number(key)
        } else {
            default
        }
    }
    pub(crate) fn count(&self, key: &str) -> usize {
        self.number(key) as usize
    }
    pub(crate) fn text(&self, key: &str) -> &str {
        let value = &self.json[key];
        value
            .as_str()
            .unwrap_or_else(|| panic!("{}: {key} is {value}", self.name))
    }
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.json.get(key).and_then(Value::as_bool).unwrap_or(false)
    }
}

/// The JSON files of a folder, by name.
#[track_caller]
pub(crate) fn cases(folder: &str) -> Vec<Case> {
    let names = names(folder, "json");
    let read = |name: &String| {
        let path = root().join(folder).join(format!("{name}.json"));
        let text = std::fs::read_to_string(&path).unwrap();
        Case {
            name: format!("{folder}/{name}"),
            json: serde_json::from_str(&text).unwrap(),
        }
    };
    names.iter().map(read).collect()
}

/// Stems of the files of a folder that end in `.extension`, sorted; at least one.
#[track_caller]
pub(crate) fn names(folder: &str, extension: &str) -> Vec<String> {
    let path = root().join(folder);
    let entries = std::fs::read_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no case in {}", path.display());
    names
}

/// A nested array of token ids as rows.
pub(crate) fn rows(value: &Value) -> Vec<Vec<u32>> {
    value.as_array().unwrap().iter().map(ids).collect()
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    let values = value.as_array().unwrap().iter();
    values
        .map(|id| u32::try_from(id.as_u64().unwrap()).unwrap())
        .collect()
}

/// A safetensors file.
pub(crate) struct Tensors(Vec<u8>);

impl Tensors {
    pub(crate) fn open(path: &str) -> Self {
        let path = root().join(path);
        Self(std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.file().tensor(name).is_ok()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let file = self.file();
        file.names().iter().map(|name| (*name).to_owned()).collect()
    }

    pub(crate) fn shape(&self, name: &str) -> Vec<usize> {
        self.file().tensor(name).unwrap().shape().to_vec()
    }

    /// Values of any type, widened.
    #[track_caller]
    pub(crate) fn f64s(&self, name: &str) -> Vec<f64> {
        let file = self.file();
        let tensor = file
            .tensor(name)
            .unwrap_or_else(|_| panic!("no tensor {name}"));
        let data = tensor.data();
        match tensor.dtype() {
            Dtype::F64 => data
                .as_chunks()
                .0
                .iter()
                .map(|&b| f64::from_le_bytes(b))
                .collect(),
            Dtype::F32 => data
                .as_chunks()
                .0
                .iter()
                .map(|&b| f64::from(f32::from_le_bytes(b)))
                .collect(),
            Dtype::I64 => data
                .as_chunks()
                .0
                .iter()
                .map(|&b| i64::from_le_bytes(b) as f64)
                .collect(),
            Dtype::I32 => data
                .as_chunks()
                .0
                .iter()
                .map(|&b| f64::from(i32::from_le_bytes(b)))
                .collect(),
            Dtype::U8 => data.iter().map(|&b| f64::from(b)).collect(),
            other => panic!("{name} is {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn f32s(&self, name: &str) -> Vec<f32> {
        self.f64s(name).into_iter().map(|x| x as f32).collect()
    }

    #[track_caller]
    pub(crate) fn counts(&self, name: &str) -> Vec<usize> {
        self.f64s(name).into_iter().map(|x| x as usize).collect()
    }

    /// Rows of token ids: the last axis of `[.., L]`.
    #[track_caller]
    pub(crate) fn rows(&self, name: &str) -> Vec<Vec<u32>> {
        let length = *self.shape(name).last().unwrap();
        let ids: Vec<u32> = self.f64s(name).into_iter().map(|x| x as u32).collect();
        ids.chunks(length).map(<[u32]>::to_vec).collect()
    }
}

/// The device under test: one thread at the machine's best level, or with `LLADA_DEVICE=cuda` the
/// first CUDA device.
pub(crate) fn device() -> Device {
    match std::env::var("LLADA_DEVICE").as_deref() {
        Ok("cuda") => cuda(),
        Ok("cpu") | Err(_) => at_level(CpuLevel::best()),
        Ok(other) => panic!("LLADA_DEVICE={other}: expected cpu or cuda"),
    }
}

/// The devices under test: every level of the processor, or [`device`] if `LLADA_DEVICE` is set.
pub(crate) fn devices() -> Vec<Device> {
    match std::env::var_os("LLADA_DEVICE") {
        Some(_) => vec![device()],
        None => CpuLevel::available().into_iter().map(at_level).collect(),
    }
}

#[cfg(feature = "cuda")]
fn cuda() -> Device {
    static DEVICE: std::sync::OnceLock<Device> = std::sync::OnceLock::new();
    let config = llada::CudaConfig::from_variables(std::env::var_os);
    DEVICE
        .get_or_init(|| llada::cuda_device(0, config).unwrap())
        .clone()
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Device {
    panic!("LLADA_DEVICE=cuda: built without the feature `cuda`");
}

fn at_level(level: CpuLevel) -> Device {
    Device::cpu(CpuConfig {
        threads: 1,
        level: Some(level),
    })
    .unwrap()
}

pub(crate) fn load(model: &str, device: &Device, precision: Precision) -> LladaModel {
    let dir = root().join("models").join(model);
    let source = ModelSource::open(&dir).unwrap();
    source.trainable(device, precision).unwrap()
}

/// Largest absolute difference; NaN counts as infinite.
#[track_caller]
pub(crate) fn max_difference<T: Copy + Into<f64>>(x: &[T], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len(), "lengths");
    let difference = |(&x, &y): (&T, &f64)| {
        let difference = (x.into() - y).abs();
        if difference.is_nan() {
            f64::INFINITY
        } else {
            difference
        }
    };
    x.iter().zip(y).map(difference).fold(0.0, f64::max)
}
