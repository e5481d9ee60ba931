//! Shows how a poem comes out of masks, one character a step, the surest first: the lines of
//! `llada infill "□□□□□，低头思故乡。" --watch`.
//!
//! `cargo run -p llada --example stream`
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use llada::{Checkpoint, CpuConfig, Device, Overrides, Precision, Task};

fn main() -> anyhow::Result<()> {
    let device = Device::cpu(CpuConfig::default())?;
    let llada = Checkpoint::embedded()?.frozen(&device, Precision::F32)?;
    let task = Task::infill("□□□□□，低头思故乡。");
    let mut steps = llada.stream(&task, &Overrides::default())?;
    for step in &mut steps {
        let step = step?;
        println!("{:>3}/{} {}", step.step + 1, step.steps, step.text);
    }
    let answer = steps.into_answer();
    println!("{}", answer.map_or(String::new(), |answer| answer.text));
    Ok(())
}
