//! A model of a few hundred parameters, and a run with it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use llada_diffusion::{
    Candidates, Choice, MaskPredictor, Parameter, ParameterKind, PredictorInfo, Query, TokenBatch,
    Trainable,
};
use llada_tensor::backend::Rhs;
use llada_tensor::ops::cross_entropy::cross_entropy;
use llada_tensor::{CpuConfig, Device, Philox, Precision, Stream, Tape, Tensor, Var};
use llada_text::Tokenizer;
use llada_train::{
    Communicator, Data, Observer, Result, RunFolder, Setup, Single, SpecialIds, Start, StepReport,
    Summary, TrainConfig, tokenizer_for, train,
};

const D: usize = 8;

/// Embedding, norm, linear, head: predicts a token from the one that stands in its place.
#[derive(Debug)]
pub(crate) struct Toy {
    device: Device,
    info: PredictorInfo,
    parameters: Vec<Parameter>,
    /// Steps, from 0, and a factor on their losses.
    harm: BTreeMap<u64, f32>,
    /// Steps that the run has taken.
    steps: Rc<Cell<u64>>,
}

impl Toy {
    pub(crate) fn new(vocab_size: usize, special: SpecialIds, max_sequence_length: usize) -> Self {
        let device = Device::cpu(CpuConfig {
            threads: 1,
            level: None,
        })
        .unwrap();
        let shapes: [(&str, Vec<usize>, ParameterKind); 4] = [
            ("wte.weight", vec![vocab_size, D], ParameterKind::Table),
            ("norm.weight", vec![D], ParameterKind::Vector),
            ("linear.weight", vec![D, D], ParameterKind::Matrix),
            ("head.weight", vec![vocab_size, D], ParameterKind::Table),
        ];
        let philox = Philox::new(1, Stream::Init);
        let mut parameters = Vec::new();
        for (at, (name, shape, kind)) in shapes.into_iter().enumerate() {
            let draw = |i: usize| philox.normal_pair([i as u32, at as u32, 0])[0] as f32;
            let n: usize = shape.iter().product();
            let values: Vec<f32> = (0..n)
                .map(|i| match kind {
                    ParameterKind::Vector => 1.0,
                    _ => 0.3 * draw(i),
                })
                .collect();
            let value = Tensor::from_f32(&device, &shape, &values).unwrap();
            parameters.push(Parameter {
                name: name.to_owned(),
                value,
                kind,
            });
        }
        let SpecialIds {
            mask_token_id,
            eos_token_id,
        } = special;
        let info = PredictorInfo::new(vocab_size, mask_token_id, eos_token_id, max_sequence_length);
        Self {
            device,
            info,
            parameters,
            harm: BTreeMap::new(),
            steps: Rc::default(),
        }
    }

    /// The bits of all parameters.
    pub(crate) fn bits(&self) -> Vec<u32> {
        let values = self
            .parameters
            .iter()
            .flat_map(|p| p.value.to_vec_f32().unwrap());
        values.map(f32::to_bits).collect()
    }

    fn hidden(
        &self,
        tape: &mut Tape,
        batch: &TokenBatch,
        positions: &[usize],
    ) -> llada_diffusion::Result<Var> {
        let [wte, norm, linear] =
            [0, 1, 2].map(|at| tape.parameter(at, &self.parameters[at].value));
        let ids: Vec<u32> = positions
            .iter()
            .map(|&position| batch.ids()[position])
            .collect();
        let x = tape.embedding(&wte, &ids)?;
        let x = tape.rms_norm(&x, &norm, 1e-5)?;
        Ok(tape.linear(&x, &linear, None)?)
    }
}

impl MaskPredictor for Toy {
    fn info(&self) -> PredictorInfo {
        self.info
    }

    fn logits(&self, query: Query<'_>) -> llada_diffusion::Result<Vec<f32>> {
        let mut tape = Tape::inference(&self.device, Precision::F32);
        let hidden = self.hidden(&mut tape, query.batch, query.positions)?;
        let head = tape.parameter(3, &self.parameters[3].value);
        Ok(tape
            .linear(&hidden, &head, None)?
            .value()
            .to_vec_f32()
            .unwrap())
    }

