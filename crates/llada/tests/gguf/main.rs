//! GGUF files that the public `gguf` Python package wrote (`tools/record_gguf.py`).
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

mod damaged;

use std::path::{Path, PathBuf};

use llada::diffusion::{MaskPredictor as _, Query, TokenBatch};
use llada::model::OpenOptions;
use llada::model::convert::{convert, convert_to_gguf};
use llada::text::{ChatTemplate, Message};
use llada::{
    Checkpoint, CpuConfig, Device, Gguf, GgufType, LladaModel, ModelSource, Precision, Tokenizer,
};
use serde_json::Value;

const TEXTS: [&str; 16] = [
    "",
    "Hello world",
    "  two  spaces ",
    "Lily can run 12 kilometers per hour for 4 hours.",
    "今天天气很好。床前明月光，\n\n疑是地上霜。",
    "naïve café — “quotes”… é",
    "emoji 😀👩\u{200d}👩\u{200d}👧 end",
    "tabs\tand\nnewlines\r\n\n \n x",
    "def f(x):\n    return x**2  # c\n\n\n    pass",
    "<|mdm_mask|><|mdm_mask|> filled <|eot_id|>",
    "a<|startoftext|>b<|endoftext|>c [CLS][gMASK] [PAD475]",
    "It's I'LL we're 'Tis they'd'Ve",
    "1234567890 3.14 ½ ٣٤٥",
    "<|start_header_id|>user<|end_header_id|>\n\nhi",
    "\0\u{1} control",
    "ﬁ ligature Å Å\u{a0}\u{3000}nbsp",
];

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/gguf")
        .join(name)
}

fn hf_tokenizer() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/models/mha-f32")
}

fn device() -> Device {
    let config = CpuConfig {
        threads: 1,
        level: None,
    };
    Device::cpu(config).unwrap()
}

fn model(name: &str) -> LladaModel {
    let source = ModelSource::open(&file(name)).unwrap();
    source.trainable(&device(), Precision::F32).unwrap()
}

fn logits(model: &LladaModel) -> Vec<f32> {
    let batch = TokenBatch::new(&[[7, 300, 460, 0, 449, 460, 31]]).unwrap();
    model.logits(Query::new(&batch, &[0, 2, 5, 6])).unwrap()
}

/// The same model as in the HF layout, to the bit.
#[track_caller]
fn check_same(name: &str, folder: &str) {
    let (ours, theirs) = (model(name), model(folder));
    assert_eq!(logits(&ours), logits(&theirs), "{name}");
    let (ours, theirs) = (ours.config(), theirs.config());
    assert_eq!(ours.parameter_shapes(), theirs.parameter_shapes());
    assert_eq!(ours.mask_token_id, theirs.mask_token_id);
    assert_eq!(ours.eos_token_id, theirs.eos_token_id);
    assert_eq!(ours.pad_token_id, theirs.pad_token_id);
    assert_eq!(ours.vocab_size, theirs.vocab_size);
    assert_eq!(ours.max_sequence_length, theirs.max_sequence_length);
    let source = ModelSource::open(&file(name)).unwrap();
    assert_eq!(source.config(), ours);
}

#[test]
fn a_file_gives_the_logits_of_the_folder_that_it_was_made_of() {
    for kind in ["f32", "f16", "bf16"] {
        check_same(&format!("float-{kind}.gguf"), "float");
    }
    check_same("tied-f32.gguf", "tied");
}

/// `tools/record_family_gguf.py` made them of recorded checkpoints.
#[test]
fn files_of_other_families_give_the_logits_of_their_folders() {
    for (name, folder) in [
        ("llada-moe-f32.gguf", "lladamoe/models/moe-f32"),
        ("dream-f32.gguf", "dream/models/gqa-f32"),
    ] {
        let device = device();
        let gguf = ModelSource::open(&file(name)).unwrap();
        let mask_token_id = Some(gguf.config().mask_token_id);
        let folder = file("../goldens/families").join(folder);
        let folder = ModelSource::open_with(&folder, OpenOptions { mask_token_id }).unwrap();
        assert_eq!(gguf.config().family, folder.config().family);
        let (ours, theirs) = (gguf.config(), folder.config());
        assert_eq!(ours.parameter_shapes(), theirs.parameter_shapes());
        assert_eq!(ours.eos_token_id, theirs.eos_token_id);
        let check = |source: &ModelSource, what: &str| {
            let [ours, theirs] = [source, &folder].map(|source| {
                let model = source.frozen(&device, Precision::F32).unwrap();
                let batch = TokenBatch::new(&[[7, 200, 46, 0, 44, 46, 31]]).unwrap();
                model.logits(Query::new(&batch, &[0, 2, 5, 6])).unwrap()
            });
            assert!(ours == theirs, "{name}, {what}");
        };
        check(&gguf, "as recorded");
        // And what is written of either is the same model again.
        let dir = tempfile::tempdir().unwrap();
        let written = dir.path().join("written.gguf");
        convert_to_gguf(&folder, &written, GgufType::F32, &[], &mut |_, _| ()).unwrap();
        check(&ModelSource::open(&written).unwrap(), "written");
        let target = dir.path().join("folder");
        convert(&gguf, &target, Precision::F32, &device, &mut |_, _| ()).unwrap();
        check(&ModelSource::open(&target).unwrap(), "a folder of the file");
    }
}

