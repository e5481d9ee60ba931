//! Counts what a poem model knows by heart: the first three lines of famous quatrains from the
//! last one, and one line of a couplet from the other. Punctuation is given.
//!
//! `cargo run --release -p llada --example recall -- [--model DIR] [DATA_DIR]`: the model is the
//! embedded one without `--model`; `cargo xtask data poems` makes the data, in `data/poems`.
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::{env, fs, ops::ControlFlow, path::Path};

use anyhow::Context as _;
use llada::sample::Request;
use llada::{CpuConfig, Device, Llada, Overrides, Precision, Task};
use serde_json::{Value, json};

/// The marks that end a clause.
const MARKS: [char; 7] = ['，', '。', '？', '！', '；', '：', '、'];

/// The poem with every character masked but the marks and clause number `given`.
fn request(truth: &[u32], poem: &str, given: usize, llada: &Llada) -> anyhow::Result<Request> {
    let mask = llada.info().mask_token_id;
    let (mut canvas, mut clause) = (truth.to_vec(), 0);
    for (id, character) in canvas.iter_mut().zip(poem.chars()) {
        if MARKS.contains(&character) {
            clause += 1;
        } else if clause != given {
            *id = mask;
        }
    }
    // The model was trained on whole poems, which end with an EOS.
    canvas.push(llada.info().eos_token_id);
    Ok(llada.request(&Task::infill(canvas), &Overrides::default())?)
}

/// How well `poems` are recalled from clause number `given`.
fn recall(llada: &Llada, poems: &[&str], given: usize) -> anyhow::Result<Value> {
    let (mut whole, mut right, mut hidden) = (0, 0, 0);
    for chunk in poems.chunks(64) {
        let encode = |poem: &&str| llada.tokenizer.encode(poem);
        let truths = chunk.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let of_pair = |(truth, poem): (&Vec<u32>, &&str)| request(truth, poem, given, llada);
        let requests = truths.iter().zip(chunk).map(of_pair);
        let requests = requests.collect::<anyhow::Result<Vec<Request>>>()?;
        let outputs = llada.sample(&requests, &mut |_| ControlFlow::Continue(()))?;
        for ((output, truth), request) in outputs.iter().zip(&truths).zip(&requests) {
            let wrong = output.tokens.iter().zip(truth).filter(|(a, b)| a != b);
            let wrong = wrong.count();
            whole += usize::from(wrong == 0);
            hidden += request.config.steps;
            right += request.config.steps - wrong;
        }
    }
    let share = |n: usize, of: usize| n as f64 / of.max(1) as f64;
    Ok(json!({
        "recalled": whole,
        "of": poems.len(),
        "share": share(whole, poems.len()),
        "character_share": share(right, hidden),
    }))
}

/// Whether a poem has four clauses of five or of seven characters.
fn is_quatrain(poem: &str) -> bool {
    let lengths: Vec<usize> = poem.split(MARKS).map(|c| c.chars().count()).collect();
    lengths == [5, 5, 5, 5, 0] || lengths == [7, 7, 7, 7, 0]
}

fn main() -> anyhow::Result<()> {
    let mut args: Vec<String> = env::args().skip(1).collect();
    let device = Device::cpu(CpuConfig::default())?;
    let llada = match args.iter().position(|arg| arg == "--model") {
        Some(at) => {
            anyhow::ensure!(at + 1 < args.len(), "--model needs a folder");
            let dir = args.drain(at..at + 2).nth(1).unwrap_or_default();
            llada::load(Path::new(&dir), &device, Precision::F32)?
        }
        None => llada::Checkpoint::embedded()?.frozen(&device, Precision::F32)?,
    };
    let data = args.first().map_or("data/poems", String::as_str);
    if args.is_empty() && !Path::new(data).is_dir() {
        println!("skipped: {data} is not there, cargo xtask data poems makes it");
        return Ok(());
    }
    let read = |name: &str| {
        let path = Path::new(data).join(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let (famous, couplets) = (read("famous.txt")?, read("famous_couplets.txt")?);
    let quatrains: Vec<&str> = famous.lines().filter(|line| is_quatrain(line)).collect();
    let couplets: Vec<&str> = couplets.lines().collect();
    let result = json!({
        "quatrains": recall(&llada, &quatrains, 3)?,
        "couplets_forward": recall(&llada, &couplets, 0)?,
        "couplets_backward": recall(&llada, &couplets, 1)?,
    });
    println!("{result}");
    Ok(())
}
