//! Recordings: that they happen, that the host is not waited for, and that they change nothing.

use std::ffi::{CStr, c_char, c_int};

use llada_diffusion::{Denoising, DenoisingStep, Keep, RankBy, RemaskRule, denoiser};
use llada_tensor::backend::{Candidate, CandidateArgs, Noise, Recorder, Rhs, Step};
use llada_tensor::ops::candidates::{CandidateRule, candidates};
use llada_tensor::{Device, Precision, Result, Tape, Tensor, Var};

use crate::support::{cpu, cuda, values};

const MASK: u32 = 40;
const VOCAB: usize = 41;
const D: usize = 16;
/// Two sequences of six tokens; all but the first two of each are masks.
const IDS: [u32; 12] = [3, 4, MASK, MASK, MASK, MASK, 9, 8, MASK, MASK, MASK, MASK];
const ROWS: [u32; 8] = [2, 3, 4, 5, 8, 9, 10, 11];

unsafe extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut u8;
    fn dlsym(library: *mut u8, name: *const c_char) -> *mut u8;
}

/// How often this thread has called a function of the driver; a real one does not tell.
pub(crate) fn calls(name: &CStr) -> Option<u64> {
    // SAFETY: strings that end with a zero byte; the library stays loaded.
    let found = unsafe { dlsym(dlopen(c"libcuda.so".as_ptr(), 1), c"ptxsim_calls".as_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: the function takes a string and returns a count.
    let calls =
        unsafe { std::mem::transmute::<*mut u8, extern "C" fn(*const c_char) -> u64>(found) };
    Some(calls(name.as_ptr()))
}

/// Hidden states of rows that depend on the whole canvas: each token's embedding, plus what its
/// left neighbor's is.
struct Toy {
    table: Tensor,
    head: Tensor,
}

impl Toy {
    fn new(device: &Device) -> Self {
        let of = |key| Tensor::from_f32(device, &[VOCAB, D], &values(key, VOCAB * D)).unwrap();
        let (table, head) = (of(1), of(2));
        Self { table, head }
    }

    fn hidden(&self, ids: &[u32], rows: &[u32], places: &[u32]) -> Result<Tensor> {
        let mut tape = Tape::inference(self.table.device(), Precision::F32);
        let table = Var::constant(self.table.clone());
        let x = tape.embedding(&table, ids)?;
        let left = tape.embedding(&x, places)?;
        let x = tape.add(&x, &left)?;
        Ok(tape.embedding(&x, rows)?.value().clone())
    }

    fn args<'a>(
        &'a self,
        hidden: &'a Tensor,
        rule: &'a CandidateRule<'a>,
        noise: &'a Noise<'a>,
    ) -> CandidateArgs<'a> {
        CandidateArgs {
            hidden,
            unconditional: None,
            head: Rhs::Weight(&self.head),
            bias: None,
            rule,
            noise,
            precision: Precision::F32,
        }
    }
}

/// Left neighbors, the first token its own.
const PLACES: [u32; 12] = [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

struct Draws {
    seeds: Vec<u64>,
    keys: Vec<[u32; 3]>,
}

impl Draws {
    fn new(step: u32) -> Self {
        let key = |&row: &u32| [row / 6, row % 6, step];
        Self {
            seeds: vec![5; ROWS.len()],
            keys: ROWS.iter().map(key).collect(),
        }
    }

    fn noise(&self, temperature: f64) -> Noise<'_> {
        match temperature > 0.0 {
            true => Noise::Philox {
                seeds: &self.seeds,
                keys: &self.keys,
            },
            false => Noise::None,
        }
    }
}

fn rules(step: usize) -> [RemaskRule; 2] {
    let rule = |rank_by, keep| RemaskRule {
        rows: 4,
        rank_by,
        keep,
    };
    [
        rule(RankBy::Confidence, Keep::Quota(1)),
        rule(RankBy::Margin, Keep::Quota([2, 0, 1, 1][step])),
    ]
}

/// The same on the CPU, step by step.
fn expected(toy: &Toy, rule: &CandidateRule<'_>) -> Vec<Vec<Candidate>> {
    let mut ids = IDS;
    let mut steps = Vec::new();
    for step in 0..4 {
        let draws = Draws::new(u32::try_from(step).unwrap());
        let hidden = toy.hidden(&ids, &ROWS, &PLACES).unwrap();
        let noise = draws.noise(rule.temperature);
        let chosen = candidates(toy.args(&hidden, rule, &noise)).unwrap();
        for (sequence, remask) in rules(step).iter().enumerate() {
            let Keep::Quota(quota) = remask.keep else {
                unreachable!()
            };
            let masked = |&at: &usize| ids[ROWS[at] as usize] == MASK;
            let mut order: Vec<usize> = (4 * sequence..4 * sequence + 4).filter(masked).collect();
            let score = |at: usize| match remask.rank_by {
                RankBy::Confidence => chosen[at].confidence,
                _ => chosen[at].margin,
            };
            order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
            for &at in order.iter().take(quota as usize) {
                ids[ROWS[at] as usize] = chosen[at].token;
            }
        }
        steps.push(chosen);
    }
    steps
}