/// FNV-1a of 64 bits.
fn fnv(values: &[f32]) -> String {
    let bytes = values.iter().flat_map(|x| x.to_le_bytes());
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", bytes.fold(0xcbf2_9ce4_8422_2325, step))
}

/// The values that the package read, whose file `NAME.json` is.
#[track_caller]
fn check_values(gguf: &Gguf, expected: &str) {
    let json = std::fs::read(file(expected)).unwrap();
    let expected: Value = serde_json::from_slice(&json).unwrap();
    for (name, shape) in gguf.config().parameter_shapes() {
        let values = gguf.values(&name).unwrap();
        assert_eq!(values.len(), shape.iter().product::<usize>(), "{name}");
        let expected = &expected[&name];
        let kind = &expected["type"];
        for (index, value) in expected["first"].as_array().unwrap().iter().enumerate() {
            assert_eq!(
                Some(f64::from(values[index])),
                value.as_f64(),
                "{name} {kind}"
            );
        }
        assert_eq!(fnv(&values), expected["fnv1a"], "{name} {kind}");
    }
}

#[track_caller]
fn check_runs(gguf: Gguf) {
    let source = ModelSource::from(gguf);
    let model = source.frozen(&device(), Precision::F32).unwrap();
    let batch = TokenBatch::new(&[[3, 5, 5, 2]]).unwrap();
    let logits = model.logits(Query::new(&batch, &[1, 2])).unwrap();
    assert!(logits.iter().all(|x| x.is_finite()));
}

#[test]
fn quantised_values_are_those_of_the_package() {
    let gguf = Gguf::open(&file("quants.gguf")).unwrap();
    check_values(&gguf, "quants.json");
    let types = gguf.tensor_types();
    assert_eq!(types["F32"], 3);
    for kind in ["Q8_0", "Q4_0", "Q4_K", "Q6_K"] {
        assert_eq!(types[kind], if kind == "Q4_0" { 3 } else { 2 }, "{kind}");
    }
    check_runs(gguf);
}

/// What the quantizer falls back to, in a file that does not say that logits are not shifted.
#[test]
fn values_of_a_file_of_many_types_are_those_of_the_package() {
    let gguf = Gguf::open(&file("mixed.gguf")).unwrap();
    check_values(&gguf, "mixed.json");
    let types = gguf.tensor_types();
    for kind in [
        "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4", "F16",
    ] {
        assert!(types[kind] > 0, "{kind}");
    }
    check_runs(gguf);
}

#[test]
fn any_file_of_a_split_model_stands_for_all() {
    for number in 1..=3 {
        let gguf = Gguf::open(&file(&format!("mixed-0000{number}-of-00003.gguf"))).unwrap();
        assert_eq!(gguf.path(), file("mixed-00001-of-00003.gguf"));
        check_values(&gguf, "mixed.json");
        check_runs(gguf);
    }
}

/// An embedding that stays in its file gives what one in memory does.
#[test]
fn quantised_files_run_as_the_folders_that_they_become() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["quants", "mixed"] {
        let checkpoint = Checkpoint::open(&file(&format!("{name}.gguf"))).unwrap();
        let target = dir.path().join(name);
        let report = checkpoint.convert(&target, Precision::F32, &device(), &mut |_, _| {});
        report.unwrap();
        let folder = ModelSource::open(&target).unwrap();
        let batch = TokenBatch::new(&[[3, 5, 5, 2, 31]]).unwrap();
        let query = || Query::new(&batch, &[1, 2, 4]);
        for precision in [
            Precision::F32,
            Precision::Bf16,
            Precision::Int8,
            Precision::Int4,
        ] {
            let ours = checkpoint.source().frozen(&device(), precision).unwrap();
            let theirs = folder.frozen(&device(), precision).unwrap();
            assert_eq!(
                ours.logits(query()).unwrap(),
                theirs.logits(query()).unwrap()
            );
            assert!(ours.bytes() < theirs.bytes(), "{name}");
        }
    }
}

