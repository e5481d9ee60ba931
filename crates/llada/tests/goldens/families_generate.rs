//! Runs of the published loops of every family: the same tokens after every step.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use llada::diffusion::{MaskPredictor, Nucleus};
use llada::sample::{
    CacheMode, Draws, Edit, EndThink, Horizon, Output, Process, RecordedDraws, Request,
    SampleConfig, StepEvent, Task, sample,
};
use llada::{LladaModel, Precision, Tokenizer};
use serde_json::Value;

use crate::families::{Family, families};
use crate::files::{Case, device, ids, rows};

/// Which loop a case was recorded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Loop {
    /// generate.py.
    Llada,
    /// iLLaDA's with blocks that are appended.
    Variable,
    /// LLaDA2.0.
    Blocks,
    /// LLaDA2.1.
    Editing,
    /// LLaDA2.2.
    Rewriting,
    /// `diffusion_generate`.
    Dream,
}

impl Loop {
    const ALL: [Self; 6] = [
        Self::Llada,
        Self::Variable,
        Self::Blocks,
        Self::Editing,
        Self::Rewriting,
        Self::Dream,
    ];

    fn of(case: &Case) -> Self {
        let text = |key: &str| case.has(key).then(|| case.text(key));
        match (text("alg"), text("version"), text("protocol")) {
            (Some(_), ..) => Self::Dream,
            (_, Some(version), _) if version.starts_with("2.0") => Self::Blocks,
            (_, Some(version), _) if version.starts_with("2.1") => Self::Editing,
            _ if case.has("split_token_id") => Self::Rewriting,
            (_, _, Some("variable_length")) => Self::Variable,
            _ => Self::Llada,
        }
    }

    fn is_by_blocks(self) -> bool {
        matches!(self, Self::Blocks | Self::Editing | Self::Rewriting)
    }

    fn process(self, case: &Case) -> Process {
        let number = |key: &str| case.number(key) as f32;
        let id = |key: &str| case.count(key) as u32;
        match self {
            Self::Llada | Self::Variable => Process::Quota,
            Self::Blocks => Process::BlockDiffusion {
                threshold: number("threshold"),
                minimal_topk: case.number_or("minimal_topk", 1.0) as usize,
            },
            Self::Editing => Process::Editing {
                threshold: number("threshold"),
                editing_threshold: number("editing_threshold"),
                max_post_steps: case.count("max_post_steps"),
                num_to_transfer: case.number_or("num_to_transfer", 1.0) as usize,
            },
            Self::Rewriting => Process::Rewriting {
                threshold: number("threshold"),
                editing_threshold: number("editing_threshold"),
                max_post_steps: case.count("max_post_steps"),
                delete_token_id: id("delete_token_id"),
                split_token_id: id("split_token_id"),
            },
            Self::Dream => Process::Timestep {
                eps: number("eps"),
                alg: case.text("alg").parse().unwrap(),
                alg_temp: case.number_or("alg_temp", 0.0) as f32,
            },
        }
    }

    fn config(self, case: &Case) -> SampleConfig {
        let prompt_len = rows_or_row(&case.json["prompt"])[0].len();
        let gen_length = match self {
            Self::Dream => case.count("max_new_tokens"),
            Self::Rewriting => ids(&case.json["canvas"]).len() - prompt_len,
            _ => case.count("gen_length"),
        };
        let end_think = case.has("end_think").then(|| {
            let of = &case.json["end_think"];
            EndThink {
                token_ids: ids(&of["token_ids"]),
                logit_boost: of["logit_boost"].as_f64().unwrap() as f32,
                power: of["power"].as_f64().unwrap() as f32,
            }
        });
        SampleConfig {
            // Of LLaDA2.1 they have no effect.
            steps: case.number_or("steps", 1.0) as usize,
            gen_length,
            block_length: case.has("block_length").then(|| case.count("block_length")),
            horizon: match self {
                Self::Llada | Self::Dream => Horizon::Canvas,
                Self::Variable => Horizon::Block,
                Self::Blocks | Self::Editing | Self::Rewriting => Horizon::AlignedBlock,
            },
            temperature: case.number_or("temperature", 0.0),
            nucleus: Nucleus {
                top_k: case.has("top_k").then(|| case.count("top_k")),
                top_p: case.has("top_p").then(|| case.number("top_p")),
            },
            cfg_scale: case.number_or("cfg_scale", 0.0) as f32,
            process: self.process(case),
            early_stop: case.flag("eos_early_stop"),
            end_think,
            ..SampleConfig::default()
        }
    }

