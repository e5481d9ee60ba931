//! A predictor that takes several steps at once gives what one gives that takes them one by one.

use std::cell::Cell;
use std::ops::ControlFlow;

use llada_diffusion::{
    Candidates, Choice, Keep, MaskPredictor, PredictorInfo, Query, RankBy, Result, TokenBatch,
    losses_by_logits,
};
use llada_sample::{Process, Remasking, Request, SampleConfig, sample};
use llada_testkit::ToyPredictor;

/// Remasks as a device does, in plain code.
struct Ahead {
    toy: ToyPredictor,
    /// Steps that were taken ahead.
    steps: Cell<usize>,
}

impl MaskPredictor for Ahead {
    fn info(&self) -> PredictorInfo {
        PredictorInfo {
            steps_at_once: 8,
            ..self.toy.info()
        }
    }

    fn logits(&self, query: Query<'_>) -> Result<Vec<f32>> {
        self.toy.logits(query)
    }

    fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> Result<Candidates> {
        if choice.ahead.is_empty() {
            return choice.by_logits(self, query);
        }
        let (batch, positions) = (query.batch, query.positions);
        let mut sequences: Vec<Vec<u32>> = batch.sequences().map(<[u32]>::to_vec).collect();
        let mask = self.info().mask_token_id;
        let mut all = Vec::new();
        for step in choice.ahead {
            let canvas = TokenBatch::new(&sequences)?;
            let noise = step.noise;
            let choice = Choice { noise, ..*choice };
            let candidates = choice.by_logits(self, Query::new(&canvas, positions))?.now;
            let mut first = 0;
            for (sequence, remask) in step.remask.iter().enumerate() {
                let start = batch.offsets()[sequence];
                let rows = first..first + remask.rows;
                first = rows.end;
                let place = |row: usize| positions[row] - start;
                let ids = &mut sequences[sequence];
                let mut order: Vec<usize> = rows.filter(|&row| ids[place(row)] == mask).collect();
                let score = |row: usize| match remask.rank_by {
                    RankBy::Confidence => candidates[row].confidence,
                    RankBy::Margin => candidates[row].margin,
                    RankBy::Entropy => -candidates[row].entropy,
                };
                order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
                let Keep::Quota(quota) = remask.keep else {
                    panic!("only quotas are known ahead")
                };
                for row in order.into_iter().take(quota as usize) {
                    ids[place(row)] = candidates[row].token;
                }
            }
            self.steps.set(self.steps.get() + 1);
            all.push(candidates);
        }
        let mut all = all.into_iter();
        Ok(Candidates {
            now: all.next().unwrap_or_default(),
            ahead: all.collect(),
        })
    }

    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> Result<Vec<f32>> {
        losses_by_logits(self, query, targets)
    }
}

/// Every step's canvas, request by request, and the outputs; the second request is stopped in its
/// fourth step.
fn run(predictor: &dyn MaskPredictor, requests: &[Request]) -> Vec<String> {
    let mut lines = vec![Vec::new(); requests.len()];
    let outputs = sample(predictor, requests, &mut |event| {
        let line = format!("{} {:?} {:?}", event.step, event.canvas, event.revealed);
        lines[event.request].push(line);
        match (event.request, event.step) {
            (1, 3) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    });
    lines.push(vec![format!("{:?}", outputs.unwrap())]);
    lines.concat()
}

#[track_caller]
fn check(config: &SampleConfig, n_ahead: usize) {
    let toy = ToyPredictor::new(16, 64, 4);
    let requests: Vec<Request> = [vec![1, 2, 3], vec![4], vec![5, 6, 7, 8, 9]]
        .into_iter()
        .map(|prompt| Request::generate(prompt, config.clone()))
        .collect();
    let ahead = Ahead {
        toy,
        steps: Cell::new(0),
    };
    let got = run(&ahead, &requests);
    assert_eq!(got, run(&toy, &requests));
    assert_eq!(ahead.steps.get(), n_ahead);
}

fn config() -> SampleConfig {
    SampleConfig {
        gen_length: 24,
        steps: 20,
        block_length: Some(12),
        suppress_mask: true,
        ..SampleConfig::default()
    }
}

#[test]
fn steps_of_quotas_are_taken_ahead() {
    // Two blocks of ten steps: eight and two.
    check(&config(), 20);
    for remasking in [Remasking::Margin, Remasking::Entropy] {
        let config = SampleConfig {
            remasking,
            temperature: 0.6,
            seed: 9,
            ..config()
        };
        check(&config, 20);
    }
    let constrained = SampleConfig {
        process: Process::BlockQuota,
        ..config()
    };
    check(&constrained, 20);
}

#[test]
fn what_the_mask_wins_stays_masked() {
    let config = SampleConfig {
        suppress_mask: false,
        ..config()
    };
    check(&config, 20);
}

#[test]
fn an_end_drops_what_was_taken_ahead() {
    let config = SampleConfig {
        early_stop: true,
        seed: 3,
        temperature: 1.0,
        ..config()
    };
    let toy = ToyPredictor::new(5, 64, 4);
    let requests = [Request::generate(vec![1, 2], config.clone())];
    let ahead = Ahead {
        toy,
        steps: Cell::new(0),
    };
    let got = run(&ahead, &requests);
    assert_eq!(got, run(&toy, &requests));
    assert!(got.last().unwrap().contains("saved_steps"), "{got:?}");
    assert!(!got.last().unwrap().contains("saved_steps: 0"), "{got:?}");
}

#[test]
fn other_steps_are_not() {
    for config in [
        SampleConfig {
            process: Process::Threshold(0.2),
            ..config()
        },
        SampleConfig {
            remasking: Remasking::Random,
            ..config()
        },
        SampleConfig {
            cfg_scale: 1.0,
            ..config()
        },
    ] {
        check(&config, 0);
    }
}