/// Activations are rounded to 8 bits, and weights not at all.
#[test]
fn integers_of_files_are_multiplied_as_they_are() {
    for name in ["quants", "mixed"] {
        let source = ModelSource::open(&file(&format!("{name}.gguf"))).unwrap();
        let batch = TokenBatch::new(&[[3, 5, 5, 2, 31]]).unwrap();
        let logits = |precision| {
            let model = source.frozen(&device(), precision).unwrap();
            let logits = model.logits(Query::new(&batch, &[1, 2, 4])).unwrap();
            (logits, model.bytes())
        };
        let ((exact, wide_bytes), (rounded, bytes)) =
            (logits(Precision::F32), logits(Precision::Blocks));
        assert!(exact != rounded && bytes <= wide_bytes, "{name}");
        let mean = |values: &mut dyn Iterator<Item = f32>| values.map(f32::abs).sum::<f32>();
        let error = mean(&mut exact.iter().zip(&rounded).map(|(x, y)| x - y));
        let size = mean(&mut exact.iter().copied());
        assert!(error < 0.02 * size, "{name}: {error} of {size}");
    }
}

#[test]
fn only_quantised_files_have_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f32.gguf");
    let embedded = Checkpoint::embedded().unwrap();
    embedded
        .convert_to_gguf(&path, GgufType::F32, &mut |_, _| {})
        .unwrap();
    let file = Checkpoint::open(&path).unwrap();
    for (checkpoint, expected) in [
        (&embedded, "only GGUF files have some"),
        (&file, "the file has no quantised weights"),
    ] {
        let refused = checkpoint.source().frozen(&device(), Precision::Blocks);
        let expected = format!("products of blocks: {expected}; take f32, bf16, int8 or int4");
        assert_eq!(refused.err().unwrap().to_string(), expected);
    }
}

/// The same ids and texts as the HF tokenizer's.
#[track_caller]
fn check_tokenizer(ours: &Tokenizer, theirs: &Tokenizer) {
    assert_eq!(ours.vocab_size(), theirs.vocab_size());
    assert_eq!(ours.mask_token_id(), theirs.mask_token_id());
    assert_eq!(ours.eos_token_id(), theirs.eos_token_id());
    for text in TEXTS {
        let ids = theirs.encode(text).unwrap();
        assert_eq!(ours.encode(text).unwrap(), ids, "{text:?}");
        let plain = theirs.encode_strict(text).unwrap();
        assert_eq!(ours.encode_strict(text).unwrap(), plain, "{text:?}");
        for skip in [false, true] {
            let decoded = theirs.decode(&ids, skip).unwrap();
            assert_eq!(ours.decode(&ids, skip).unwrap(), decoded, "{text:?}");
        }
    }
    // Rows of the head past the end of the vocabulary are dropped.
    assert_eq!(ours.decode(&[475, 480], false).unwrap(), "");
}

#[test]
fn the_vocabulary_gives_the_ids_of_the_hf_tokenizer() {
    let ours = llada::load(&file("float-f32.gguf"), &device(), Precision::F32).unwrap();
    let theirs = Tokenizer::from_dir(&hf_tokenizer()).unwrap();
    check_tokenizer(&ours.tokenizer, &theirs);
}

/// The tokenizer of the published LLaDA splits by this expression.
#[test]
fn the_splitting_of_bailing_is_that_of_its_tokenizer() {
    const SPLIT: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
    let json = std::fs::read(hf_tokenizer().join("tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_slice(&json).unwrap();
    json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = SPLIT.into();
    let theirs = Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap();
    let ours = llada::load(&file("tied-f32.gguf"), &device(), Precision::F32).unwrap();
    check_tokenizer(&ours.tokenizer, &theirs);
}

#[test]
fn the_chat_template_is_in_the_file() {
    let messages = [Message::user(" 你好 ")];
    let theirs = ChatTemplate::from_dir(&hf_tokenizer()).unwrap();
    let template = |name| Checkpoint::open(&file(name)).unwrap().template();
    let ours = template("float-f32.gguf").unwrap();
    let rendered = ours.render(&messages, true).unwrap();
    assert!(rendered.starts_with("<|startoftext|>"), "{rendered}");
    assert_eq!(rendered, theirs.render(&messages, true).unwrap());
    let missing = template("float-f16.gguf").unwrap_err();
    assert!(
        missing.to_string().contains("no chat template"),
        "{missing}"
    );
}