    /// The part of a canvas that is recorded of a step.
    fn recorded_part(self, event: &StepEvent<'_>, prompt_len: usize) -> Vec<u32> {
        let end = event.window.end;
        match self {
            Self::Llada => event.canvas[prompt_len..].to_vec(),
            Self::Variable => event.canvas[prompt_len..end].to_vec(),
            Self::Blocks | Self::Editing | Self::Rewriting => {
                event.canvas[event.window.clone()].to_vec()
            }
            Self::Dream => event.canvas.to_vec(),
        }
    }
}

/// One row of a case.
struct Row {
    request: Request,
    /// What is recorded after each step.
    states: Vec<Vec<u32>>,
    /// All that comes out, or the answer alone.
    output: Vec<u32>,
}

/// Token ids of several rows, or of one.
fn rows_or_row(value: &Value) -> Vec<Vec<u32>> {
    match value[0].is_array() {
        true => rows(value),
        false => vec![ids(value)],
    }
}

/// Columns of padding before a prompt.
fn padding(case: &Case, row: usize) -> usize {
    if !case.json["attention_mask"].is_array() {
        return 0;
    }
    let mask = &rows_or_row(&case.json["attention_mask"])[row];
    let padding = mask.iter().take_while(|&&keep| keep == 0).count();
    assert!(
        mask[padding..].iter().all(|&keep| keep == 1),
        "padding is on the left"
    );
    padding
}

/// The rows of a case, or why they can't be replayed one by one.
fn table(case: &Case, kind: Loop) -> Result<Vec<Row>, &'static str> {
    let prompts = rows_or_row(&case.json["prompt"]);
    let (steps, output) = match kind {
        Loop::Blocks | Loop::Editing | Loop::Rewriting => ("trail", "output"),
        _ => ("x_after_step", "output"),
    };
    let steps: Vec<Vec<Vec<u32>>> = (case.json[steps].as_array().unwrap().iter())
        .map(|step| {
            rows_or_row(if kind.is_by_blocks() {
                &step["after"]
            } else {
                step
            })
        })
        .collect();
    let outputs = match kind {
        Loop::Rewriting => rows_or_row(&case.json["canvas"]),
        _ => rows_or_row(&case.json[output]),
    };
    let mask = case.count("mask_id") as u32;
    if kind == Loop::Dream && !case.has("uniform") {
        // The number of masks is divided by that of rows.
        let n_masks = |row: &Vec<u32>| row.iter().filter(|&&id| id == mask).count();
        let is_even =
            |rows: &Vec<Vec<u32>>| rows.iter().all(|row| n_masks(row) == n_masks(&rows[0]));
        if !is_even(&prompts) || !steps.iter().all(is_even) {
            return Err("its rows have different numbers of masks");
        }
    }
    let mut draws = recorded_draws(case, kind, &prompts, &steps, mask);
    let row = |(row, prompt): (usize, &Vec<u32>)| {
        let skip = padding(case, row);
        // What is recorded of an answer has no padding.
        let hidden = if kind == Loop::Dream { skip } else { 0 };
        let request = Request::generate(prompt[skip..].to_vec(), kind.config(case));
        Row {
            request: Request {
                draws: draws.get_mut(row).map_or(Draws::Philox, |draws| {
                    Draws::Recorded(RecordedDraws {
                        remask: std::mem::take(draws),
                        ..RecordedDraws::default()
                    })
                }),
                ..request
            },
            states: steps
                .iter()
                .map(|rows| rows[row][hidden..].to_vec())
                .collect(),
            output: outputs[row][if kind.is_by_blocks() { 0 } else { skip }..].to_vec(),
        }
    };
    Ok(prompts.iter().enumerate().map(row).collect())
}

