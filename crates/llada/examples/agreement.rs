//! What caches and parallel decoding save, and what they cost: each setting against one token a
//! step without a cache.
//!
//! `cargo run --release -p llada --example agreement -- [--model DIR] [--prompts N] [--lines N]
//! [DATA_DIR]`: poems of so many lines (4) are completed from their first one, which the model has
//! drawn itself, a line in a block. A table that means something takes 200 prompts or more; without
//! the flag there are 4. With the folder that `cargo xtask data poems` makes, the famous quatrains are
//! recalled from their last line too. `--speculate` makes another table: what guesses of coming steps
//! save, each setting with them against the same one without.
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::{env, fs, ops::ControlFlow, path::Path, time::Instant};

use anyhow::Context as _;
use llada::diffusion::MaskPredictor as _;
use llada::eval::{Measured, Setting, Subject, Tried, Tuner, drawn_lines, settings};
use llada::sample::{Output, Request, Task};
use llada::{CpuConfig, Device, Llada, Overrides, Precision};

/// Five characters and a mark.
const LINE: usize = 6;
const MARKS: [char; 7] = ['，', '。', '？', '！', '；', '：', '、'];
/// Draws of the likelihood bound of a text.
const MC_SAMPLES: usize = 8;

/// To fill a stretch of `length` positions in blocks of a line. There are as many steps as leave one
/// token for each, wherever the masks are; a step without a token makes no call.
fn overrides(setting: &Setting, length: usize) -> Overrides {
    setting.overrides(&Overrides {
        steps: Some(length + LINE),
        block_length: Some(LINE),
        gen_length: Some(length),
        logits_eos_inf: true,
        suppress_mask: Some(true),
        ..Overrides::default()
    })
}

/// The request with the end token that the model learned texts to have.
fn request(subject: &Subject<'_>, task: Task, overrides: &Overrides) -> anyhow::Result<Request> {
    Ok(subject.policy.request(task, true, overrides)?)
}

fn sample(llada: &Llada, request: Request) -> anyhow::Result<Output> {
    let observer = &mut |_: &llada::sample::StepEvent<'_>| ControlFlow::Continue(());
    Ok(llada::sample::sample(&llada.model, &[request], observer)?.remove(0))
}

/// Whether every line has five characters and a mark.
fn is_formed(llada: &Llada, output: &Output) -> bool {
    let end = output.tokens.len() - output.suffix_len;
    let text = llada.tokenizer.decode(&output.tokens[..end], true);
    let is_mark = |(i, c): (usize, char)| MARKS.contains(&c) == (i % LINE == LINE - 1);
    text.is_ok_and(|text| text.chars().enumerate().all(is_mark))
}

/// Quatrains with all but the marks and the last line masked, and what they are.
fn quatrains(llada: &Llada, data: &Path) -> anyhow::Result<Vec<(Vec<u32>, Vec<u32>)>> {
    let path = data.join("famous.txt");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mask = llada.model.info().mask_token_id;
    let mut pairs = Vec::new();
    for poem in text.lines() {
        let lengths: Vec<usize> = poem.split(MARKS).map(|c| c.chars().count()).collect();
        if lengths != [5, 5, 5, 5, 0] && lengths != [7, 7, 7, 7, 0] {
            continue;
        }
        let truth = llada.tokenizer.encode(poem)?;
        let hidden = 3 * (lengths[0] + 1);
        let hide = |(at, (&id, c)): (usize, (&u32, char))| {
            let keep = at >= hidden || MARKS.contains(&c);
            if keep { id } else { mask }
        };
        let canvas = truth.iter().zip(poem.chars()).enumerate().map(hide);
        pairs.push((canvas.collect(), truth));
    }
    Ok(pairs)
}

/// Share of the hidden characters that come back.
fn recall(
    llada: &Llada,
    setting: &Setting,
    pairs: &[(Vec<u32>, Vec<u32>)],
) -> anyhow::Result<String> {
    if pairs.is_empty() {
        return Ok("-".to_owned());
    }
    let (mut right, mut hidden) = (0, 0);
    let (subject, mask) = (llada.subject(), llada.model.info().mask_token_id);
    for (canvas, truth) in pairs {
        let masks = canvas.iter().filter(|&&id| id == mask).count();
        let task = Request::infill(canvas.clone(), Default::default()).task;
        let request = request(&subject, task, &overrides(setting, canvas.len()))?;
        let output = sample(llada, request)?;
        let wrong = output.tokens.iter().zip(truth).filter(|(a, b)| a != b);
        right += masks - wrong.count();
        hidden += masks;
    }
    Ok(format!("{:.1}", 100.0 * right as f64 / hidden as f64))
}

/// A row of the table.
fn line(row: &Measured, llada: &Llada, recall: &str) -> String {
    let flags = match row.setting.flags() {
        flags if flags.is_empty() => "(one token a step)".to_owned(),
        flags => flags,
    };
    let first = row.agreement.first_difference;
    format!(
        "| `{flags}` | {:.1} | {:.0} | {:.2} | {:.1} | {} | {:.3} | {:.1} | {recall} |",
        row.forwards,
        row.rows,
        row.answers.seconds,
        100.0 * row.agreement.texts.mean,
        first.map_or("-".to_owned(), |at| format!("{at:.1}")),
        row.nats_per_token.unwrap_or(f64::NAN),
        100.0
            * row
                .answers
                .mean(|output| usize::from(is_formed(llada, output))),
    )
}

