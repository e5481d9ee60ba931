//! Runs of the demo's sampler (the reference's app.py): words that are fixed in the answer.

use std::ops::ControlFlow;

use llada::sample::{Process, Request, SampleConfig, Task, sample};
use llada::{Precision, Tokenizer};

use crate::files::{Case, cases, device, ids, load, root, rows};

/// The fixed tokens within the answer; the demo drops those past its end.
fn constraints(case: &Case) -> Vec<(usize, u32)> {
    let words = case.json["constraint_ids"].as_object().unwrap().iter();
    let places = words.flat_map(|(offset, word)| (offset.parse().unwrap()..).zip(ids(word)));
    let gen_length = case.count("gen_length");
    places.filter(|&(offset, _)| offset < gen_length).collect()
}

/// The demo divides its steps among all blocks, one at least for each, and skips full blocks.
fn config(case: &Case, constraints: &[(usize, u32)]) -> SampleConfig {
    let gen_length = case.count("gen_length");
    let block_length = case.count("block_length").min(gen_length);
    let is_fixed = |at| constraints.iter().any(|&(offset, _)| offset == at);
    let starts = (0..gen_length).step_by(block_length);
    let steps_of_block = (case.count("steps") / starts.len()).max(1);
    let has_mask =
        |&start: &usize| (start..gen_length.min(start + block_length)).any(|at| !is_fixed(at));
    SampleConfig {
        steps: steps_of_block * starts.filter(has_mask).count(),
        gen_length,
        block_length: Some(block_length),
        temperature: case.number_or("temperature", 0.0),
        cfg_scale: case.number_or("cfg_scale", 0.0) as f32,
        process: Process::BlockQuota,
        ..SampleConfig::default()
    }
}

/// The request of a case.
pub(crate) fn request(case: &Case) -> Request {
    let constraints = constraints(case);
    let config = config(case, &constraints);
    let task = Task::Generate {
        prompt: ids(&case.json["prompt"]),
        suffix: Vec::new(),
        constraints,
    };
    Request::new(task, config)
}

#[test]
fn fixed_words_and_blocks_are_the_demo_s() {
    for case in cases("demo") {
        let (name, prompt) = (&case.name, ids(&case.json["prompt"]));
        let model = load(case.text("model"), &device(), Precision::F32);
        let request = request(&case);
        let mut states = Vec::new();
        let outputs = sample(&model, &[request], &mut |event| {
            states.push(event.canvas[prompt.len()..].to_vec());
            ControlFlow::Continue(())
        });
        let recorded = rows(&case.json["x_after_step"]);
        assert_eq!(states[..recorded.len()], recorded, "{name}");
        // The demo ends with the last mask; further steps change nothing.
        let rest = &states[recorded.len()..];
        assert!(
            rest.iter()
                .all(|state| state == &recorded[recorded.len() - 1]),
            "{name}"
        );
        assert_eq!(
            outputs.unwrap()[0].tokens,
            ids(&case.json["output"]),
            "{name}"
        );
    }
}

/// A word has the space before it that it would have in a text.
#[test]
fn fixed_words_are_encoded_as_the_demo_s() {
    for case in cases("demo") {
        let dir = root().join("models").join(case.text("model"));
        let tokenizer = Tokenizer::from_dir(&dir).unwrap();
        for (offset, word) in case.json["constraints"].as_object().unwrap() {
            let ours = tokenizer
                .encode(&format!(" {}", word.as_str().unwrap()))
                .unwrap();
            assert_eq!(
                ours,
                ids(&case.json["constraint_ids"][offset]),
                "{}: {word}",
                case.name
            );
        }
    }
}
