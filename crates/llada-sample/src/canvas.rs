//! The canvas of a request at its start.

use std::ops::Range;

use llada_diffusion::PredictorInfo;

use crate::{Error, Request, Result, Task};

/// The canvas at the start, checked, and where its answer is.
pub(crate) fn canvas(
    index: usize,
    request: &Request,
    info: &PredictorInfo,
) -> Result<(Vec<u32>, Range<usize>)> {
    type Given<'a> = (&'a [u32], usize, &'a [u32], &'a [(usize, u32)]);
    let (given, gen_length, suffix, constraints): Given<'_> = match &request.task {
        Task::Generate {
            prompt,
            suffix,
            constraints,
        } => (prompt, request.config.gen_length, suffix, constraints),
        Task::Infill { canvas, suffix } => (canvas, 0, suffix, &[]),
    };
    let max_sequence_length = info.max_sequence_length;
    let length = request.length();
    if length > max_sequence_length {
        return Err(Error::TooLong {
            request: index,
            length,
            max_sequence_length,
        });
    }
    let masks = std::iter::repeat_n(&info.mask_token_id, gen_length);
    let mut canvas: Vec<u32> = given.iter().chain(masks).chain(suffix).copied().collect();
    for &(offset, id) in constraints {
        if offset >= gen_length {
            return Err(Error::OutOfRange {
                request: index,
                what: "the offset of a constraint",
                expected: "less than gen_length",
                got: offset as f64,
            });
        }
        canvas[given.len() + offset] = id;
    }
    let is_token = |id: u32| (id as usize) < info.vocab_size || id == info.mask_token_id;
    if let Some(position) = canvas.iter().position(|&id| !is_token(id)) {
        let (id, vocab_size) = (canvas[position], info.vocab_size);
        return Err(Error::TokenOutOfRange {
            request: index,
            id,
            position,
            vocab_size,
        });
    }
    let answer = match &request.task {
        Task::Generate { .. } => given.len()..given.len() + gen_length,
        Task::Infill { .. } => 0..given.len(),
    };
    Ok((canvas, answer))
}

/// Checks the sets of a request: at masks, and with a token to choose in each.
pub(crate) fn check_allowed(
    index: usize,
    request: &Request,
    canvas: &[u32],
    info: &PredictorInfo,
) -> Result<()> {
    let config = &request.config;
    let is_never = |id: u32| {
        config.logits_eos_inf.contains(&id) || config.suppress_mask && id == info.mask_token_id
    };
    for (&position, set) in &request.allowed {
        let fault = |what| Error::Allowed {
            request: index,
            position,
            what,
        };
        if canvas.get(position) != Some(&info.mask_token_id) {
            return Err(fault("there is no mask"));
        }
        if set.ids().all(is_never) {
            return Err(fault("none of its tokens can be chosen"));
        }
        let vocab_size = info.vocab_size;
        if let Some(id) = set.ids().find(|&id| id as usize >= vocab_size) {
            return Err(Error::TokenOutOfRange {
                request: index,
                id,
                position,
                vocab_size,
            });
        }
    }
    Ok(())
}

/// The positions that blocks are cut from: the answer, or the text from its first to its last mask.
pub(crate) fn span(
    index: usize,
    request: &Request,
    is_masked: &[bool],
    answer: &Range<usize>,
) -> Result<Range<usize>> {
    match request.task {
        Task::Generate { .. } if answer.is_empty() => Err(Error::OutOfRange {
            request: index,
            what: "gen_length",
            expected: "at least 1",
            got: 0.0,
        }),
        Task::Generate { .. } => Ok(answer.clone()),
        Task::Infill { .. } => {
            let first = is_masked.iter().position(|&masked| masked);
            let last = is_masked.iter().rposition(|&masked| masked);
            let ends = first.zip(last).ok_or(Error::NoMask { request: index })?;
            Ok(ends.0..ends.1 + 1)
        }
    }
}
