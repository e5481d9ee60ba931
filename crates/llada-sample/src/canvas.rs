//! The canvas of a request at its start.

use std::ops::Range;

use llada_diffusion::PredictorInfo;

use crate::{CacheMode, Draws, Error, Horizon, Process, Request, Result, Task};

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
    if !suffix.is_empty() && request.config.horizon != Horizon::Canvas {
        return Err(Error::NotForProcess {
            request: index,
            what: "a suffix",
            process: "blocks that a step sees nothing after",
        });
    }
    let max_sequence_length = info.max_sequence_length;
    let length = request.length();
    if length > max_sequence_length {
        return Err(Error::TooLong {
            request: index,
            length,
            max_sequence_length,
        });
    }
    let n_masks = match &request.task {
        Task::Generate { .. } => request.config.canvas_length(given.len()) - given.len(),
        Task::Infill { .. } => 0,
    };
    // Blocks that are not whole are left out.
    let gen_length = gen_length.min(n_masks);
    let masks = std::iter::repeat_n(&info.mask_token_id, n_masks);
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

/// Checks the settings against the predictor, and the process against the task.
pub(crate) fn check_process(
    index: usize,
    request: &Request,
    canvas: &[u32],
    info: &PredictorInfo,
) -> Result<()> {
    let config = &request.config;
    let not_for = |what, process| Error::NotForProcess {
        request: index,
        what,
        process,
    };
    if let (Horizon::AlignedBlock, Some(size)) = (config.horizon, info.block_size) {
        let (expected, got) = (size.get(), config.block_length.unwrap_or(0));
        if expected != got {
            return Err(Error::BlockLength {
                request: index,
                expected,
                got,
            });
        }
        let refresh = &config.refresh;
        let is_approximate = !matches!(config.cache, CacheMode::None | CacheMode::Prefix);
        let settings = [
            ("this cache", is_approximate),
            ("prompt_interval", refresh.prompt_interval > 1),
            ("vicinity", refresh.vicinity > 0),
            ("refresh_interval", refresh.refresh_interval.is_some()),
        ];
        if let Some((what, _)) = settings.into_iter().find(|(_, is_set)| *is_set) {
            return Err(not_for(what, "a model whose prefix cache is exact"));
        }
    }
    let vocab_size = info.vocab_size;
    let ids = config.end_think.iter().flat_map(|end| &end.token_ids);
    let edit_ids = match config.process {
        Process::Rewriting {
            delete_token_id,
            split_token_id,
            ..
        } => vec![delete_token_id, split_token_id],
        _ => Vec::new(),
    };
    if let Some(&id) = (ids.chain(&edit_ids)).find(|&&id| id as usize >= vocab_size) {
        return Err(Error::TokenNotPredicted {
            request: index,
            id,
            vocab_size,
        });
    }
    if let [delete, split] = edit_ids[..]
        && (delete == split || edit_ids.contains(&info.mask_token_id))
    {
        return Err(Error::OutOfRange {
            request: index,
            what: "delete_token_id",
            expected: "another token than split_token_id, and neither the mask",
            got: f64::from(delete),
        });
    }
    if config.process.edits() {
        let is_rewriting = !edit_ids.is_empty();
        let (is_infill, constraints) = match &request.task {
            Task::Infill { .. } => (true, false),
            Task::Generate { constraints, .. } => (false, !constraints.is_empty()),
        };
        let prompt_len = match &request.task {
            Task::Generate { prompt, .. } => prompt.len(),
            Task::Infill { .. } => 0,
        };
        let has_mask = canvas[..prompt_len].contains(&info.mask_token_id);
        let settings = [
            ("infill", is_rewriting && is_infill),
            ("constraints", is_rewriting && constraints),
            ("masks in the prompt", is_rewriting && has_mask),
            (
                "allowed tokens",
                is_rewriting && !request.allowed.is_empty(),
            ),
            ("a recording of draws", request.draws != Draws::Philox),
        ];
        if let Some((what, _)) = settings.into_iter().find(|(_, is_set)| *is_set) {
            return Err(not_for(what, config.process.name()));
        }
    }
    Ok(())
}

/// The positions that blocks are cut from: the answer, or the text from its first to its last mask,
/// and of blocks that are counted from the first token whole ones.
pub(crate) fn span(
    index: usize,
    request: &Request,
    is_masked: &[bool],
    answer: &Range<usize>,
) -> Result<Range<usize>> {
    let config = &request.config;
    let length = config.block_length.unwrap_or(1);
    let whole = |span: Range<usize>| match config.horizon {
        Horizon::Canvas | Horizon::Block => span,
        Horizon::AlignedBlock => {
            let end = span.end.div_ceil(length).saturating_mul(length);
            span.start / length * length..end.min(is_masked.len())
        }
    };
    match request.task {
        Task::Generate { .. } if answer.is_empty() => Err(Error::OutOfRange {
            request: index,
            what: "gen_length",
            expected: match config.horizon {
                Horizon::Block => "at least block_length",
                Horizon::Canvas | Horizon::AlignedBlock => "at least 1",
            },
            got: config.gen_length as f64,
        }),
        Task::Generate { .. } => Ok(whole(answer.clone())),
        Task::Infill { .. } => {
            let first = is_masked.iter().position(|&masked| masked);
            let last = is_masked.iter().rposition(|&masked| masked);
            let ends = first.zip(last).ok_or(Error::NoMask { request: index })?;
            Ok(whole(ends.0..ends.1 + 1))
        }
    }
}