#[test]
fn steps_are_recorded_and_do_not_wait() {
    let Some(device) = cuda() else { return };
    let (toy, on_cpu) = (Toy::new(&device), Toy::new(&cpu()));
    let denoiser = denoiser(&device).unwrap();
    for temperature in [0.0, 0.7] {
        let rule = CandidateRule {
            temperature,
            suppress: &[MASK],
            ..CandidateRule::default()
        };
        let draws = [0, 1, 2, 3].map(Draws::new);
        let rules = [0, 1, 2, 3].map(rules);
        let steps: Vec<DenoisingStep<'_>> = (draws.iter().zip(&rules))
            .map(|(draws, remask)| DenoisingStep {
                noise: draws.noise(temperature),
                remask,
            })
            .collect();
        let (ids, rows) = (IDS.to_vec(), ROWS.to_vec());
        let denoising = Denoising {
            key: &[u32::from(temperature > 0.0)],
            ids: &ids,
            rows: &rows,
            mask_token_id: MASK,
            steps: &steps,
        };
        let expected = expected(&on_cpu, &rule);
        let mut bodies = 0;
        for round in 0..2 {
            let before = [c"cuGraphLaunch", c"cuStreamSynchronize"].map(calls);
            let got = denoiser.denoise(&denoising, &mut |noise, choose| {
                bodies += 1;
                let hidden = toy.hidden(&ids, &rows, &PLACES)?;
                choose(&toy.args(&hidden, &rule, noise))
            });
            let after = [c"cuGraphLaunch", c"cuStreamSynchronize"].map(calls);
            let count = |i: usize| Some(after[i]? - before[i]?);
            // The first step runs as it is; one download at the end waits.
            let graphs = if round == 0 { 3 } else { 4 };
            assert!(count(0).is_none_or(|n| n == graphs), "{:?}", count(0));
            assert!(count(1).is_none_or(|n| n == 1), "{:?}", count(1));
            assert_eq!(bodies, 2, "as it is, and recorded");
            for (step, (got, expected)) in got.unwrap().iter().zip(&expected).enumerate() {
                for (row, (got, expected)) in got.iter().zip(expected).enumerate() {
                    let at = format!("T {temperature}, round {round}, step {step}, row {row}");
                    assert_eq!(got.token, expected.token, "{at}");
                    let apart = (got.confidence - expected.confidence).abs();
                    assert!(apart <= 1e-5, "{at}: {apart}");
                }
            }
        }
    }
}

#[test]
fn steps_whose_noise_would_repeat_are_an_error() {
    let Some(device) = cuda() else { return };
    let (draws, remask) = (Draws::new(4096), rules(0));
    let step = DenoisingStep {
        noise: draws.noise(1.0),
        remask: &remask,
    };
    let denoising = Denoising {
        key: &[4],
        ids: &IDS,
        rows: &ROWS,
        mask_token_id: MASK,
        steps: &[step],
    };
    let denoiser = denoiser(&device).unwrap();
    let got = denoiser.denoise(&denoising, &mut |_, _| unreachable!("refused before"));
    let message = got.unwrap_err().to_string();
    assert!(
        message.starts_with("candidates: there is noise for 4096 steps"),
        "{message}"
    );
}

/// A graph reads its ids where they are at each repetition; what can't be recorded runs as it is.
#[test]
fn passes_are_recorded_unless_they_copy() {
    let Some(device) = cuda() else { return };
    let (toy, on_cpu) = (Toy::new(&device), Toy::new(&cpu()));
    let recorder = device.backend().recorder().unwrap();
    for (key, copies) in [(1, false), (2, true)] {
        for round in 0..4 {
            let ids: Vec<u32> = IDS.iter().map(|id| (id + round) % MASK).collect();
            let rows = ROWS.to_vec();
            let step = Step {
                key: &[key],
                inputs: &[&ids, &rows],
            };
            let before = calls(c"cuGraphLaunch");
            let got = recorder.run(step, &mut || {
                let hidden = toy.hidden(&ids, &rows, &PLACES)?;
                if copies {
                    hidden.to_vec_f32()?;
                }
                Ok(hidden)
            });
            let launches = calls(c"cuGraphLaunch").zip(before).map(|(a, b)| a - b);
            let expected = on_cpu.hidden(&ids, &rows, &PLACES).unwrap();
            let got = got.unwrap().to_vec_f32().unwrap();
            assert_eq!(got, expected.to_vec_f32().unwrap());
            let recorded = u64::from(!copies && round > 0);
            assert!(launches.is_none_or(|n| n == recorded), "{launches:?}");
        }
    }
}

/// Recordings share memory: the output of the second one lies where the first one puts what it
/// computes on its way.
#[test]
fn threads_that_repeat_at_the_same_time_do_not_meet() {
    type Body = fn(&Toy, &[u32], &[u32]) -> Result<Tensor>;
    const MANY: Body = |toy, ids, rows| {
        for _ in 0..20 {
            toy.hidden(ids, rows, &PLACES)?;
        }
        toy.hidden(ids, rows, &PLACES)
    };
    const ONE: Body = |toy, _, rows| {
        let mut tape = Tape::inference(toy.table.device(), Precision::F32);
        let table = Var::constant(toy.table.clone());
        Ok(tape.embedding(&table, rows)?.value().clone())
    };
    let Some(device) = cuda() else { return };
    let (toy, on_cpu) = (&Toy::new(&device), Toy::new(&cpu()));
    let (ids, rows) = (IDS.to_vec(), (0..12).collect::<Vec<u32>>());
    let run = |recorder: &dyn Recorder, body: Body| {
        let step = Step {
            key: &[3],
            inputs: &[&ids, &rows],
        };
        let got = recorder.run(step, &mut || body(toy, &ids, &rows)).unwrap();
        got.to_vec_f32().unwrap()
    };
    let recorders = [MANY, ONE, ONE, ONE].map(|body| {
        let recorder = device.backend().recorder().unwrap();
        for _ in 0..2 {
            run(&*recorder, body);
        }
        (recorder, body)
    });
    std::thread::scope(|scope| {
        for (recorder, body) in &recorders {
            let expected = body(&on_cpu, &ids, &rows).unwrap().to_vec_f32().unwrap();
            let run = &run;
            scope.spawn(move || {
                for _ in 0..300 {
                    assert!(run(&**recorder, *body) == expected);
                }
            });
        }
    });
}
