//! Fills the holes of a poem with the embedded model, one character a step, the surest first.
//!
//! `cargo run -p llada --example infill -- "春□□□□，夏□□□□。"`
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::ops::ControlFlow;

use llada::diffusion::MaskPredictor as _;
use llada::sample::{Request, SampleConfig, sample};
use llada::{CpuConfig, Device, Precision};

fn main() -> anyhow::Result<()> {
    let text = std::env::args().nth(1);
    let text = text
        .as_deref()
        .unwrap_or("春□□□□，夏□□□□，秋□□□□，冬□□□□。");
    let device = Device::cpu(CpuConfig::default())?;
    let llada = llada::Checkpoint::embedded()?.frozen(&device, Precision::F32)?;

    let info = llada.model.info();
    let canvas = llada
        .tokenizer
        .encode_with_masks(text, info.mask_token_id)?;
    let masks = canvas.iter().filter(|&&id| id == info.mask_token_id);
    let config = SampleConfig {
        steps: masks.count().max(1),
        block_length: None,
        suppress_mask: true,
        logits_eos_inf: vec![info.eos_token_id],
        ..SampleConfig::default()
    };
    let requests = [Request::infill(canvas, config)];
    let outputs = sample(&llada.model, &requests, &mut |event| {
        let text = llada.tokenizer.decode(event.canvas, false);
        println!("{}", text.unwrap_or_default().replace("[MASK]", "□"));
        ControlFlow::Continue(())
    })?;
    println!("{}", llada.tokenizer.decode(&outputs[0].tokens, true)?);
    Ok(())
}
