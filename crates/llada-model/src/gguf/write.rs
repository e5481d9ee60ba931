//! Writes a model as a GGUF file, as llama.cpp's converter writes it.
//!
//! Source: `conversion/llada.py` and `conversion/base.py` of llama.cpp, `docs/gguf.md` of ggml.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use llada_files::NewFile;

use super::architecture::{Architecture, no_architecture};
use super::encode::GgufType;
use super::{fault, header, interleaved_row, is_rotated, tensor_name};
use crate::config::is_of_router;
use crate::convert::Report;
use crate::stored::Stored;
use crate::{Error, ModelConfig, ModelSource, Result};

const VERSION: u32 = 3;
const ALIGNMENT: usize = 32;
/// Values that are wide at once.
const CHUNK: usize = 1 << 22;
/// Of so many rows one is compared with its source.
const COMPARED: usize = 16;

/// The value of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufValue {
    /// A number from 0 on.
    Number(u32),
    /// A real number.
    Real(f32),
    /// True or false.
    Flag(bool),
    /// A text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// Small numbers.
    Numbers(Vec<i32>),
}

/// Writes a model into the GGUF file `target`, as a whole or not at all, with the architecture of its
/// family in llama.cpp. Matrices become `kind`; vectors stay f32, and of a type of
/// integers rows that are no multiple of 32 become f16, as llama.cpp has it. `vocabulary` has the
/// keys that say what the tokens are.
///
/// `progress` is told the tensors that are done, and of how many.
///
/// # Errors
/// As [`ModelSource::frozen`]; [`Error::Exists`] if the file is there; [`Error::UnsupportedField`]
/// for an autoregressive model; [`Error::Gguf`] for a value that the type cannot hold.
pub fn convert_to_gguf(
    source: &ModelSource,
    target: &Path,
    kind: GgufType,
    vocabulary: &[(String, GgufValue)],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Report> {
    if target.exists() {
        let path = target.to_owned();
        return Err(Error::Exists { path });
    }
    let (config, tensors) = (source.config(), source.tensors()?);
    config.check()?;
    if config.causal {
        let expected = "false: GGUF's llada is a diffusion model; convert to a folder";
        return Err(Error::unsupported("causal", true, expected));
    }
    let of = Architecture::of(config.family).ok_or_else(|| no_architecture(config.family))?;
    if config
        .extras
        .moe
        .as_ref()
        .is_some_and(|moe| moe.layers.contains(&false))
    {
        let expected = "experts in every layer: llama.cpp has no other; convert to a folder";
        return Err(Error::unsupported(
            "moe_layer_freq",
            "a layer without experts",
            expected,
        ));
    }
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).map_err(Error::io("creating", folder))?;
    }
    let names = config.parameter_shapes();
    let mut keys = keys(config, of, kind, target);
    keys.extend(vocabulary.iter().cloned());
    let mut file = NewFile::create(target).map_err(Error::io("creating", target))?;
    let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io("writing", target));
    let head = head(&keys, &names, kind);
    write(&head)?;
    let mut report = Report {
        source_bytes: 0,
        bytes: head.len() as u64,
        files: 1,
        relative_error: 0.0,
    };
    let mut squares = [0.0; 2];
    for (done, ((name, _), tensor)) in names.iter().zip(&tensors).enumerate() {
        let heads = is_rotated(config, name).then(|| config.head_dim());
        let mut size = 0;
        let kind = type_of(kind, name, &tensor.shape);
        encode(tensor, kind, heads, &mut squares, &mut |bytes| {
            size += bytes.len();
            write(bytes)
        })?;
        let padding = size.next_multiple_of(ALIGNMENT) - size;
        write(&[0; ALIGNMENT][..padding])?;
        report.source_bytes += tensor.bytes();
        report.bytes += (size + padding) as u64;
        progress(done + 1, tensors.len());
    }
    file.commit().map_err(Error::io("writing", target))?;
    if squares[1] > 0.0 {
        report.relative_error = (squares[0] / squares[1]).sqrt();
    }
    Ok(report)
}

