//! The official sampling loop, driven by recorded logits: the sampler with no model in it.
//!
//! `goldens/scripted.*` was recorded by running `generate` of the reference's generate.py
//! (ML-GSAI/LLaDA) in torch on the CPU with a model that returns the recorded logits.

use std::cell::Cell;
use std::ops::ControlFlow;

use llada_diffusion::{
    Candidates, Choice, MaskPredictor, PredictorInfo, Query, Result, TokenBatch, losses_by_logits,
};
use llada_sample::{Draws, RecordedDraws, Remasking, Request, SampleConfig, sample};
use safetensors::SafeTensors;
use serde_json::Value;

const JSON: &str = include_str!("../goldens/scripted.json");
const TENSORS: &[u8] = include_bytes!("../goldens/scripted.safetensors");

/// A recorded tensor, converted from its little-endian bytes.
fn read<const N: usize, T>(name: &str, convert: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
    let tensors = SafeTensors::deserialize(TENSORS).unwrap();
    let tensor = tensors.tensor(name).ok()?;
    Some(
        tensor
            .data()
            .as_chunks()
            .0
            .iter()
            .map(|&bytes| convert(bytes))
            .collect(),
    )
}

fn ids(name: &str) -> Vec<u32> {
    read(name, |bytes| {
        u32::try_from(i64::from_le_bytes(bytes)).unwrap()
    })
    .unwrap()
}

/// Returns the logits of one row, a step for each call; guided steps are two calls.
struct Scripted {
    info: PredictorInfo,
    /// `[steps, rows, L, V]`
    logits: Vec<f32>,
    /// Rows of `logits` to be returned, in the order of calls.
    rows: Vec<usize>,
    n_rows: usize,
    calls: Cell<usize>,
}

impl Scripted {
    fn rows(&self, batch: &TokenBatch, positions: &[usize]) -> Vec<f32> {
        let call = self.calls.replace(self.calls.get() + 1);
        let (step, row) = (call / self.rows.len(), self.rows[call % self.rows.len()]);
        let (seq_len, vocab_size) = (batch.n_tokens(), self.info.vocab_size);
        let at = |position: usize| ((step * self.n_rows + row) * seq_len + position) * vocab_size;
        let of = |&position: &usize| &self.logits[at(position)..at(position) + vocab_size];
        positions.iter().flat_map(of).copied().collect()
    }
}

impl MaskPredictor for Scripted {
    fn info(&self) -> PredictorInfo {
        self.info
    }

    fn logits(&self, query: Query<'_>) -> Result<Vec<f32>> {
        query.by_logits(|batch, positions| Ok(self.rows(batch, positions)))
    }

    fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> Result<Candidates> {
        choice.by_logits(self, query)
    }

    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> Result<Vec<f32>> {
        losses_by_logits(self, query, targets)
    }
}

fn unsigned(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn config(case: &Value, eos: u32, eot: u32) -> SampleConfig {
    let temperature = case["temperature"].as_f64().unwrap();
    let is_on = |name: &str| case.get(name).is_some_and(|flag| flag.as_bool().unwrap());
    // At a positive temperature the reference's flag reaches EOT alone.
    let no_confidence = if temperature > 0.0 {
        vec![eot]
    } else {
        vec![eos, eot]
    };
    SampleConfig {
        steps: unsigned(&case["steps"]),
        gen_length: unsigned(&case["gen_length"]),
        block_length: Some(unsigned(&case["block_length"])),
        temperature,
        cfg_scale: case["cfg_scale"].as_f64().unwrap() as f32,
        remasking: case["remasking"]
            .as_str()
            .unwrap()
            .parse::<Remasking>()
            .unwrap(),
        logits_eos_inf: if is_on("logits_eos_inf") {
            vec![eos]
        } else {
            Vec::new()
        },
        confidence_eos_eot_inf: if is_on("confidence_eos_eot_inf") {
            no_confidence
        } else {
            Vec::new()
        },
        ..SampleConfig::default()
    }
}

/// The draws of one row of a case.
fn draws(name: &str, row: usize, batch: usize, seq_len: usize, vocab_size: usize) -> RecordedDraws {
    let gumbel = read(&format!("{name}.gumbel_uniform"), f64::from_le_bytes);
    let remask = read(&format!("{name}.remask_uniform"), f32::from_le_bytes);
    RecordedDraws {
        gumbel_start: 0,
        gumbel_len: seq_len,
        gumbel: rows_of(
            &gumbel.unwrap_or_default(),
            row,
            batch,
            seq_len * vocab_size,
        ),
        remask: rows_of(&remask.unwrap_or_default(), row, batch, seq_len),
    }
}

/// One row of `[steps, rows, size]`.
fn rows_of<T: Clone>(data: &[T], row: usize, n_rows: usize, size: usize) -> Vec<T> {
    data.chunks(size)
        .skip(row)
        .step_by(n_rows)
        .flatten()
        .cloned()
        .collect()
}

#[test]
fn the_sampler_is_the_reference_s_step_by_step() {
    let file: Value = serde_json::from_str(JSON).unwrap();
    let [eos, eot, mask] = ["eos_id", "eot_id", "mask_id"].map(|key| unsigned(&file[key]) as u32);
    let [vocab_size, prompt_len, batch] =
        ["vocab", "prompt_len", "batch"].map(|key| unsigned(&file[key]));
    let cases = file["cases"].as_object().unwrap();
    assert!(!cases.is_empty());
    for (name, case) in cases {
        let config = config(case, eos, eot);
        let seq_len = prompt_len + config.gen_length;
        let logits = read(&format!("{name}.logits"), f32::from_le_bytes).unwrap();
        let n_rows = if config.cfg_scale > 0.0 {
            2 * batch
        } else {
            batch
        };
        for row in 0..batch {
            let predictor = Scripted {
                info: PredictorInfo::new(vocab_size, mask, eos, seq_len),
                logits: logits.clone(),
                rows: (row..n_rows).step_by(batch).collect(),
                n_rows,
                calls: Cell::new(0),
            };
            let prompt = rows_of(&ids(&format!("{name}.prompt")), row, batch, prompt_len);
            let request = Request {
                draws: Draws::Recorded(draws(name, row, batch, seq_len, vocab_size)),
                ..Request::generate(prompt, config.clone())
            };
            let mut steps = Vec::new();
            let outputs = sample(&predictor, &[request], &mut |event| {
                steps.extend_from_slice(event.canvas);
                ControlFlow::Continue(())
            });
            let output = &outputs.unwrap()[0];
            let expected = rows_of(&ids(&format!("{name}.x_after_step")), row, batch, seq_len);
            assert_eq!(steps, expected, "{name}, row {row}");
            let expected = rows_of(&ids(&format!("{name}.output")), row, batch, seq_len);
            assert_eq!(output.tokens, expected, "{name}, row {row}");
            let masks = output.tokens.iter().filter(|&&id| id == mask).count();
            assert!(masks <= unsigned(&case["masks_left"]), "{name}, row {row}");
        }
    }
}
