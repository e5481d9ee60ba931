//! Files with errors: each is refused with a message that names the file and the cause.

use std::fs;

use llada::model::Error;
use llada::{Gguf, LoadError, ModelSource, Precision};
use proptest::prelude::*;

use crate::{device, file};

/// Loads changed bytes as a file.
fn load(bytes: &[u8]) -> Result<llada::Llada, LoadError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("changed.gguf");
    fs::write(&path, bytes).unwrap();
    llada::load(&path, &device(), Precision::F32)
}

fn good() -> Vec<u8> {
    fs::read(file("float-f32.gguf")).unwrap()
}

/// Where the bytes of a text that is a key or a name begin, with its length before it.
fn find(bytes: &[u8], name: &str) -> usize {
    let counted = [&(name.len() as u64).to_le_bytes(), name.as_bytes()].concat();
    let mut windows = bytes.windows(counted.len());
    windows.position(|window| window == counted).unwrap() + 8
}

/// Where the type of a key's value stands, or the number of dimensions of a tensor.
fn after(bytes: &[u8], name: &str) -> usize {
    find(bytes, name) + name.len()
}

#[track_caller]
fn fails(bytes: &[u8], parts: &[&str]) {
    let error = load(bytes).unwrap_err();
    let message = format!("{:#}", anyhow::Error::new(error));
    for part in ["changed.gguf"].iter().chain(parts) {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
}

/// A change of the good file at a place after a key or name.
#[track_caller]
fn changed(name: &str, skip: usize, new: &[u8], parts: &[&str]) {
    let mut bytes = good();
    let at = after(&bytes, name) + skip;
    bytes[at..at + new.len()].copy_from_slice(new);
    fails(&bytes, &[&[name], parts].concat());
}

/// Another name of the same length.
fn renamed(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = good();
    let at = find(&bytes, from);
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    bytes
}

fn u32s(value: u32) -> [u8; 4] {
    value.to_le_bytes()
}
fn u64s(value: u64) -> [u8; 8] {
    value.to_le_bytes()
}

#[test]
fn what_is_no_gguf() {
    fails(b"", &["header", "truncated"]);
    fails(b"{}", &["header", "truncated"]);
    fails(b"PX\x03\x04 something else", &["header", "GGUF"]);
    fails(
        b"PK\x03\x04 something else",
        &["a zip archive", "safetensors"],
    );
    let mut version = good();
    version[4..8].copy_from_slice(&u32s(1));
    fails(&version, &["version 1", "2 or 3"]);
    version[4..8].copy_from_slice(&3_u32.to_be_bytes());
    fails(&version, &["big-endian"]);
    version[4..8].copy_from_slice(&u32s(2));
    assert!(load(&version).is_ok());
    let missing = llada::load(&file("none.gguf"), &device(), Precision::F32).unwrap_err();
    assert!(missing.to_string().contains("none.gguf"), "{missing}");
}

#[test]
fn counts_and_lengths_beyond_the_file() {
    for huge in [u64::MAX, 1 << 40, 200] {
        let mut bytes = good();
        bytes[8..16].copy_from_slice(&u64s(huge));
        fails(&bytes, &["tensor"]);
        bytes[8..24].copy_from_slice(&[u64s(1), u64s(huge)].concat());
        fails(&bytes, &["key"]);
        let key = "tokenizer.ggml.tokens";
        changed(key, 8, &u64s(huge << 20), &["left"]);
        changed(key, 16, &u64s(huge << 20), &["left"]);
        let name = "blk.0.attn_q.weight";
        changed(name, 4, &u64s(huge), &[]);
    }
    changed(
        "llada.block_count",
        4,
        &u32s(1 << 28),
        &["268435456 blocks"],
    );
    changed("llada.context_length", 4, &u32s(1 << 28), &["2^20"]);
    changed("blk.0.attn_q.weight", 0, &u32s(9), &["9 dimensions"]);
}

#[test]
fn keys_that_do_not_fit() {
    let key = "tokenizer.ggml.mask_token_id";
    fails(
        &renamed(key, "tokenizer.ggml.mask_token_xx"),
        &[key, "missing"],
    );
    let key = "tokenizer.ggml.pre";
    fails(&renamed(key, "tokenizer.ggml.xxx"), &[key, "missing"]);
    changed("llada.embedding_length", 0, &u32s(6), &["number"]);
    changed("llada.embedding_length", 4, &u32s(13), &["13", "multiple"]);
    changed("llada.attention.head_count", 4, &u32s(0), &["0"]);
    changed("llada.attention.causal", 4, &[1], &["true", "false"]);
    changed("diffusion.shift_logits", 4, &[1], &["true", "false"]);
    changed("llada.rope.dimension_count", 4, &u32s(2), &["2", "4"]);
    changed("llada.rope.freq_base", 4, &f32::NAN.to_le_bytes(), &["NaN"]);
    changed("general.architecture", 12, b"llama", &["llama", "llada"]);
    changed("general.architecture", 12, b"ll\xffda", &["UTF-8"]);
    changed("tokenizer.ggml.tokens", 24, b"\xff", &["UTF-8"]);
    changed("tokenizer.ggml.model", 12, b"bert", &["bert", "gpt2"]);
    changed("tokenizer.ggml.pre", 12, b"other-bpe", &["other-bpe"]);
    changed("tokenizer.ggml.merges", 24, b"xxxx", &["xxxx"]);
    changed("tokenizer.ggml.token_type", 4, &u32s(9), &["type 9"]);
    changed("tokenizer.ggml.token_type", 0, &u32s(99), &["type 99"]);
    changed("tokenizer.ggml.eos_token_id", 4, &u32s(480), &["480"]);
    let twice = renamed("llada.vocab_size", "general.alignmen");
    let twice = twice_alignment(twice);
    fails(&twice, &["general.alignmen", "twice"]);
    let split = renamed("llada.vocab_size", "general.alignmen");
    assert!(load(&split).is_ok());
}

/// Another key gets the name that one already has.
fn twice_alignment(mut bytes: Vec<u8>) -> Vec<u8> {
    let at = find(&bytes, "llada.block_count");
    bytes[at - 8..at].copy_from_slice(&u64s(16));
    bytes[at..at + 16].copy_from_slice(b"general.alignmen");
    // The value's type and four bytes follow, one byte earlier than before.
    bytes.remove(at + 16);
    bytes
}

#[test]
fn tensors_that_do_not_fit() {
    let name = "blk.1.attn_v.weight";
    fails(&renamed(name, "blk.1.attn_x.weight"), &[name, "missing"]);
    let mut with_more = good();
    let at = after(&with_more, "llada.block_count") + 4;
    with_more[at..at + 4].copy_from_slice(&u32s(1));
    fails(&with_more, &["blk.1.", "the tensors of the model only"]);
    fails(
        &renamed(name, "blk.0.attn_v.weight"),
        &["blk.0.attn_v.weight", "twice"],
    );
    // Two dimensions, a type and an offset follow the name.
    changed(name, 4, &u64s(13), &["where blk.1.attn_v.weight ends"]);
    changed(
        "blk.1.ffn_norm.weight",
        4,
        &u64s(13),
        &["shape [13]", "[12]"],
    );
    changed(name, 20, &u32s(9), &["type Q8_1", "Q5_K, Q6_K, IQ2_XXS"]);
    changed(name, 20, &u32s(42), &["type 42,", "Q6_K"]);
    changed(name, 20, &u32s(10), &["Q2_K", "blocks of 256"]);
    changed(name, 20, &u32s(8), &["Q8_0", "blocks of 32"]);
    changed(name, 24, &u64s(0), &["offset 0"]);
    changed(name, 24, &u64s(u64::MAX - 31), &["offset"]);
    changed(name, 24, &u64s(1), &["offset 1,"]);
    let good = good();
    for end in [good.len() - 40, good.len() / 2] {
        fails(&good[..end], &["tensor", "truncated"]);
    }
    for end in [good.len() / 20, 100, 20, 8, 3] {
        fails(&good[..end], &["truncated"]);
    }
    let mut nan = good.clone();
    let at = nan.len() - 64;
    nan[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fails(&nan, &["tensor output.weight", "not finite"]);
    // A scale that is infinite, in an embedding that is read when its tokens are asked for, and in a
    // matrix that stays in its blocks.
    let mixed = fs::read(file("mixed.gguf")).unwrap();
    let start = (after(&mixed, "output.weight") + 4 + 2 * 8 + 4 + 8).next_multiple_of(32);
    let dir = tempfile::tempdir().unwrap();
    for tensor in ["token_embd.weight", "blk.0.ffn_up.weight"] {
        let at = after(&mixed, tensor) + 4 + 2 * 8 + 4;
        let offset = u64::from_le_bytes(*mixed[at..].first_chunk().unwrap());
        let at = start + usize::try_from(offset).unwrap();
        let mut infinite = mixed.clone();
        infinite[at..at + 2].copy_from_slice(&[0, 0x7c]);
        let path = dir.path().join("infinite.gguf");
        fs::write(&path, infinite).unwrap();
        let source = ModelSource::open(&path).unwrap();
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            let error = source.frozen(&device(), precision).unwrap_err();
            assert!(matches!(error, Error::NotFinite { name, .. } if name == tensor));
        }
    }
}

/// Opens a copy of the split model with another one of its files; `change` gets the files' bytes.
#[track_caller]
fn split(change: impl Fn(&mut [Option<Vec<u8>>; 3]), parts: &[&str]) {
    let name = |at: usize| format!("mixed-0000{}-of-00003.gguf", at + 1);
    let mut files = std::array::from_fn(|at| Some(fs::read(file(&name(at))).unwrap()));
    change(&mut files);
    let dir = tempfile::tempdir().unwrap();
    for (at, bytes) in files.iter().enumerate() {
        bytes
            .iter()
            .for_each(|bytes| fs::write(dir.path().join(name(at)), bytes).unwrap());
    }
    let given = (0..3).find(|&at| files[at].is_some()).unwrap();
    let error = Gguf::open(&dir.path().join(name(given))).unwrap_err();
    let message = format!("{:#}", anyhow::Error::new(error));
    for part in parts {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
}

#[test]
fn files_of_a_split_model_that_do_not_fit() {
    for at in 0..3 {
        let missing = format!("mixed-0000{}-of-00003.gguf is missing", at + 1);
        split(|files| files[at] = None, &["split.count", &missing]);
    }
    let third = "mixed-00003-of-00003.gguf";
    split(
        |files| files[2] = files[1].clone(),
        &["split.no", third, "1, expected 2"],
    );
    split(
        |files| files[2] = Some(good()),
        &["split.no", third, "missing"],
    );
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123\n";
    split(
        |files| files[2] = Some(pointer.to_vec()),
        &[third, "git lfs pull"],
    );
    let twice = |files: &mut [Option<Vec<u8>>; 3]| {
        let bytes = files[1].as_mut().unwrap();
        let at = find(bytes, "blk.0.ffn_up.weight");
        bytes[at..at + 19].copy_from_slice(b"blk.0.attn_q.weight");
    };
    split(twice, &["blk.0.attn_q.weight", "00001-of", "00002-of"]);
    let dir = tempfile::tempdir().unwrap();
    let renamed = dir.path().join("renamed.gguf");
    fs::copy(file("mixed-00001-of-00003.gguf"), &renamed).unwrap();
    let error = Gguf::open(&renamed).unwrap_err().to_string();
    assert!(error.contains("-00001-of-00003.gguf"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is in the file, the answer is a model or an error.
    #[test]
    fn no_bytes_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        in_header in any::<bool>(),
        end in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = good();
        let span = if in_header { 14_000 } else { bytes.len() };
        for (at, byte) in flips {
            bytes[at.index(span)] = byte;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(span));
        }
        let _ = load(&bytes);
    }
}
