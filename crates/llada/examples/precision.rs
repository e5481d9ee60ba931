//! What a smaller weight costs: error of the logits, the bound on held-out poems, and agreement of
//! generated tokens, of the embedded poem model in each precision, with weights rounded as llama.cpp's
//! `Q8_0` and `Q4_0` store them (blocks of 32 with a scale in f16; nothing else rounded), and of such
//! files, the embedding of which is rounded too, by their values and by their integers.
//!
//! `cargo run --release -p llada --example precision -- [POEMS [DATA_DIR]]`: so many held-out poems
//! out of the data that `cargo xtask data poems` makes, in `data/poems`; two that are in this file
//! without a number.
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::ops::ControlFlow;
use std::path::Path;
use std::{env, fs};

use anyhow::Context as _;
use llada::diffusion::{
    LikelihoodConfig, MaskPredictor as _, Query, ScoredSequence, TokenBatch, log_likelihood,
};
use llada::sample::{Request, SampleConfig, sample};
use llada::{
    Checkpoint, CpuConfig, Device, FrozenModel, GgufType, ModelSource, Precision, Tokenizer,
};
use llada_tensor::bf16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// Held-out quatrains.
const POEMS: [&str; 2] = [
    "垂緌饮清露，流响出疏桐。居高声自远，非是藉秋风。",
    "水如一匹练，此地即平天。耐可乘明月，看花上酒船。",
];

const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/poems");

fn main() -> anyhow::Result<()> {
    let mut args = env::args().skip(1);
    let n_poems: Option<usize> = args.next().map(|n| n.parse()).transpose()?;
    let data = args.next().unwrap_or_else(|| "data/poems".to_owned());
    let held_out = match n_poems {
        None => POEMS.join("\n"),
        Some(_) => {
            let path = Path::new(&data).join("heldout.txt");
            let context = || format!("{}: make it with `cargo xtask data poems`", path.display());
            fs::read_to_string(&path).with_context(context)?
        }
    };
    let asset = |name: &str| fs::read(Path::new(ASSETS).join(name));
    let (config, weights) = (asset("config.json")?, asset("model.safetensors")?);
    let tokenizer = Tokenizer::from_bytes(&asset("tokenizer.json")?)?;
    let device = Device::cpu(CpuConfig::default())?;
    let of = |weights: &[u8], precision| {
        ModelSource::from_bytes(&config, weights.to_vec())?.frozen(&device, precision)
    };
    let mut models = vec![
        ("f32", of(&weights, Precision::F32)?),
        ("bf16", of(&weights, Precision::Bf16)?),
        ("int8", of(&weights, Precision::Int8)?),
        ("int4", of(&weights, Precision::Int4)?),
        (
            "Q8_0 weights",
            of(&rounded(&weights, q8_0)?, Precision::F32)?,
        ),
        (
            "Q4_0 weights",
            of(&rounded(&weights, q4_0)?, Precision::F32)?,
        ),
    ];
    let dir = tempfile::tempdir()?;
    for (values, integers, kind) in [
        ("Q8_0 file, f32", "Q8_0 file, blocks", GgufType::Q8_0),
        ("Q4_0 file, f32", "Q4_0 file, blocks", GgufType::Q4_0),
    ] {
        let path = dir.path().join(format!("{kind:?}.gguf"));
        Checkpoint::embedded()?.convert_to_gguf(&path, kind, &mut |_, _| {})?;
        let file = ModelSource::open(&path)?;
        models.push((values, file.frozen(&device, Precision::F32)?));
        models.push((integers, file.frozen(&device, Precision::Blocks)?));
    }
    let texts = texts(&tokenizer, &models[0].1, &held_out, n_poems.unwrap_or(2))?;
    let baseline = Figures::of(&models[0].1, &texts)?;
    println!(
        "| weights | MB | mean logit error | top-1 as f32 | bound, nats | as f32 | tokens as f32 |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for (name, model) in &models {
        let row = Figures::of(model, &texts)?;
        let error = mean(
            row.logits
                .iter()
                .zip(&baseline.logits)
                .map(|(x, y)| (x - y).abs().into()),
        );
        let top = mean(
            row.top
                .iter()
                .zip(&baseline.top)
                .map(|(x, y)| f64::from(x == y)),
        );
        let tokens = row.tokens.iter().zip(&baseline.tokens);
        let tokens = mean(tokens.map(|(x, y)| f64::from(x == y)));
        println!(
            "| {name} | {:.1} | {error:.4} | {:.1} % | {:.4} | {:+.4} | {:.1} % |",
            model.bytes() as f64 / 1e6,
            100.0 * top,
            row.bound,
            row.bound - baseline.bound,
            100.0 * tokens,
        );
    }
    Ok(())
}

