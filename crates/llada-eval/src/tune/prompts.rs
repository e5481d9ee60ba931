//! Prompts for a model of which none are given.

use llada_sample::{Overrides, Request, SampleConfig};

use crate::{Result, Subject};

/// Texts of `n_lines` lines of `line` tokens that the model draws itself, and of each its first
/// line: prompts that it has something to say to, many of them beginnings of texts that it knows.
///
/// # Errors
/// If the model fails.
pub fn drawn_lines(
    subject: &Subject<'_>,
    n: usize,
    line: usize,
    n_lines: usize,
) -> Result<Vec<Vec<u32>>> {
    let request = |seed: usize| -> Result<Request> {
        let length = line * n_lines;
        let overrides = Overrides {
            gen_length: Some(length),
            steps: Some(length + line),
            block_length: Some(line),
            temperature: 0.8,
            seed: seed as u64,
            logits_eos_inf: true,
            suppress_mask: Some(true),
            ..Overrides::default()
        };
        let task = Request::generate(Vec::new(), SampleConfig::default()).task;
        Ok(subject.policy.request(task, true, &overrides)?)
    };
    let requests: Vec<Request> = (0..n).map(request).collect::<Result<_>>()?;
    let outputs = subject.sample(&requests)?;
    Ok(outputs
        .iter()
        .map(|output| output.tokens[..line].to_vec())
        .collect())
}
