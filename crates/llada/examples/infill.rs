//! Fills the holes of a poem with the embedded model: `llada infill "春□□□□，夏□□□□。"`.
//!
//! `cargo run -p llada --example infill -- "□□□□□，低头思故乡。"`
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use llada::{Checkpoint, CpuConfig, Device, Overrides, Precision};

fn main() -> anyhow::Result<()> {
    let text = std::env::args().nth(1);
    let text = text.unwrap_or("春□□□□，夏□□□□。秋□□□□，冬□□□□。".into());
    let device = Device::cpu(CpuConfig::default())?;
    let llada = Checkpoint::embedded()?.frozen(&device, Precision::F32)?;
    println!("{}", llada.infill(text, &Overrides::default())?.text);
    Ok(())
}
