//! Places at which only some tokens may stand.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use llada_diffusion::{
    Candidates, Choice, MaskPredictor, Nucleus, PredictorInfo, Query, TokenBatch, TokenSet,
};
use llada_sample::{Output, Process, Remasking, Request, SampleConfig, Session, StepEvent, sample};
use llada_testkit::ToyPredictor;

const MASK: u32 = 15;
const PROMPT: [u32; 3] = [1, 4, 2];

fn toy() -> ToyPredictor {
    ToyPredictor::new(16, 64, 3)
}

fn set(ids: &[u32]) -> Arc<TokenSet> {
    Arc::new(TokenSet::new(16, |id| ids.contains(&id)))
}

fn config() -> SampleConfig {
    SampleConfig {
        gen_length: 6,
        steps: 6,
        block_length: None,
        suppress_mask: true,
        ..SampleConfig::default()
    }
}

/// A request with the same set at each place of its answer.
fn everywhere(ids: &[u32], config: SampleConfig) -> Request {
    let places = PROMPT.len()..PROMPT.len() + config.gen_length;
    Request {
        allowed: places.map(|at| (at, set(ids))).collect(),
        ..Request::generate(PROMPT.to_vec(), config)
    }
}

/// The output, and all tokens with their confidences in the order in which they were revealed.
fn run(request: Request) -> (Output, Vec<(usize, u32, f32)>) {
    let mut revealed = Vec::new();
    let mut observer = |event: &StepEvent<'_>| {
        let of_step = event.revealed.iter();
        revealed.extend(of_step.map(|x| (x.position, x.token, x.confidence)));
        ControlFlow::Continue(())
    };
    let mut outputs = sample(&toy(), &[request], &mut observer).unwrap();
    (outputs.remove(0), revealed)
}

/// Settings that all choose in another way.
fn settings() -> Vec<SampleConfig> {
    let with = |change: &dyn Fn(&mut SampleConfig)| {
        let mut config = config();
        change(&mut config);
        config
    };
    vec![
        config(),
        with(&|c| c.steps = 2),
        with(&|c| c.block_length = Some(2)),
        with(&|c| c.remasking = Remasking::Margin),
        with(&|c| c.remasking = Remasking::Entropy),
        with(&|c| c.remasking = Remasking::Random),
        with(&|c| c.cfg_scale = 1.5),
        with(&|c| c.temperature = 1.3),
        with(&|c| (c.temperature, c.cfg_scale) = (0.7, 0.5)),
        with(&|c| c.process = Process::Threshold(0.4)),
        with(&|c| (c.process, c.temperature) = (Process::Reverse, 1.0)),
    ]
}

#[test]
fn the_same_set_everywhere_is_that_the_others_are_suppressed() {
    let ids = [0, 3, 4, 9, 12];
    let others: Vec<u32> = (0..15).filter(|id| !ids.contains(id)).collect();
    for config in settings() {
        let suppressed = SampleConfig {
            logits_eos_inf: others.clone(),
            ..config.clone()
        };
        let expected = run(Request::generate(PROMPT.to_vec(), suppressed));
        let found = run(everywhere(&ids, config.clone()));
        assert_eq!(found, expected, "{config:?}");
        assert!(found.0.answer().iter().all(|id| ids.contains(id)));
        // The sets change something.
        assert_ne!(run(Request::generate(PROMPT.to_vec(), config)), found);
    }
}

#[test]
fn each_place_has_a_set_of_its_own() {
    let canvas = [1, MASK, MASK, 7, MASK, MASK, 2];
    let allowed = BTreeMap::from([(1, set(&[3, 5])), (2, set(&[14])), (5, set(&[0, 1, 2]))]);
    for config in settings() {
        let request = Request {
            allowed: allowed.clone(),
            ..Request::infill(canvas.to_vec(), config)
        };
        let tokens = run(request).0.tokens;
        assert!(allowed.iter().all(|(&at, set)| set.contains(tokens[at])));
        assert!(!tokens.contains(&MASK));
        assert_eq!([tokens[0], tokens[3], tokens[6]], [1, 7, 2]);
    }
}

#[test]
fn probabilities_are_over_the_set() {
    let toy = toy();
    let batch = TokenBatch::new(&[[&PROMPT[..], &[MASK]].concat()]).unwrap();
    let logits = toy.logits(Query::new(&batch, &[3])).unwrap();
    let ids = [2, 6, 11];
    let weights = ids.map(|id| f64::from(logits[id as usize]).exp());
    let sum: f64 = weights.iter().sum();
    let config = SampleConfig {
        gen_length: 1,
        steps: 1,
        ..config()
    };
    let (_, revealed) = run(everywhere(&ids, config.clone()));
    let best = (0..3).max_by(|&a, &b| weights[a].total_cmp(&weights[b]));
    let best = best.unwrap();
    assert_eq!((revealed[0].0, revealed[0].1), (3, ids[best]));
    let confidence = (weights[best] / sum) as f32;
    assert!((revealed[0].2 - confidence).abs() < 1e-6, "{revealed:?}");
    // A nucleus is one of the set.
    let drawn = |seed| {
        let nucleus = Nucleus {
            top_k: Some(2),
            top_p: None,
        };
        let config = SampleConfig {
            temperature: 3.0,
            nucleus,
            seed,
            ..config.clone()
        };
        run(everywhere(&ids, config)).0.answer()[0]
    };
    let worst = (0..3).min_by(|&a, &b| weights[a].total_cmp(&weights[b]));
    let worst = ids[worst.unwrap()];
    let drawn: Vec<u32> = (0..40).map(drawn).collect();
    let kept: Vec<u32> = ids.into_iter().filter(|&id| id != worst).collect();
    assert!(drawn.iter().all(|id| kept.contains(id)), "{drawn:?}");
    assert!(kept.iter().all(|id| drawn.contains(id)), "{drawn:?}");
}