    fn candidates(
        &self,
        query: Query<'_>,
        choice: &Choice<'_>,
    ) -> llada_diffusion::Result<Candidates> {
        choice.by_logits(self, query)
    }

    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> llada_diffusion::Result<Vec<f32>> {
        let mut tape = Tape::inference(&self.device, Precision::F32);
        let hidden = self.hidden(&mut tape, query.batch, query.positions)?;
        let head = Rhs::Weight(&self.parameters[3].value);
        let losses = cross_entropy(hidden.value(), head, None, targets, Precision::F32)?.0;
        Ok(losses.to_vec_f32().unwrap())
    }
}

impl Trainable for Toy {
    fn device(&self) -> &Device {
        &self.device
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn parameters_mut(&mut self) -> &mut [Parameter] {
        &mut self.parameters
    }

    fn weighted_cross_entropy(
        &self,
        tape: &mut Tape,
        batch: &TokenBatch,
        positions: &[usize],
        targets: &[u32],
        weights: &[f32],
    ) -> llada_diffusion::Result<Var> {
        let factor = self.harm.get(&self.steps.get()).copied().unwrap_or(1.0);
        let weights: Vec<f32> = weights.iter().map(|weight| factor * weight).collect();
        let hidden = self.hidden(tape, batch, positions)?;
        let head = tape.parameter(3, &self.parameters[3].value);
        Ok(tape.cross_entropy(&hidden, &head, None, targets, &weights)?)
    }
}

/// Writes training and held-out texts.
pub(crate) fn write_texts(folder: &Path) {
    let lines = |from: usize, n: usize| -> String {
        let line = |i: usize| {
            "abcdefghij"
                .chars()
                .cycle()
                .skip(i)
                .take(3 + i % 9)
                .collect()
        };
        (from..from + n)
            .map(|i| {
                let text: String = line(i);
                text + "\n"
            })
            .collect()
    };
    fs::write(folder.join("a.txt"), lines(0, 40)).unwrap();
    fs::write(folder.join("b.txt"), lines(3, 17)).unwrap();
    fs::write(folder.join("held-out.txt"), lines(5, 9)).unwrap();
}

/// A configuration over these texts, with more lines for its section `[train]`.
pub(crate) fn config(folder: &Path, objective: &str, train_lines: &str) -> TrainConfig {
    let text = format!(
        "objective = \"{objective}\"\nseed = 5\n[data]\ntrain = [\"a.txt:0.7\", \"b.txt:0.3\"]\n\
         validation = [\"held-out.txt\"]\nsequence_length = 8\npacking = \"documents\"\n\
         [train]\nlearning_rate = 1e-2\nprecision = \"f32\"\n{train_lines}"
    );
    TrainConfig::from_toml(&text, &folder.join("config.toml")).unwrap()
}

/// A configuration of fine-tuning over the same texts as prompts and answers of all lengths.
pub(crate) fn sft_config(folder: &Path, lines: &str) -> TrainConfig {
    for name in ["a", "b", "held-out"] {
        let text = fs::read_to_string(folder.join(format!("{name}.txt"))).unwrap();
        let pair = |line: &str| {
            let (prompt, answer) = line.split_at(2);
            format!("{{\"prompt\": \"{prompt}\", \"completion\": \"{answer}\"}}\n")
        };
        let pairs: String = text.lines().map(pair).collect();
        fs::write(folder.join(format!("{name}.jsonl")), pairs).unwrap();
    }
    let text = format!(
        "seed = 5\n[data]\ntrain = [\"a.jsonl:0.7\", \"b.jsonl:0.3\"]\n\
         validation = [\"held-out.jsonl\"]\nsequence_length = 12\n\
         [train]\nlearning_rate = 1e-2\nprecision = \"f32\"\nwarmup_steps = 5\n{lines}"
    );
    TrainConfig::sft_from_toml(&text, &folder.join("config.toml")).unwrap()
}

/// Stops a run after a number of steps.
pub(crate) struct StopAfter<'a> {
    pub(crate) step: u64,
    pub(crate) stop: &'a AtomicBool,
    pub(crate) reports: Vec<StepReport>,
    steps: Rc<Cell<u64>>,
}

