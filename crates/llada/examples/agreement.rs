//! What caches and parallel decoding save, and what they cost: each setting against one token a
//! step without a cache.
//!
//! `cargo run --release -p llada --example agreement -- [--model DIR] [--prompts N] [--lines N]
//! [DATA_DIR]`: poems of so many lines (4) are completed from their first one, which the model has
//! drawn itself, a line in a block. A table that means something takes 200 prompts or more; without
//! the flag there are 4. With the folder that `cargo xtask data poems` makes, the famous quatrains are
//! recalled from their last line too.
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::{env, fs, ops::ControlFlow, path::Path, time::Instant};

use anyhow::Context as _;
use llada::diffusion::{LikelihoodConfig, MaskPredictor as _, ScoredSequence, log_likelihood};
use llada::sample::{CacheMode, Output, Process, RefreshPolicy, Request, SampleConfig};
use llada::{CpuConfig, Device, Llada, Precision};

/// Five characters and a mark.
const LINE: usize = 6;
const MARKS: [char; 7] = ['，', '。', '？', '！', '；', '：', '、'];

struct Setting {
    flags: &'static str,
    process: Process,
    cache: CacheMode,
    refresh: RefreshPolicy,
}

fn settings() -> Vec<Setting> {
    use CacheMode::{Activity, Dual, None as NoCache, Prefix};
    let usual = RefreshPolicy::default();
    let window = |w| RefreshPolicy {
        suffix_window: Some(w),
        ..usual
    };
    let vicinity = |vicinity| RefreshPolicy { vicinity, ..usual };
    let every = |n| RefreshPolicy {
        refresh_interval: Some(n),
        ..usual
    };
    let leap = Process::LocalLeap {
        threshold: 0.9,
        relaxed: 0.75,
        radius: 4,
    };
    let runs = Process::Hierarchical {
        high: 0.9,
        low: 0.4,
    };
    let falling = Process::FallingThreshold {
        threshold: 0.9,
        fall: 0.4,
    };
    let prompt = RefreshPolicy {
        prompt_interval: 3,
        ..usual
    };
    let one = Process::Quota;
    let rows: [(&'static str, Process, CacheMode, RefreshPolicy); 22] = [
        ("(one token a step)", one, NoCache, usual),
        ("--suffix-window 64", one, NoCache, window(64)),
        ("--suffix-window 6", one, NoCache, window(6)),
        ("--cache prefix", one, Prefix, usual),
        ("--cache dual", one, Dual, usual),
        ("--cache dual --vicinity 3", one, Dual, vicinity(3)),
        ("--cache dual --refresh-interval 3", one, Dual, every(3)),
        ("--cache dual --prompt-interval 3", one, Dual, prompt),
        ("--cache dual --suffix-window 6", one, Dual, window(6)),
        ("--cache activity", one, Activity, every(8)),
        (
            "--cache activity --refresh-interval 3",
            one,
            Activity,
            every(3),
        ),
        ("--threshold 0.9", Process::Threshold(0.9), NoCache, usual),
        ("--factor 1", Process::Factor(1.0), NoCache, usual),
        ("--eb-gamma 0", Process::EntropyBound(0.0), NoCache, usual),
        ("--eb-gamma 0.1", Process::EntropyBound(0.1), NoCache, usual),
        ("--eb-gamma 0.5", Process::EntropyBound(0.5), NoCache, usual),
        (
            "--entropy-exit 0.5",
            Process::EntropyExit(0.5),
            NoCache,
            usual,
        ),
        (
            "--entropy-exit 1.5",
            Process::EntropyExit(1.5),
            NoCache,
            usual,
        ),
        (
            "--threshold 0.9 --relaxed-threshold 0.75",
            leap,
            NoCache,
            usual,
        ),
        ("--threshold 0.9 --low-threshold 0.4", runs, NoCache, usual),
        (
            "--threshold 0.9 --threshold-fall 0.4",
            falling,
            NoCache,
            usual,
        ),
        (
            "--eb-gamma 0.1 --cache dual --refresh-interval 3",
            Process::EntropyBound(0.1),
            Dual,
            every(3),
        ),
    ];
    let of = |(flags, process, cache, refresh)| Setting {
        flags,
        process,
        cache,
        refresh,
    };
    rows.into_iter().map(of).collect()
}

impl Setting {
    /// To fill a stretch of `length` positions in blocks of a line. There are as many steps as
    /// leave one token for each, wherever the masks are; a step without a token makes no call.
    fn config(&self, llada: &Llada, length: usize) -> SampleConfig {
        let mut suppressed = vec![llada.model.info().eos_token_id];
        suppressed.extend(llada.tokenizer.unk_token_id());
        SampleConfig {
            steps: length + LINE,
            gen_length: length,
            block_length: Some(LINE),
            process: self.process,
            cache: self.cache,
            refresh: self.refresh,
            suppress_mask: true,
            logits_eos_inf: suppressed,
            ..SampleConfig::default()
        }
    }
}

fn sample(llada: &Llada, requests: &[Request]) -> anyhow::Result<Vec<Output>> {
    let observer = &mut |_: &llada::sample::StepEvent<'_>| ControlFlow::Continue(());
    Ok(llada::sample::sample(&llada.model, requests, observer)?)
}

/// First lines that the model draws, so that no data is needed. Many are of poems that it knows.
fn prompts(llada: &Llada, n: u64, lines: usize) -> anyhow::Result<Vec<Vec<u32>>> {
    let base = &settings()[0];
    let request = |seed| {
        let config = SampleConfig {
            temperature: 0.8,
            seed,
            ..base.config(llada, LINE * lines)
        };
        closed(Request::generate(Vec::new(), config), llada)
    };
    let requests: Vec<Request> = (0..n).map(request).collect();
    let outputs = sample(llada, &requests)?;
    Ok(outputs.iter().map(|o| o.tokens[..LINE].to_vec()).collect())
}

/// The request with the end token that the model learned texts to have.
fn closed(mut request: Request, llada: &Llada) -> Request {
    use llada::sample::Task;
    let (Task::Generate { suffix, .. } | Task::Infill { suffix, .. }) = &mut request.task;
    suffix.push(llada.model.info().eos_token_id);
    request
}

/// Outputs one request at a time, and the seconds.
fn run(llada: &Llada, requests: &[Request]) -> anyhow::Result<(Vec<Output>, f64)> {
    let start = Instant::now();
    let mut outputs = Vec::with_capacity(requests.len());
    for request in requests {
        outputs.extend(sample(llada, std::slice::from_ref(request))?);
    }
    Ok((outputs, start.elapsed().as_secs_f64()))
}

/// Nats a token of the answers, under the model without caches.
fn likelihood(llada: &Llada, outputs: &[Output]) -> anyhow::Result<f64> {
    let scored: Vec<ScoredSequence<'_>> = (outputs.iter())
        .map(|output| ScoredSequence {
            tokens: &output.tokens,
            prompt_len: output.prompt_len,
        })
        .collect();
    let config = LikelihoodConfig {
        mc_samples: 8,
        ..LikelihoodConfig::default()
    };
    let estimates = log_likelihood(&llada.model, &scored, &config)?;
    let sum: f64 = estimates.iter().map(|e| e.log_likelihood).sum();
    let tokens: usize = estimates.iter().map(|e| e.n_tokens).sum();
    Ok(sum / tokens as f64)
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
    let mask = llada.model.info().mask_token_id;
    for (canvas, truth) in pairs {
        let masks = canvas.iter().filter(|&&id| id == mask).count();
        let config = setting.config(llada, canvas.len());
        let request = closed(Request::infill(canvas.clone(), config), llada);
        let output = sample(llada, &[request])?.remove(0);
        let wrong = output.tokens.iter().zip(truth).filter(|(a, b)| a != b);
        right += masks - wrong.count();
        hidden += masks;
    }
    Ok(format!("{:.1}", 100.0 * right as f64 / hidden as f64))
}

/// The value of a flag, which is taken out of the arguments.
fn take(args: &mut Vec<String>, flag: &str) -> anyhow::Result<Option<String>> {
    let Some(at) = args.iter().position(|arg| arg == flag) else {
        return Ok(None);
    };
    anyhow::ensure!(at + 1 < args.len(), "{flag} needs a value");
    Ok(args.drain(at..at + 2).nth(1))
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
    let n_prompts: u64 = match take(&mut args, "--prompts")? {
        Some(n) => n.parse().context("--prompts needs a number")?,
        None => 4,
    };
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
    let prompts = prompts(&llada, n_prompts, lines)?;
    println!("{n_prompts} prompts, {} famous quatrains", famous.len());
    println!(
        "| flags | forwards | rows | seconds | same text % | first difference | nats a token | form % | recall % |"
    );
    println!("| --- | --: | --: | --: | --: | --: | --: | --: | --: |");
    let mut base: Option<Vec<Output>> = None;
    for setting in settings() {
        let config = setting.config(&llada, LINE * (lines - 1));
        let request =
            |prompt: &Vec<u32>| closed(Request::generate(prompt.clone(), config.clone()), &llada);
        let requests: Vec<Request> = prompts.iter().map(request).collect();
        let (outputs, seconds) = run(&llada, &requests)?;
        let base = base.get_or_insert_with(|| outputs.clone());
        let differ = |(a, b): (&Output, &Output)| {
            a.answer().iter().zip(b.answer()).position(|(a, b)| a != b)
        };
        let firsts: Vec<usize> = outputs.iter().zip(&*base).filter_map(differ).collect();
        let n = outputs.len() as f64;
        let mean = |of: &dyn Fn(&Output) -> usize| outputs.iter().map(of).sum::<usize>() as f64 / n;
        let first = match firsts.len() {
            0 => "-".to_owned(),
            count => format!("{:.1}", firsts.iter().sum::<usize>() as f64 / count as f64),
        };
        println!(
            "| `{}` | {:.1} | {:.0} | {seconds:.2} | {:.1} | {first} | {:.3} | {:.1} | {} |",
            setting.flags,
            mean(&|o| o.nfe),
            mean(&|o| o.rows),
            100.0 * (n - firsts.len() as f64) / n,
            likelihood(&llada, &outputs)?,
            100.0 * mean(&|o| usize::from(is_formed(&llada, o))),
            recall(&llada, &setting, &famous)?,
        );
    }
    Ok(())
}