/// The keys of the model.
fn keys(
    config: &ModelConfig,
    of: &Architecture,
    kind: GgufType,
    target: &Path,
) -> Vec<(String, GgufValue)> {
    use GgufValue::{Flag, Number, Real, Text};
    let number = |n: usize| Number(u32::try_from(n).expect("checked to be at most 2^28"));
    let name = target.file_stem().unwrap_or_default().to_string_lossy();
    let eos = config.eos_token_id.usual();
    let pad = config.pad_token_id.unwrap_or(eos);
    let mut keys: Vec<(String, GgufValue)> = [
        ("general.architecture", Text(of.name.to_owned())),
        ("general.type", Text("model".to_owned())),
        ("general.name", Text(name.into_owned())),
        ("general.file_type", Number(kind.file_type())),
        ("general.quantization_version", Number(2)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let own = [
        ("context_length", number(config.max_sequence_length)),
        ("embedding_length", number(config.d_model)),
        ("block_count", number(config.n_layers)),
        ("feed_forward_length", number(config.mlp_width())),
        ("attention.head_count", number(config.n_heads)),
        ("attention.head_count_kv", number(config.kv_heads())),
        (
            "attention.layer_norm_rms_epsilon",
            Real(config.rms_norm_eps),
        ),
        ("attention.causal", Flag(false)),
        ("rope.freq_base", Real(config.rope_theta)),
        ("rope.dimension_count", number(config.head_dim())),
        ("vocab_size", number(config.vocab_size)),
    ];
    keys.extend(own.map(|(end, value)| (of.key(end), value)));
    if let Some(moe) = &config.extras.moe {
        let of_experts = [
            ("expert_count", number(moe.router.n_experts)),
            ("expert_used_count", number(moe.router.k)),
            ("expert_feed_forward_length", number(moe.expert_width)),
        ];
        keys.extend(of_experts.map(|(end, value)| (of.key(end), value)));
    }
    let tokens = [
        ("diffusion.shift_logits", Flag(of.shifts_logits)),
        ("tokenizer.ggml.mask_token_id", Number(config.mask_token_id)),
        ("tokenizer.ggml.eos_token_id", Number(eos)),
        ("tokenizer.ggml.padding_token_id", Number(pad)),
    ];
    keys.extend(tokens.map(|(key, value)| (key.to_owned(), value)));
    keys
}

/// The type of a parameter in a file of a type: as in llama.cpp, a router stays f32.
fn type_of(kind: GgufType, parameter: &str, shape: &[usize]) -> GgufType {
    match is_of_router(parameter) {
        true => GgufType::F32,
        false => kind.of_tensor(shape),
    }
}

/// The bytes before the data: keys, the table of tensors, and what aligns the data.
fn head(keys: &[(String, GgufValue)], tensors: &[(String, Vec<usize>)], kind: GgufType) -> Vec<u8> {
    let mut head = header::MAGIC.to_vec();
    head.extend(VERSION.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        put_text(&mut head, key);
        put_value(&mut head, value);
    }
    let mut offset = 0;
    for (name, shape) in tensors {
        put_text(&mut head, &tensor_name(name));
        head.extend((shape.len() as u32).to_le_bytes());
        for &n in shape.iter().rev() {
            head.extend((n as u64).to_le_bytes());
        }
        let kind = type_of(kind, name, shape);
        head.extend(kind.number().to_le_bytes());
        head.extend((offset as u64).to_le_bytes());
        let size = kind.kind().size_bytes(shape);
        let size = size.expect("rows are whole blocks, and the source has as many values");
        offset += size.next_multiple_of(ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    head
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &GgufValue) {
    let array = |out: &mut Vec<u8>, kind: u32, length: usize| {
        out.extend(header::ARRAY.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend((length as u64).to_le_bytes());
    };
    match value {
        GgufValue::Number(value) => {
            out.extend(header::U32.to_le_bytes());
            out.extend(value.to_le_bytes());
        }
        GgufValue::Real(value) => {
            out.extend(header::F32.to_le_bytes());
            out.extend(value.to_le_bytes());
        }
        GgufValue::Flag(value) => {
            out.extend(header::FLAG.to_le_bytes());
            out.push((*value).into());
        }
        GgufValue::Text(value) => {
            out.extend(header::TEXT.to_le_bytes());
            put_text(out, value);
        }
        GgufValue::Texts(values) => {
            array(out, header::TEXT, values.len());
            values.iter().for_each(|value| put_text(out, value));
        }
        GgufValue::Numbers(values) => {
            array(out, header::I32, values.len());
            out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
    }
}

/// Writes the bytes of a tensor, with the rows of each head in turn if its `heads` are so wide, and
/// adds the squared errors and the squares of the rows of integers that are compared.
fn encode(
    tensor: &Stored<'_>,
    kind: GgufType,
    heads: Option<usize>,
    squares: &mut [f64; 2],
    write: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let (n, numel) = (tensor.rows(), tensor.shape.iter().product::<usize>());
    let row = numel / n.max(1);
    // Whole heads, of which the rows change places.
    let chunk = (CHUNK / row.max(1)).max(1);
    let chunk = chunk.next_multiple_of(heads.unwrap_or(1)).min(n.max(1));
    let (mut values, mut turned) = (vec![0.0; chunk * row], Vec::new());
    let mut bytes = Vec::new();
    for start in (0..n).step_by(chunk) {
        let rows = start..(start + chunk).min(n);
        let mut values = &mut values[..rows.len() * row];
        tensor.expect_finite(tensor.fill_once(rows, values))?;
        if let Some(head_dim) = heads {
            turned.resize(values.len(), 0.0);
            for (at, from) in values.chunks_exact(row).enumerate() {
                let to = interleaved_row(at, head_dim) * row;
                turned[to..to + row].copy_from_slice(from);
            }
            values = &mut turned;
        }
        bytes.clear();
        if !kind.encode(values, &mut bytes) {
            let (place, got) = (format!("tensor {}", tensor.name), "a value or scale");
            let got = format!("{got} beyond what {} holds", kind.name());
            return Err(fault(tensor.path, place, got, "--dtype bf16 or f32"));
        }
        if kind.is_integer() {
            compare(values, &bytes, row, kind, squares);
        }
        write(&bytes)?;
    }
    Ok(())
}

fn compare(values: &[f32], bytes: &[u8], row: usize, kind: GgufType, squares: &mut [f64; 2]) {
    let mut read = vec![0.0; row];
    for (at, values) in values.chunks_exact(row).enumerate().step_by(COMPARED) {
        let kind = kind.kind();
        kind.values(&bytes[kind.bytes_of(at * row, row)], &mut read);
        for (x, w) in read.iter().zip(values) {
            squares[0] += f64::from(x - w).powi(2);
            squares[1] += f64::from(*w).powi(2);
        }
    }
}
