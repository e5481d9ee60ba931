//! `llada logits`.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use llada::diffusion::{MaskPredictor as _, Query, TokenBatch};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use crate::args::{Format, LogitsArgs};
use crate::config::{Embedded, load_checkpoint};
use crate::output::print;

#[derive(serde::Deserialize)]
struct Input {
    input_ids: Vec<Vec<u32>>,
    attention_mask: Option<Vec<Vec<u32>>>,
}

pub(crate) fn run(args: &LogitsArgs) -> Result<()> {
    let name = args.ids.display();
    let text = llada_files::read_text(&args.ids).with_context(|| format!("reading {name}"))?;
    let input: Input = serde_json::from_str(&text)
        .with_context(|| format!("{name}: expected {{\"input_ids\": [[1, 2, ..], ..]}}"))?;
    let rows = input.input_ids;
    let length = rows.first().map_or(0, Vec::len);
    let rectangular = |rows: &[Vec<u32>]| rows.iter().all(|row| row.len() == length);
    anyhow::ensure!(length > 0, "{name}: input_ids holds no tokens");
    anyhow::ensure!(
        rectangular(&rows),
        "{name}: rows of input_ids differ in length"
    );
    let mask = input
        .attention_mask
        .unwrap_or_else(|| vec![vec![1; length]; rows.len()]);
    anyhow::ensure!(
        mask.len() == rows.len() && rectangular(&mask),
        "{name}: attention_mask has another shape than input_ids"
    );
    let (llada, _) = load_checkpoint(&args.model, Embedded::Poems, true)?;
    let vocab_size = llada.model.info().vocab_size;
    let start = Instant::now();
    let mut logits = vec![0.0_f32; rows.len() * length * vocab_size];
    for ((ids, mask), out) in rows
        .iter()
        .zip(&mask)
        .zip(logits.chunks_mut(length * vocab_size))
    {
        // Padding is left out, not masked: the result of a row is that of the row alone.
        let kept: Vec<usize> = (0..length).filter(|&at| mask[at] != 0).collect();
        let sequence: Vec<u32> = kept.iter().map(|&at| ids[at]).collect();
        if kept.is_empty() {
            continue;
        }
        let batch = TokenBatch::new(&[sequence])?;
        let positions: Vec<usize> = (0..kept.len()).collect();
        let values = llada.model.logits(Query::new(&batch, &positions))?;
        for (&at, values) in kept.iter().zip(values.chunks_exact(vocab_size)) {
            out[at * vocab_size..][..vocab_size].copy_from_slice(values);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let shape = vec![rows.len(), length, vocab_size];
    write(&args.output, &logits, shape.clone())
        .with_context(|| format!("writing {}", args.output.display()))?;
    let result =
        json!({ "shapes": { "logits": shape }, "output": args.output, "seconds": seconds });
    match args.model.run.format {
        Format::Json => print(&format!("{result}\n")),
        Format::Text => print(&format!("{}: logits {shape:?}\n", args.output.display())),
    }
}

fn write(path: &Path, logits: &[f32], shape: Vec<usize>) -> Result<()> {
    let view = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(logits))?;
    let bytes = safetensors::serialize([("logits", view)], None)?;
    Ok(llada_files::write(path, bytes)?)
}