/// The uniform draws of each row, `[steps, L]`: recorded is one for each mask, row by row.
fn recorded_draws(
    case: &Case,
    kind: Loop,
    prompts: &[Vec<u32>],
    steps: &[Vec<Vec<u32>>],
    mask: u32,
) -> Vec<Vec<f32>> {
    if !case.has("uniform") {
        return Vec::new();
    }
    let n = kind.config(case).gen_length;
    let begin = prompts.iter().map(|prompt| {
        let masks = std::iter::repeat_n(mask, n);
        prompt.iter().copied().chain(masks).collect()
    });
    let mut before: Vec<Vec<u32>> = begin.collect();
    let mut draws = vec![Vec::new(); prompts.len()];
    let recorded = case.json["uniform"].as_array().unwrap();
    assert_eq!(recorded.len(), steps.len(), "{}", case.name);
    for (step, after) in recorded.iter().zip(steps) {
        let mut of_step = step.as_array().unwrap().iter();
        for (row, canvas) in before.iter().enumerate() {
            let draw = |&id: &u32| match id == mask {
                true => of_step.next().unwrap().as_f64().unwrap() as f32,
                false => 0.0,
            };
            let skip = padding(case, row);
            draws[row].extend(canvas[skip..].iter().map(draw));
        }
        assert!(
            of_step.next().is_none(),
            "{}: a draw for each mask",
            case.name
        );
        before.clone_from(after);
    }
    draws
}

fn prompt_len(request: &Request) -> usize {
    match &request.task {
        Task::Generate { prompt, .. } => prompt.len(),
        Task::Infill { .. } => 0,
    }
}

/// A run, with what is recorded of each step.
struct Replayed {
    output: Output,
    states: Vec<Vec<u32>>,
    /// Where the block of each step ends.
    ends: Vec<usize>,
    /// The whole canvas after the last step.
    canvas: Vec<u32>,
    /// Tokens that others took the place of.
    n_replaced: usize,
    /// What the answer said at the end of the last block.
    text: String,
}