/// The value of a flag, which is taken out of the arguments.
fn take(args: &mut Vec<String>, flag: &str) -> anyhow::Result<Option<String>> {
    let Some(at) = args.iter().position(|arg| arg == flag) else {
        return Ok(None);
    };
    anyhow::ensure!(at + 1 < args.len(), "{flag} needs a value");
    Ok(args.drain(at..at + 2).nth(1))
}

/// The table of guesses.
fn speculate(llada: &Llada, prompts: &[Vec<u32>], length: usize) -> anyhow::Result<()> {
    /// Guesses a call.
    const GUESSES: [usize; 6] = [0, 1, 2, 3, 7, 15];
    const FLAGS: [&str; 6] = [
        "",
        "--cache prefix",
        "--cache dual",
        "--cache dual --refresh-interval 3",
        "--threshold 0.9",
        "--entropy-exit 0.5",
    ];
    println!(
        "| flags | N | forwards | of those without % | rows | seconds | right guesses % | same text % |"
    );
    println!("| --- | --: | --: | --: | --: | --: | --: | --: |");
    let subject = llada.subject();
    let all = settings(&subject, &Overrides::default());
    for flags in FLAGS {
        let setting = all.iter().find(|setting| setting.flags() == flags);
        let setting = setting.with_context(|| format!("no setting is `{flags}`"))?;
        let mut base: Vec<Output> = Vec::new();
        for guesses in GUESSES {
            let overrides = Overrides {
                speculate: guesses,
                ..overrides(setting, length)
            };
            let of = |prompt: &Vec<u32>| {
                let task = Request::generate(prompt.clone(), Default::default()).task;
                request(&subject, task, &overrides)
            };
            let requests: Vec<Request> = prompts.iter().map(of).collect::<anyhow::Result<_>>()?;
            let start = Instant::now();
            let outputs = requests.into_iter().map(|request| sample(llada, request));
            let outputs: Vec<Output> = outputs.collect::<anyhow::Result<_>>()?;
            let seconds = start.elapsed().as_secs_f64();
            if guesses == 0 {
                base.clone_from(&outputs);
            }
            let sum = |of: fn(&Output) -> usize| outputs.iter().map(of).sum::<usize>() as f64;
            let n = outputs.len() as f64;
            let pairs = outputs.iter().zip(&base);
            let same = pairs.filter(|(a, b)| a.tokens == b.tokens);
            let flags = if flags.is_empty() {
                "(one token a step)"
            } else {
                flags
            };
            println!(
                "| `{flags}` | {guesses} | {:.2} | {:.1} | {:.0} | {seconds:.2} | {:.1} | {:.1} |",
                sum(|o| o.nfe) / n,
                100.0 * sum(|o| o.nfe) / base.iter().map(|o| o.nfe).sum::<usize>() as f64,
                sum(|o| o.rows) / n,
                100.0 * sum(|o| o.right_guesses) / sum(|o| o.guesses).max(1.0),
                100.0 * same.count() as f64 / n,
            );
        }
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let mut args: Vec<String> = env::args().skip(1).collect();
    let device = Device::cpu(CpuConfig {
        threads: 1,
        ..CpuConfig::default()
    })?;
    let lines: usize = match take(&mut args, "--lines")? {
        Some(lines) => lines.parse().context("--lines needs a number")?,
        None => 4,
    };
    let n_prompts: usize = match take(&mut args, "--prompts")? {
        Some(n) => n.parse().context("--prompts needs a number")?,
        None => 4,
    };
    let speculates = args.iter().position(|arg| arg == "--speculate");
    if let Some(at) = speculates {
        args.remove(at);
    }
    anyhow::ensure!(n_prompts > 0, "--prompts must be at least 1");
    anyhow::ensure!(lines > 1, "--lines must be at least 2");
    let llada = match take(&mut args, "--model")? {
        Some(dir) => llada::load(Path::new(&dir), &device, Precision::F32)?,
        None => llada::Checkpoint::embedded()?.frozen(&device, Precision::F32)?,
    };
    let famous = match args.first() {
        Some(data) => quatrains(&llada, Path::new(data))?,
        None => Vec::new(),
    };
    let subject = llada.subject();
    let prompts = drawn_lines(&subject, n_prompts, LINE, lines)?;
    println!("{n_prompts} prompts, {} famous quatrains", famous.len());
    if speculates.is_some() {
        return speculate(&llada, &prompts, LINE * (lines - 1));
    }
    println!(
        "| flags | forwards | rows | seconds | same text % | first difference | nats a token | form % | recall % |"
    );
    println!("| --- | --: | --: | --: | --: | --: | --: | --: | --: |");
    let mut tuner = Tuner::new(&subject, MC_SAMPLES);
    let length = LINE * (lines - 1);
    let base = Overrides {
        block_length: Some(LINE),
        ..Overrides::default()
    };
    for setting in settings(&subject, &base) {
        let overrides = overrides(&setting, length);
        let of = |prompt: &Vec<u32>| {
            let task = Request::generate(prompt.clone(), Default::default()).task;
            request(&subject, task, &overrides)
        };
        let requests: Vec<Request> = prompts.iter().map(of).collect::<anyhow::Result<_>>()?;
        let tried = tuner.measure(setting, &requests, &mut |_, _| ControlFlow::Continue(()))?;
        let Tried::Measured(row) = tried else {
            continue;
        };
        let recall = recall(&llada, &row.setting, &famous)?;
        println!("{}", line(&row, &llada, &recall));
    }
    Ok(())
}