/// Held-out poems at even distances, each with its EOS.
fn texts(
    tokenizer: &Tokenizer,
    model: &FrozenModel,
    held_out: &str,
    n: usize,
) -> anyhow::Result<Vec<Vec<u32>>> {
    let poems: Vec<&str> = held_out.lines().filter(|line| !line.is_empty()).collect();
    let step = (poems.len() / n.max(1)).max(1);
    let encode = |poem: &&str| -> anyhow::Result<Vec<u32>> {
        let mut ids = tokenizer.encode(poem)?;
        ids.truncate(model.config().max_sequence_length - 1);
        ids.push(model.info().eos_token_id);
        Ok(ids)
    };
    poems.iter().step_by(step).take(n).map(encode).collect()
}

/// What is compared.
struct Figures {
    /// Of every other token of each text, masked.
    logits: Vec<f32>,
    top: Vec<usize>,
    /// Nats per token, eq. 6 with 32 draws, the same for all models.
    bound: f64,
    /// Each text completed from its first clause, greedily.
    tokens: Vec<u32>,
}

impl Figures {
    fn of(model: &FrozenModel, texts: &[Vec<u32>]) -> anyhow::Result<Self> {
        let info = model.info();
        let (mut logits, mut top) = (Vec::new(), Vec::new());
        for text in texts.iter().take(20) {
            let mut masked = text.clone();
            let positions: Vec<usize> = (0..text.len()).step_by(2).collect();
            for &at in &positions {
                masked[at] = info.mask_token_id;
            }
            let of_text = model.logits(Query::new(&TokenBatch::new(&[masked])?, &positions))?;
            for row in of_text.chunks_exact(info.vocab_size) {
                let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
                top.push(best.map_or(0, |(at, _)| at));
            }
            logits.extend(of_text);
        }
        let sequences: Vec<ScoredSequence<'_>> = texts
            .iter()
            .map(|tokens| ScoredSequence {
                tokens,
                prompt_len: 0,
            })
            .collect();
        let config = LikelihoodConfig {
            mc_samples: 32,
            ..LikelihoodConfig::default()
        };
        let estimates = log_likelihood(model, &sequences, &config)?;
        let nats: f64 = estimates.iter().map(|x| -x.log_likelihood).sum();
        let n_tokens: usize = texts.iter().map(Vec::len).sum();
        let requests: Vec<Request> = texts
            .iter()
            .map(|text| {
                let mut canvas = text.clone();
                let end = canvas.len() - 1;
                canvas[6.min(end)..end].fill(info.mask_token_id);
                let masks = end.saturating_sub(6).max(1);
                let config = SampleConfig {
                    steps: masks,
                    suppress_mask: true,
                    ..SampleConfig::default()
                };
                Request::infill(canvas, config)
            })
            .filter(|request| request.config.steps > 1)
            .collect();
        let outputs = sample(model, &requests, &mut |_| ControlFlow::Continue(()))?;
        Ok(Self {
            logits,
            top,
            bound: nats / n_tokens as f64,
            tokens: outputs
                .into_iter()
                .flat_map(|output| output.tokens)
                .collect(),
        })
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (n, sum) = values.fold((0_usize, 0.0), |(n, sum), x| (n + 1, sum + x));
    sum / n.max(1) as f64
}

/// The safetensors file with the matrices rounded in blocks of 32, in `f32`; the embedding is kept.
fn rounded(bytes: &[u8], round: fn(&mut [f32])) -> anyhow::Result<Vec<u8>> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut tensors = Vec::new();
    for (name, view) in file.tensors() {
        let words = view.data().chunks_exact(2);
        let mut values: Vec<f32> = words
            .map(|x| bf16::from_le_bytes([x[0], x[1]]).to_f32())
            .collect();
        if view.shape().len() == 2 && !name.contains("wte") {
            for row in values.chunks_exact_mut(view.shape()[1]) {
                row.chunks_mut(32).for_each(round);
            }
        }
        let data: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        tensors.push((name, view.shape().to_vec(), data));
    }
    let views = tensors
        .iter()
        .map(|(name, shape, data)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), data)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(safetensors::serialize(views, None)?)
}

fn to_f16(x: f32) -> f32 {
    half::f16::from_f32(x).to_f32()
}

fn q8_0(block: &mut [f32]) {
    let largest = block.iter().fold(0.0_f32, |max, x| x.abs().max(max));
    let d = largest / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    for x in block {
        *x = (*x * inverse).round() * to_f16(d);
    }
}

fn q4_0(block: &mut [f32]) {
    let end = block
        .iter()
        .fold(0.0_f32, |end, &x| if x.abs() > end.abs() { x } else { end });
    let d = end / -8.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    for x in block {
        *x = (*x * inverse).round().clamp(-8.0, 7.0) * to_f16(d);
    }
}
