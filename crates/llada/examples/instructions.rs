//! Counts how often a model that was fine-tuned on `cargo xtask data instructions` does what a
//! prompt says.
//!
//! `cargo run --release -p llada --example instructions -- RUN_DIR [FILE.jsonl] [N]`: of the file
//! (`data/instructions/heldout.jsonl`), `N` prompts at even distances (all). `RUN_DIR` may be the
//! folder of an adapter of the embedded model, such as `assets/poems/adapter`.
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::{env, fs};

use anyhow::Context as _;
use llada::{Checkpoint, CpuConfig, Device, Llada, Overrides, Precision, Task};
use serde_json::{Value, json};

/// Masks of every answer: more than the longest has, so that only its EOS tells its length.
const GEN_LENGTH: usize = 72;
/// The marks that end a clause.
const MARKS: [char; 6] = ['，', '。', '？', '！', '；', '：'];
/// The marks that end a sentence.
const ENDS: [char; 4] = ['。', '？', '！', '；'];

struct Pair {
    prompt: String,
    completion: String,
}

fn pair(line: &str) -> anyhow::Result<Pair> {
    let line: Value = serde_json::from_str(line)?;
    let field = |name: &str| {
        let text = line[name].as_str().map(str::to_owned);
        text.with_context(|| format!("a line without {name}"))
    };
    Ok(Pair {
        prompt: field("prompt")?,
        completion: field("completion")?,
    })
}

/// What of an instruction an answer does.
#[derive(Default)]
struct Counts {
    of: usize,
    ended: usize,
    lines: usize,
    line_lengths: usize,
    heads: usize,
    all: usize,
    exact: usize,
    shown: Vec<[String; 2]>,
}

/// The clauses of a text, without their marks.
fn clauses(text: &str) -> Vec<&str> {
    text.split_terminator(MARKS).collect()
}

fn length(text: &str) -> usize {
    text.chars().count()
}

impl Counts {
    /// `answer` is the text before the first EOS, `None` if there is none.
    fn count(&mut self, pair: &Pair, answer: Option<&str>) {
        let text = answer.unwrap_or_default();
        let (kind, given) = pair.prompt.split_once('：').unwrap_or_default();
        let found = clauses(text);
        let (n_lines, width, heads): (usize, usize, Vec<char>) = if kind.ends_with("藏头") {
            let heads: Vec<char> = given.trim_end_matches('。').chars().collect();
            let width = if kind.starts_with("五言") { 5 } else { 7 };
            (heads.len(), width, heads)
        } else {
            (1, length(given) - 1, Vec::new())
        };
        let ends_right = match kind {
            "上句" => text.ends_with(['，', '：']),
            _ => text.ends_with(ENDS),
        };
        let ended = answer.is_some() && ends_right;
        let lines = found.len() == n_lines;
        let line_lengths = found.iter().all(|clause| length(clause) == width);
        let begins = |(clause, head): (&&str, &char)| clause.starts_with(*head);
        let heads = found.len() >= heads.len() && found.iter().zip(&heads).all(begins);
        self.of += 1;
        self.ended += usize::from(ended);
        self.lines += usize::from(lines);
        self.line_lengths += usize::from(line_lengths && !found.is_empty());
        self.heads += usize::from(heads);
        self.all += usize::from(ended && lines && line_lengths && heads);
        self.exact += usize::from(text == pair.completion);
        if self.shown.len() < 4 {
            self.shown.push([pair.prompt.clone(), text.to_owned()]);
        }
    }
}

fn answers(llada: &Llada, pairs: &[&Pair]) -> anyhow::Result<Vec<Option<String>>> {
    let info = llada.info();
    let overrides = Overrides {
        gen_length: Some(GEN_LENGTH),
        ..Overrides::default()
    };
    // Ids: a prompt is no beginning of a document.
    let request = |pair: &&Pair| {
        let ids = llada.tokenizer.encode(&pair.prompt)?;
        anyhow::Ok(llada.request(&Task::generate(ids), &overrides)?)
    };
    let requests = pairs.iter().map(request).collect::<Result<Vec<_>, _>>()?;
    let outputs = llada.sample(&requests, &mut |_| ControlFlow::Continue(()))?;
    let text = |output: &llada::sample::Output| {
        let answer = output.answer();
        let end = answer.iter().position(|&id| id == info.eos_token_id);
        end.map(|end| llada.tokenizer.decode(&answer[..end], false))
            .transpose()
    };
    Ok(outputs.iter().map(text).collect::<Result<_, _>>()?)
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let Some(dir) = args.first() else {
        println!("skipped: no RUN_DIR of a model that was fine-tuned");
        return Ok(());
    };
    let file = args
        .get(1)
        .map_or("data/instructions/heldout.jsonl", String::as_str);
    let text = fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
    let all = text.lines().map(pair).collect::<anyhow::Result<Vec<_>>>()?;
    let n = args
        .get(2)
        .map_or(Ok(all.len()), |n| n.parse())?
        .min(all.len());
    let pairs: Vec<&Pair> = (0..n).map(|i| &all[i * all.len() / n]).collect();

    let device = Device::cpu(CpuConfig::default())?;
    let dir = Path::new(dir);
    let is_adapter = dir.join("adapter_config.json").is_file();
    let checkpoint = match is_adapter {
        true => Checkpoint::embedded()?.with_adapter(dir, 1.0)?,
        false => Checkpoint::open(dir)?,
    };
    let llada = checkpoint.frozen(&device, Precision::F32)?;
    let mut counts: BTreeMap<&str, Counts> = BTreeMap::new();
    for chunk in pairs.chunks(64) {
        for (pair, answer) in chunk.iter().zip(answers(&llada, chunk)?) {
            let kind = pair.prompt.split('：').next().unwrap_or_default();
            counts
                .entry(kind)
                .or_default()
                .count(pair, answer.as_deref());
        }
    }
    for (kind, counts) in &counts {
        let result = json!({
            "kind": kind, "of": counts.of, "ended_right": counts.ended, "number_of_lines": counts.lines,
            "lengths_of_lines": counts.line_lengths, "heads": counts.heads,
            "everything": counts.all, "word_for_word": counts.exact, "first": counts.shown,
        });
        println!("{result}");
    }
    Ok(())
}