impl StopAfter<'_> {
    fn passed(&self, step: u64) {
        self.steps.set(step);
        if step == self.step {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

impl Observer for StopAfter<'_> {
    fn started(&mut self, start: &Start) {
        self.steps.set(start.resumed_from.unwrap_or(0));
    }

    fn stepped(&mut self, report: &StepReport) {
        self.reports.push(*report);
        self.passed(report.step);
    }

    fn skipped(&mut self, report: &StepReport, _why: &llada_train::Error) {
        self.passed(report.step);
    }
}

/// Loads the data, makes the model and trains it in `run` until `stop_after`.
pub(crate) fn run_until(
    config: &TrainConfig,
    run: &Path,
    stop_after: u64,
) -> Result<(Toy, Summary, Vec<StepReport>)> {
    run_with(config, run, stop_after, false)
}

/// As [`run_until`]; a run may be resumed with another configuration or other data.
pub(crate) fn run_with(
    config: &TrainConfig,
    run: &Path,
    stop_after: u64,
    allow_changes: bool,
) -> Result<(Toy, Summary, Vec<StepReport>)> {
    run_as(&Single, config, run, stop_after, allow_changes)
}

/// As [`run_until`]; the losses of some steps, from 0, are multiplied by a factor.
pub(crate) fn run_harmed(
    communicator: &dyn Communicator,
    config: &TrainConfig,
    run: &Path,
    stop_after: u64,
    harm: &[(u64, f32)],
) -> Result<(Toy, Summary, Vec<StepReport>)> {
    let harm = harm.iter().copied().collect();
    run_toy(communicator, config, run, stop_after, false, harm)
}

/// As [`run_with`], as one of several ranks.
pub(crate) fn run_as(
    communicator: &dyn Communicator,
    config: &TrainConfig,
    run: &Path,
    stop_after: u64,
    allow_changes: bool,
) -> Result<(Toy, Summary, Vec<StepReport>)> {
    let harm = BTreeMap::new();
    run_toy(communicator, config, run, stop_after, allow_changes, harm)
}

fn run_toy(
    communicator: &dyn Communicator,
    config: &TrainConfig,
    run: &Path,
    stop_after: u64,
    allow_changes: bool,
    harm: BTreeMap<u64, f32>,
) -> Result<(Toy, Summary, Vec<StepReport>)> {
    let run = match communicator.rank() {
        0 => RunFolder::open(run)?,
        _ => RunFolder::of_rank_0(run),
    };
    let tokenizer = match config.sft {
        Some(_) => Tokenizer::character_level(["abcdefghij"].into_iter(), 1)?,
        None => tokenizer_for(config)?,
    };
    let special = SpecialIds::of(&tokenizer)?;
    let data = match config.sft {
        Some(_) => Data::load_pairs(config, &tokenizer, None, special)?,
        None => Data::load(config, &tokenizer, special)?,
    };
    let mut model = Toy::new(tokenizer.vocab_size(), special, 64);
    model.harm = harm;
    let stop = AtomicBool::new(false);
    let ticks = Cell::new(0.0);
    let clock = || {
        ticks.set(ticks.get() + 0.5);
        ticks.get()
    };
    let setup = Setup {
        config,
        data: &data,
        run: &run,
        communicator,
        config_json: b"{}",
        clock: &clock,
        started_at: 0.0,
        stop: &stop,
        allow_changes,
    };
    let mut observer = StopAfter {
        step: stop_after,
        stop: &stop,
        reports: Vec::new(),
        steps: Rc::clone(&model.steps),
    };
    let summary = train(&mut model, &setup, &mut observer)?;
    Ok((model, summary, observer.reports))
}