fn replay(
    model: &LladaModel,
    kind: Loop,
    request: &Request,
    stops: Option<(&Tokenizer, &[String])>,
) -> Replayed {
    let prompt_len = prompt_len(request);
    let (mut states, mut ends, mut canvas) = (Vec::new(), Vec::new(), Vec::new());
    let (mut n_replaced, mut text) = (0, String::new());
    let requests = std::slice::from_ref(request);
    let mut outputs = sample(model, requests, &mut |event| {
        states.push(kind.recorded_part(event, prompt_len));
        ends.push(event.window.end);
        canvas = event.canvas.to_vec();
        let replaced = (event.edits.iter()).filter(|edit| matches!(edit, Edit::Replaced { .. }));
        n_replaced += replaced.count();
        if let Some((tokenizer, stops)) = stops
            && event.ends_block
        {
            let answer = &event.canvas[prompt_len..event.window.end];
            text = tokenizer.decode(answer, false).unwrap();
            if stops.iter().any(|stop| text.contains(stop)) {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    Replayed {
        output: outputs.remove(0),
        states,
        ends,
        canvas,
        n_replaced,
        text,
    }
}

/// The tokenizer and the stop strings of a case that has some.
fn stops(family: &Family, case: &Case) -> Option<(Tokenizer, Vec<String>)> {
    let stops = case.json.get("stop_strings")?.as_array().unwrap().iter();
    let stops = stops
        .map(|stop| stop.as_str().unwrap().to_owned())
        .collect();
    // One tokenizer serves all models of a family.
    let folders = std::fs::read_dir(family.path("models")).unwrap();
    let files = folders.map(|folder| folder.unwrap().path().join("tokenizer.json"));
    let file = files.into_iter().find(|file| file.is_file()).unwrap();
    Some((Tokenizer::from_file(&file).unwrap(), stops))
}

/// Whether a case was replayed, or what differs.
#[expect(clippy::print_stdout, reason = "tells what is skipped")]
fn check(family: &Family, case: &Case, precision: Precision) -> Result<bool, String> {
    let kind = Loop::of(case);
    let name = &case.name;
    let table = match table(case, kind) {
        Ok(table) => table,
        Err(reason) => {
            println!("skipped: {name}: {reason}");
            return Ok(false);
        }
    };
    let model = load(family, case, precision);
    let stops = stops(family, case);
    let stops = stops
        .as_ref()
        .map(|(tokenizer, stops)| (tokenizer, &stops[..]));
    for (index, mut row) in table.into_iter().enumerate() {
        fit(&mut row.request, kind, &model);
        let run = replay(&model, kind, &row.request, stops);
        // Steps that reveal nothing are recorded too.
        for (step, (ours, recorded)) in run.states.iter().zip(&row.states).enumerate() {
            if ours != recorded {
                return Err(format!(
                    "{name}: row {index} after step {step}: {ours:?}, not {recorded:?}"
                ));
            }
        }
        let (ours, recorded) = (run.states.len(), row.states.len());
        if ours != recorded {
            return Err(format!("{name}: row {index}: {ours} steps, not {recorded}"));
        }
        let output = match kind {
            Loop::Blocks | Loop::Editing => run.output.answer(),
            Loop::Rewriting => &run.canvas,
            Loop::Llada | Loop::Variable | Loop::Dream => &run.output.tokens,
        };
        assert_eq!(output, row.output, "{name}: row {index}");
        if case.has("edits") {
            assert_eq!(
                run.n_replaced,
                case.count("edits"),
                "{name}: replaced tokens"
            );
        }
        check_text(case, &run, stops.map(|(_, stops)| stops));
        if kind.is_by_blocks() && precision == Precision::F32 {
            check_cached(case, &model, kind, &row.request, &run);
        }
    }
    Ok(true)
}

/// The model of a case.
fn load(family: &Family, case: &Case, precision: Precision) -> LladaModel {
    let model = family.load(case.text("model"), &device(), precision);
    let size = (Loop::of(case).is_by_blocks()).then(|| case.count("block_length"));
    match size.and_then(NonZeroUsize::new) {
        Some(size) => model.block_causal(size).unwrap(),
        None => model,
    }
}

/// An answer has the blocks that there is room for.
fn fit(request: &mut Request, kind: Loop, model: &LladaModel) {
    if kind == Loop::Variable {
        let room = model.info().max_sequence_length - prompt_len(request);
        request.config.gen_length = request.config.gen_length.min(room);
    }
}

/// All that can be replayed, with the model and the rows of each.
pub(crate) fn requests() -> impl Iterator<Item = (String, LladaModel, Vec<Request>)> {
    all().into_iter().filter_map(|(family, case)| {
        let kind = Loop::of(&case);
        let model = load(&family, &case, Precision::F32);
        let mut requests: Vec<Request> = (table(&case, kind).ok()?.into_iter())
            .map(|row| row.request)
            .collect();
        for request in &mut requests {
            fit(request, kind, &model);
        }
        Some((case.name, model, requests))
    })
}

/// The text of an answer of variable length, up to the first string that stops it.
fn check_text(case: &Case, run: &Replayed, stops: Option<&[String]>) {
    let Some(stops) = stops else {
        return;
    };
    assert_eq!(run.text, case.text("decoded"), "{}", case.name);
    let ends = stops.iter().filter_map(|stop| run.text.find(stop));
    let answer = &run.text[..ends.min().unwrap_or(run.text.len())];
    assert_eq!(answer, case.text("answer_text"), "{}", case.name);
}

/// With caches the same tokens are written after every step, and fewer rows are computed.
fn check_cached(case: &Case, model: &LladaModel, kind: Loop, request: &Request, run: &Replayed) {
    let mut request = request.clone();
    request.config.cache = CacheMode::Prefix;
    let cached = replay(model, kind, &request, None);
    assert_eq!(cached.states, run.states, "{}: with a cache", case.name);
    assert_eq!(cached.output.tokens, run.output.tokens);
    // The first call of a block has the rows of the block before, too.
    let size = case.count("block_length");
    let begins = std::iter::once(0).chain(run.ends.iter().map(|end| end - size));
    let rows = run.ends.iter().zip(begins).map(|(end, begin)| end - begin);
    assert_eq!(cached.output.rows, rows.sum::<usize>(), "{}", case.name);
}

/// Whether a case must be met, and not only be told about.
fn is_binding(case: &Case) -> bool {
    let text = |key: &str| {
        case.json
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    !text("status").starts_with("informative") && !text("mask").contains("informative")
}

/// Whether the weights are in bf16, whose ties may fall otherwise.
fn is_bf16(family: &Family, case: &Case) -> bool {
    let path = family.path(&format!("models/{}/config.json", case.text("model")));
    let config: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    config["torch_dtype"] == "bfloat16" || config["dtype"] == "bfloat16"
}

/// All cases; on another device than the processor, which may be a slow one in software, of each
/// family, loop and type of weights the one with the fewest calls.
fn all() -> Vec<(Family, Case)> {
    let of = |family: Family| {
        let cases = family.cases("generate").into_iter();
        cases
            .map(move |case| (family.clone(), case))
            .collect::<Vec<_>>()
    };
    let all: Vec<(Family, Case)> = families().into_iter().flat_map(of).collect();
    if std::env::var_os("LLADA_DEVICE").is_none() {
        return all;
    }
    let calls = |case: &Case| {
        let recorded = ["x_after_step", "trail"].map(|key| case.json[key].as_array());
        recorded.into_iter().flatten().map(Vec::len).sum::<usize>()
    };
    let mut fewest: BTreeMap<(String, Loop, bool), (Family, Case)> = BTreeMap::new();
    for (family, case) in all
        .into_iter()
        .filter(|(_, case)| is_binding(case) || case.has("split_token_id"))
    {
        let key = (
            family.name.clone(),
            Loop::of(&case),
            is_bf16(&family, &case),
        );
        let is_fewer = |(_, other): &(Family, Case)| calls(&case) < calls(other);
        if fewest.get(&key).is_none_or(is_fewer) {
            fewest.insert(key, (family, case));
        }
    }
    fewest.into_values().collect()
}

#[test]
fn families_write_the_same_tokens_after_every_step() {
    let (mut failed, mut seen) = (Vec::new(), Vec::new());
    for (family, case) in all() {
        let kind = Loop::of(&case);
        if case
            .json
            .get("mask")
            .and_then(Value::as_str)
            .is_some_and(|mask| mask != "strict")
        {
            println!("skipped: {}: {}", case.name, case.text("mask"));
            continue;
        }
        match check(&family, &case, Precision::F32) {
            Err(message) if is_binding(&case) && !is_bf16(&family, &case) => failed.push(message),
            Err(message) => println!("differs, as it may: {message}"),
            Ok(is_replayed) => seen.extend(is_replayed.then_some(kind)),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    for kind in Loop::ALL {
        assert!(seen.contains(&kind), "no case of {kind:?}");
    }
}

#[test]
fn families_write_much_the_same_in_bf16() {
    let (mut n, mut same) = (0, 0);
    for (family, case) in all()
        .into_iter()
        .filter(|(family, case)| is_bf16(family, case))
    {
        n += 1;
        match check(&family, &case, Precision::Bf16) {
            Err(message) => println!("differs, as it may: {message}"),
            Ok(is_replayed) => same += usize::from(is_replayed),
        }
    }
    assert!(n > 0, "no case has weights in bf16");
    assert!(same > 0, "all {n} cases differ");
}
