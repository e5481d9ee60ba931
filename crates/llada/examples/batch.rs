//! Requests that join while others are on their way; each gets what it would get alone.
//!
//! `cargo run -p llada --example batch`
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use llada::{Checkpoint, CpuConfig, Device, Overrides, Precision, Task};

fn main() -> anyhow::Result<()> {
    let device = Device::cpu(CpuConfig::default())?;
    let llada = Checkpoint::embedded()?.frozen(&device, Precision::F32)?;
    let mut session = llada.session();
    let mut tasks = Vec::new();
    let mut waiting = ["床前明月光，", "白日依山尽，", "春眠不觉晓，"].into_iter();
    for time in 0.. {
        if time % 5 == 0
            && let Some(prompt) = waiting.next()
        {
            let task = Task::generate(prompt);
            session.submit(llada.request(&task, &Overrides::default())?)?;
            tasks.push(task);
        }
        for ended in session.step(&mut |_| std::ops::ControlFlow::Continue(())) {
            let text = llada
                .answer(&tasks[ended.request], ended.result?)?
                .whole_text;
            println!("after step {time}: request {}: {text}", ended.request);
        }
        if session.n_requests() == 0 && waiting.len() == 0 {
            break;
        }
    }
    Ok(())
}