#[test]
fn batch_mates_change_nothing() {
    let requests: Vec<Request> = settings()
        .into_iter()
        .enumerate()
        .map(|(at, config)| match at % 3 {
            0 => everywhere(&[1, 5, 8, 13], config),
            1 => Request::generate(PROMPT.to_vec(), config),
            _ => Request {
                allowed: BTreeMap::from([(4, set(&[6, 7])), (5, set(&[0]))]),
                ..Request::generate(PROMPT.to_vec(), config)
            },
        })
        .collect();
    let toy = toy();
    let mut session = Session::new(&toy);
    for request in &requests {
        session.submit(request.clone()).unwrap();
    }
    let mut events: Vec<Vec<(usize, u32, f32)>> = vec![Vec::new(); requests.len()];
    let mut outputs: Vec<Option<Output>> = vec![None; requests.len()];
    while session.n_requests() > 0 {
        let ended = session.step(&mut |event| {
            let of_step = event.revealed.iter();
            let of_step = of_step.map(|x| (x.position, x.token, x.confidence));
            events[event.request].extend(of_step);
            ControlFlow::Continue(())
        });
        for end in ended {
            outputs[end.request] = Some(end.result.unwrap());
        }
    }
    for ((request, output), events) in requests.into_iter().zip(outputs).zip(events) {
        assert_eq!(run(request), (output.unwrap(), events));
    }
}

/// Counts how it is asked.
struct Watched {
    toy: ToyPredictor,
    logits: Cell<usize>,
    candidates: Cell<usize>,
}

impl MaskPredictor for Watched {
    fn info(&self) -> PredictorInfo {
        self.toy.info()
    }

    fn logits(&self, query: Query<'_>) -> llada_diffusion::Result<Vec<f32>> {
        self.logits.set(self.logits.get() + 1);
        self.toy.logits(query)
    }

    fn candidates(
        &self,
        query: Query<'_>,
        choice: &Choice<'_>,
    ) -> llada_diffusion::Result<Candidates> {
        self.candidates.set(self.candidates.get() + 1);
        self.toy.candidates(query, choice)
    }

    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> llada_diffusion::Result<Vec<f32>> {
        self.toy.token_losses(query, targets)
    }
}

#[test]
fn requests_without_sets_are_asked_as_before() {
    let watched = Watched {
        toy: toy(),
        logits: Cell::new(0),
        candidates: Cell::new(0),
    };
    let free = Request::generate(PROMPT.to_vec(), config());
    let bound = everywhere(&[1, 2], config());
    let memory = |request: &Request| request.memory(&watched.info()).logits_bytes;
    assert_eq!((memory(&free), memory(&bound)), (0, 6 * 16 * 4));
    let nothing = &mut |_: &StepEvent<'_>| ControlFlow::Continue(());
    sample(&watched, &[free, bound], nothing).unwrap();
    assert_eq!((watched.candidates.get(), watched.logits.get()), (6, 6));
}

#[test]
fn sets_that_cannot_be_chosen_from_are_refused() {
    #[track_caller]
    fn check(position: usize, set: TokenSet, config: SampleConfig, message: &str) {
        let request = Request {
            allowed: BTreeMap::from([(position, Arc::new(set))]),
            ..Request::generate(PROMPT.to_vec(), config)
        };
        let toy = toy();
        let error = Session::new(&toy).submit(request).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    let of = |ids: &'static [u32]| TokenSet::new(16, |id| ids.contains(&id));
    let empty = "request 0: tokens are allowed at position 3, but none of its tokens can be chosen";
    check(3, of(&[]), config(), empty);
    check(3, of(&[MASK]), config(), empty);
    let without_eos = SampleConfig {
        logits_eos_inf: vec![14],
        ..config()
    };
    check(3, of(&[14, MASK]), without_eos, empty);
    for position in [0, 2, 9, 1000] {
        let message =
            format!("request 0: tokens are allowed at position {position}, but there is no mask");
        check(position, of(&[1]), config(), &message);
    }
    check(
        4,
        TokenSet::new(20, |id| id == 1 || id == 17),
        config(),
        "request 0: token id 17 at position 4 is outside the vocabulary of 16",
    );
    let toy = toy().autoregressive();
    let error = Session::new(&toy).submit(everywhere(&[1], config()));
    let message = error.unwrap_err().to_string();
    assert!(message.starts_with("request 0: allowed tokens cannot be used with an autoregressive"));
}
