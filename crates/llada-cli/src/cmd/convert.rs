//! `llada convert`.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use llada::diffusion::{MaskPredictor as _, Query, TokenBatch};
use llada::tensor::{Philox, Stream};
use llada::{Device, GgufType, ModelSource, Precision};
use serde_json::{Value, json};

use crate::args::{ConvertArgs, Format, StoredType};
use crate::config::{Misuse, cpu, open};
use crate::output::{note, print};

pub(crate) fn run(args: &ConvertArgs) -> Result<()> {
    let stored = stored(args.dtype, &args.target)?;
    let device = cpu(args.threads)?;
    let source = open(Some(&args.source), &args.adapter, args.open)?;
    let start = Instant::now();
    let mut progress = |done: usize, of: usize| {
        let mut stderr = std::io::stderr();
        if stderr.is_terminal() {
            let end = if done == of { "\n" } else { "" };
            let _ = write!(stderr, "\r{done} of {of} tensors{end}");
        }
    };
    let report = match stored {
        Stored::Folder(precision) => {
            source.convert(&args.target, precision, &device, &mut progress)
        }
        Stored::Gguf(kind) => source.convert_to_gguf(&args.target, kind, &mut progress),
    }?;
    let mut result = json!({
        "dtype": args.dtype.to_possible_value().map(|value| value.get_name().to_owned()),
        "source_bytes": report.source_bytes,
        "bytes": report.bytes,
        "files": report.files,
        "relative_error": report.relative_error,
        "seconds": start.elapsed().as_secs_f64(),
    });
    if args.compare > 0 {
        note("comparing logits with the source");
        let usual = match source.source().default_precision(&device) {
            // The values of the blocks: with no rounding of activations.
            Precision::Blocks => Precision::Bf16,
            usual => usual,
        };
        let of_source = logits(source.source(), usual, args.compare, &device)
            .context("comparing with the source (the model was converted; --compare 0 skips it)")?;
        let target = ModelSource::open(&args.target)?;
        let precision = match stored {
            Stored::Folder(precision) => precision,
            // What the file holds, as exactly as the source is computed.
            Stored::Gguf(_) if usual.is_integer() => Precision::F32,
            Stored::Gguf(_) => usual,
        };
        let converted = logits(&target, precision, args.compare, &device)?;
        let (error, top) = compare(&of_source, &converted);
        result["compared_positions"] = json!(of_source.len());
        result["mean_logit"] = json!(mean(&of_source, |x| x.abs()));
        result["mean_logit_error"] = json!(error);
        result["top1_agreement"] = json!(top);
    }
    match args.format {
        Format::Json => print(&format!("{result}\n")),
        Format::Text => {
            for (field, value) in result.as_object().into_iter().flatten() {
                let value = match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                print(&format!("{field:20} {value}\n"))?;
            }
            Ok(())
        }
    }
}

/// How a target holds its weights.
#[derive(Clone, Copy)]
enum Stored {
    Folder(Precision),
    Gguf(GgufType),
}

/// The type that is asked for, if the target can hold it.
fn stored(dtype: StoredType, target: &Path) -> Result<Stored> {
    let is_gguf = target
        .extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
    Ok(match (dtype, is_gguf) {
        (StoredType::auto, false) => {
            let hint = "--dtype: choose f32, bf16, int8 or int4 to convert to";
            return Err(Misuse::of(hint));
        }
        (StoredType::auto, true) => {
            let hint = "--dtype: choose f32, f16, bf16, q8_0 or q4_0 to convert to";
            return Err(Misuse::of(hint));
        }
        (StoredType::f32, false) => Stored::Folder(Precision::F32),
        (StoredType::bf16, false) => Stored::Folder(Precision::Bf16),
        (StoredType::int8, false) => Stored::Folder(Precision::Int8),
        (StoredType::int4, false) => Stored::Folder(Precision::Int4),
        (StoredType::f32, true) => Stored::Gguf(GgufType::F32),
        (StoredType::f16, true) => Stored::Gguf(GgufType::F16),
        (StoredType::bf16, true) => Stored::Gguf(GgufType::Bf16),
        (StoredType::q8_0, true) => Stored::Gguf(GgufType::Q8_0),
        (StoredType::q4_0, true) => Stored::Gguf(GgufType::Q4_0),
        (StoredType::int8 | StoredType::int4, true) => {
            let hint = "--dtype: a GGUF file has no int8 or int4; choose q8_0 or q4_0, or a target \
                        that does not end in .gguf";
            return Err(Misuse::of(hint));
        }
        (StoredType::f16 | StoredType::q8_0 | StoredType::q4_0, false) => {
            let hint = "--dtype: f16, q8_0 and q4_0 are for a target that ends in .gguf; a folder \
                        holds f32, bf16, int8 or int4";
            return Err(Misuse::of(hint));
        }
    })
}

/// Logits of each of `n` random tokens, every second one masked.
fn logits(
    source: &ModelSource,
    precision: Precision,
    n: usize,
    device: &Device,
) -> Result<Vec<Vec<f32>>> {
    let model = source.frozen(device, precision)?;
    let info = model.info();
    let n = n.min(info.max_sequence_length);
    let philox = Philox::new(0, Stream::Test);
    let id = |at: usize| match at % 2 {
        0 => info.mask_token_id,
        _ => philox.below(info.vocab_size as u64, [at as u32, 0, 0]) as u32,
    };
    let batch = TokenBatch::new(&[(0..n).map(id).collect::<Vec<u32>>()])?;
    let positions: Vec<usize> = (0..n).collect();
    let logits = model.logits(Query::new(&batch, &positions))?;
    Ok(logits
        .chunks_exact(info.vocab_size)
        .map(<[f32]>::to_vec)
        .collect())
}

/// Mean difference of the logits, and the share of positions whose best token is the same.
fn compare(x: &[Vec<f32>], y: &[Vec<f32>]) -> (f64, f64) {
    let best = |row: &[f32]| {
        let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        best.map_or(0, |(at, _)| at)
    };
    let (mut error, mut same) = (0.0, 0);
    for (x, y) in x.iter().zip(y) {
        let of_row: f64 = x.iter().zip(y).map(|(a, b)| f64::from((a - b).abs())).sum();
        error += of_row / x.len() as f64;
        same += usize::from(best(x) == best(y));
    }
    let n = x.len().max(1) as f64;
    (error / n, f64::from(u32::try_from(same).unwrap_or(0)) / n)
}

fn mean(rows: &[Vec<f32>], of: impl Fn(f32) -> f32) -> f64 {
    let sum: f64 = rows.iter().flatten().map(|&x| f64::from(of(x))).sum();
    sum / rows.iter().map(Vec::len).sum::<usize>().max(1) as f64
}
