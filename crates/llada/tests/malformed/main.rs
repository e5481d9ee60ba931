//! Damaged checkpoints: each is refused with an error that names the file and the tensor or
//! field, without a panic, and without an allocation that is larger than its files.
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use llada::{CpuConfig, Device, ModelSource, Precision};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Remembers the largest allocation of any thread.
struct Largest;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator that watches the system's")]
// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Largest {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Largest = Largest;

const WTE: &str = "model.transformer.wte.weight";
const Q_PROJ: &str = "model.transformer.blocks.1.q_proj.weight";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const SHARD: &str = "model-00002-of-00003.safetensors";

/// A copy of a good checkpoint that may be changed.
struct Copy(TempDir);

impl Copy {
    fn of(name: &str) -> Self {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/models");
        let dir = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(from.join(name)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
        Self(dir)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn change(&self, file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> &Self {
        let path = self.path(file);
        fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
        self
    }

    /// Changes a JSON file.
    fn json(&self, file: &str, change: impl FnOnce(&mut Value)) -> &Self {
        self.change(file, |bytes| {
            let mut value = serde_json::from_slice(&bytes).unwrap();
            change(&mut value);
            serde_json::to_vec(&value).unwrap()
        })
    }

    /// Changes the header of a safetensors file and leaves its data.
    fn header(&self, file: &str, change: impl FnOnce(&mut Value)) -> &Self {
        self.change(file, |bytes| {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let mut value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
            change(&mut value);
            let header = serde_json::to_vec(&value).unwrap();
            let length = (header.len() as u64).to_le_bytes();
            [&length[..], &header, &bytes[8 + length_of(&bytes)..]].concat()
        })
    }

    /// Where the data of a tensor begin.
    fn start(&self, file: &str, tensor: &str) -> usize {
        let bytes = fs::read(self.path(file)).unwrap();
        let length = length_of(&bytes);
        let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        8 + length + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize
    }

    /// Loading fails, for inference and for training, and the message holds the parts.
    #[track_caller]
    fn fails(&self, parts: &[&str]) {
        let files = fs::read_dir(self.0.path()).unwrap();
        let size = |entry: fs::DirEntry| entry.metadata().unwrap().len() as usize;
        let limit = files
            .map(|entry| size(entry.unwrap()))
            .sum::<usize>()
            .max(1 << 16);
        let device = Device::cpu(CpuConfig {
            threads: 1,
            level: None,
        })
        .unwrap();
        LARGEST.store(0, Ordering::Relaxed);
        let error = llada::load(self.0.path(), &device, Precision::F32).unwrap_err();
        let message = format!("{:#}", anyhow::Error::new(error));
        let largest = LARGEST.load(Ordering::Relaxed);
        assert!(largest <= limit, "{message}: {largest} bytes at once");
        for part in parts {
            assert!(message.contains(part), "no {part:?} in {message}");
        }
    }
}

fn length_of(bytes: &[u8]) -> usize {
    u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
}

/// One after the other: the largest allocation is that of all threads.
#[test]
fn damaged_checkpoints_are_refused() {
    files_that_are_not_whole();
    headers();
    values();
    indexes();
    configurations();
    tokenizers();
}

fn one() -> Copy {
    Copy::of("mha-f32")
}

fn sharded() -> Copy {
    Copy::of("gqa-qkvbias-bf16")
}

fn files_that_are_not_whole() {
    one()
        .change(SINGLE, |x| x[..x.len() - 1000].to_vec())
        .fails(&[SINGLE, "truncated"]);
    one().change(SINGLE, |_| Vec::new()).fails(&[SINGLE]);
    one().change(SINGLE, |x| x[..100].to_vec()).fails(&[SINGLE]);
    sharded()
        .change(SHARD, |x| x[..x.len() / 2].to_vec())
        .fails(&[SHARD]);
    let missing = sharded();
    fs::remove_file(missing.path(SHARD)).unwrap();
    missing.fails(&[SHARD]);
    for (file, part) in [
        ("config.json", "config.json"),
        (SINGLE, SINGLE),
        ("tokenizer.json", "tokenizer.json"),
    ] {
        let copy = one();
        fs::remove_file(copy.path(file)).unwrap();
        copy.fails(&[part]);
    }
}

fn headers() {
    let length = |n: u64| move |x: Vec<u8>| [&n.to_le_bytes()[..], &x[8..]].concat();
    one().change(SINGLE, length(u64::MAX)).fails(&[SINGLE]);
    one().change(SINGLE, length(1 << 40)).fails(&[SINGLE]);
    one().change(SINGLE, length(17)).fails(&[SINGLE]);
    one()
        .change(SINGLE, |mut x| {
            x[9] = 0xff;
            x
        })
        .fails(&[SINGLE]);
    let offsets =
        |from: u64, to: u64| move |x: &mut Value| x[WTE]["data_offsets"] = json!([from, to]);
    one().header(SINGLE, offsets(4, 131_076)).fails(&[SINGLE]);
    one().header(SINGLE, offsets(0, 1 << 50)).fails(&[SINGLE]);
    one().header(SINGLE, offsets(8, 0)).fails(&[SINGLE]);
    one()
        .header(SINGLE, |x| {
            x[WTE]["shape"] = json!([1_u64 << 40, 1_u64 << 40]);
        })
        .fails(&[SINGLE]);
    one()
        .header(SINGLE, |x| x[WTE]["shape"] = json!([64, 512]))
        .fails(&[SINGLE, WTE, "[64, 512]"]);
    one()
        .header(SINGLE, |x| x[WTE]["dtype"] = json!("I32"))
        .fails(&[SINGLE, WTE, "I32"]);
    one()
        .header(SINGLE, |x| x[WTE]["dtype"] = json!("F128"))
        .fails(&[SINGLE]);
    let renamed = |from: &'static str, to: &'static str| {
        move |x: &mut Value| {
            let entry = x.as_object_mut().unwrap().remove(from).unwrap();
            x[to] = entry;
        }
    };
    one()
        .header(SINGLE, renamed(Q_PROJ, "q"))
        .fails(&[SINGLE, Q_PROJ, "missing"]);
    one()
        .header(SINGLE, |x| {
            x["model.extra.weight"] = json!({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]});
        })
        .fails(&[SINGLE, "model.extra.weight"]);
}

fn values() {
    let start = one().start(SINGLE, Q_PROJ);
    for bad in [f32::NAN, f32::INFINITY] {
        let write = |mut x: Vec<u8>| {
            x[start..start + 4].copy_from_slice(&bad.to_le_bytes());
            x
        };
        one()
            .change(SINGLE, write)
            .fails(&[SINGLE, Q_PROJ, "not finite"]);
    }
}

fn indexes() {
    let maps = |to: &'static str| move |x: &mut Value| x["weight_map"][WTE] = json!(to);
    sharded().json(INDEX, maps(INDEX)).fails(&[INDEX, "shard"]);
    sharded()
        .json(INDEX, maps("../model.safetensors"))
        .fails(&[INDEX, "../model"]);
    sharded()
        .json(INDEX, maps("model-00004-of-00003.safetensors"))
        .fails(&["model-00004"]);
    sharded()
        .json(INDEX, |x| x["weight_map"] = json!(3))
        .fails(&[INDEX]);
    sharded()
        .json(INDEX, |x| {
            x.as_object_mut().unwrap().remove("weight_map");
        })
        .fails(&[INDEX]);
    sharded()
        .json(INDEX, |x| x["weight_map"] = json!({WTE: SHARD}))
        .fails(&["model.transformer", "missing"]);
    let twice = sharded();
    fs::copy(twice.path(SHARD), twice.path("model-again.safetensors")).unwrap();
    twice
        .json(INDEX, maps("model-again.safetensors"))
        .fails(&["model-again", SHARD, "is in"]);
}

fn configurations() {
    one()
        .change("config.json", |_| b"{\"d_model\":".to_vec())
        .fails(&["config.json"]);
    let field = |name: &'static str, value: Value| {
        let copy = one();
        copy.json("config.json", |x| x[name] = value);
        copy
    };
    field("n_layers", json!(1 << 28)).fails(&["config.json", "n_layers"]);
    field("n_layers", json!(4)).fails(&["blocks.3.", "missing"]);
    field("max_sequence_length", json!(u64::MAX)).fails(&["config.json", "max_sequence_length"]);
    field("vocab_size", json!(1 << 27)).fails(&["config.json", "embedding_size"]);
    field("d_model", json!(0)).fails(&["config.json", "d_model"]);
    field("n_heads", json!(-1)).fails(&["config.json"]);
    field("mask_token_id", json!(1 << 20)).fails(&["config.json", "mask_token_id"]);
    field("activation_type", json!("gelu")).fails(&["config.json", "activation_type", "gelu"]);
    field("architectures", json!(["LlamaForCausalLM"])).fails(&["config.json", "architectures"]);
}

fn tokenizers() {
    one()
        .change("tokenizer.json", |_| vec![0xff, 0xfe, 0])
        .fails(&["tokenizer.json"]);
    one()
        .change("tokenizer.json", |x| x[..x.len() / 2].to_vec())
        .fails(&["tokenizer.json"]);
    one()
        .change("tokenizer.json", |_| b"{}".to_vec())
        .fails(&["tokenizer.json"]);
}

/// A context of any length costs nothing before it is used.
#[test]
fn a_long_context_allocates_nothing() {
    let copy = Copy::of("tied-bias-mqa-f32");
    copy.json("config.json", |x| x["max_sequence_length"] = json!(1 << 28));
    let device = Device::cpu(CpuConfig::default()).unwrap();
    let model = ModelSource::open(copy.0.path()).unwrap();
    let model = model.frozen(&device, Precision::F32).unwrap();
    assert!(model.bytes() < 1 << 20);
}
