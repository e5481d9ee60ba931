//! One training step.

use std::ops::Range;

use llada_diffusion::{
    TokenBatch, Trainable, diffusion_loss_weights, forward_process, uniform_loss_weights,
};
use llada_tensor::ops::add::add_into;
use llada_tensor::{Gradients, Philox, Stream, Tape};

use crate::communicator::share;
use crate::optim::clip_coefficient;
use crate::sft::answer_examples;
use crate::shards::Reduction;
use crate::{
    Batch, Error, LossWeight, Objective, Optimizer, Result, TSampler, TrainConfig, Update,
    learning_rate,
};

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// The step, counted from 1.
    pub step: u64,
    /// Loss before the update, in nats per token (of the answers, in fine-tuning); per masked token
    /// with uniform weights.
    pub loss: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// Tokens of the batch, padding included.
    pub tokens: usize,
    /// Tokens that were predicted.
    pub predicted: usize,
}

/// Forward process, loss, gradient, clipping, update: the optimizer step `step`, counted from 0.
///
/// `batch` is that of all ranks of the optimizer's run; each computes its micro-batches of it.
///
/// # Errors
/// [`Error::NonFinite`] before anything is changed; errors of the model.
pub fn train_step(
    model: &mut dyn Trainable,
    optimizer: &mut Optimizer<'_>,
    batch: &Batch,
    config: &TrainConfig,
    step: u64,
) -> Result<StepReport> {
    let (report, harm) = guarded_step(model, optimizer, batch, config, step, f64::INFINITY)?;
    harm.map_or(Ok(report), Err)
}

/// As [`train_step`]; if the loss or the gradient is no number, or its norm above `largest_norm`,
/// nothing is changed, and the error comes beside the report.
pub(crate) fn guarded_step(
    model: &mut dyn Trainable,
    optimizer: &mut Optimizer<'_>,
    batch: &Batch,
    config: &TrainConfig,
    step: u64,
    largest_norm: f64,
) -> Result<(StepReport, Option<Error>)> {
    let info = model.info();
    let examples = match (config.objective, &batch.prompt_lens) {
        (Objective::Diffusion, None) => {
            diffusion_examples(&batch.tokens, info.mask_token_id, config, step)?
        }
        (Objective::Diffusion, Some(lens)) => {
            answer_examples(&batch.tokens, lens, &info, config, step)?
        }
        (Objective::Autoregressive, _) => autoregressive_examples(&batch.tokens),
    };

    let loss = sum_gradients(model, optimizer, &examples, config)?;
    let grad_norm = optimizer.gradient_norm()?;
    let learning_rate = learning_rate(&config.train, step);
    let harm = require_finite("the loss", loss, step)
        .and_then(|()| require_finite("the norm of the gradient", grad_norm, step))
        .and_then(|()| require_usual(grad_norm, largest_norm, step))
        .err();
    if harm.is_none() {
        let update = Update {
            step: step + 1,
            learning_rate,
            gradient_scale: clip_coefficient(config.train.clip_norm, grad_norm),
        };
        optimizer.update(model.parameters_mut(), &config.train, update)?;
    }
    let report = StepReport {
        step: step + 1,
        loss,
        grad_norm,
        learning_rate,
        tokens: examples.batch.n_tokens(),
        predicted: examples.positions.len(),
    };
    Ok((report, harm))
}

/// The loss of the examples; fills the optimizer's gradients.
///
/// The gradient of a step is the sum of those of its micro-batches, one added after another. If
/// each rank has one micro-batch, a run of several ranks has the bits of a run of one process.
fn sum_gradients(
    model: &dyn Trainable,
    optimizer: &mut Optimizer<'_>,
    examples: &Examples,
    config: &TrainConfig,
) -> Result<f64> {
    let device = model.device().clone();
    let Optimizer {
        gradients,
        micro_batch,
        shards,
        communicator,
        ..
    } = optimizer;
    let communicator = *communicator;
    let parts = examples.cut(config.train.micro_batch_tokens, communicator.size());
    let mine = &parts[share(parts.len(), communicator)];
    gradients.zero()?;
    let mut reduction = (communicator.size() > 1).then(|| Reduction::new(shards, communicator));
    let mut losses = Vec::with_capacity(mine.len());
    for (at, sequences) in mine.iter().enumerate() {
        let Examples {
            batch,
            positions,
            targets,
            weights,
        } = &examples.part(sequences)?;
        let mut tape = Tape::recording(&device, config.train.precision.into());
        let loss = model.weighted_cross_entropy(&mut tape, batch, positions, targets, weights)?;
        losses.push(f64::from(loss.value().to_vec_f32()?[0]));
        // What is final in the last micro-batch leaves while the tape goes on.
        let mut reduction = reduction.as_mut().filter(|_| at + 1 == mine.len());
        let mut leave = |index, sums: &Gradients| match &mut reduction {
            Some(reduction) => reduction.is_final(index, sums),
            None => Ok(()),
        };
        if at == 0 {
            tape.backward_with(&loss, gradients, &mut leave)?;
            continue;
        }
        let own = match micro_batch {
            Some(own) => own,
            None => micro_batch.insert(Gradients::zeros_like(gradients.tensors())?),
        };
        own.zero()?;
        tape.backward_with(&loss, own, &mut |index, own| {
            add_into(&mut gradients.tensors_mut()[index], &own.tensors()[index])?;
            leave(index, gradients)
        })?;
    }
    if let Some(reduction) = reduction {
        reduction.finish(gradients)?;
    }
    Ok(communicator.all_gather(&losses).iter().flatten().sum())
}

/// What a model is asked in a step, and how much each answer counts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Examples {
    /// Input.
    pub(crate) batch: TokenBatch,
    /// Flat indexes, ascending.
    pub(crate) positions: Vec<usize>,
    /// Token to be predicted at each position.
    pub(crate) targets: Vec<u32>,
    /// Weight of each prediction in the loss.
    pub(crate) weights: Vec<f32>,
}

/// The forward process of the step: masked tokens, weighted as in eq. 3 or all alike.
pub(crate) fn diffusion_examples(
    batch: &TokenBatch,
    mask_token_id: u32,
    config: &TrainConfig,
    step: u64,
) -> Result<Examples> {
    let t = masking_ratios(
        config.seed,
        config.train.t_sampler,
        batch.n_sequences(),
        step,
    ); // [B]
    let u = mask_draws(config.seed, batch, step); // [T]
    let noised = forward_process(batch, mask_token_id, &t, &u, None)?;
    let weights = match config.train.loss_weight {
        LossWeight::InverseP => diffusion_loss_weights(&noised),
        LossWeight::Uniform => uniform_loss_weights(&noised),
    };
    Ok(Examples {
        batch: noised.batch,
        positions: noised.positions,
        targets: noised.targets,
        weights,
    })
}

/// Noise level of each sequence.
pub(crate) fn masking_ratios(
    seed: u64,
    sampler: TSampler,
    n_sequences: usize,
    step: u64,
) -> Vec<f32> {
    let philox = Philox::new(seed, Stream::MaskRatio);
    let [low, high] = words(step);
    let draw = |slot: usize| philox.uniform_f32([low, high, slot as u32]);
    match sampler {
        TSampler::Iid => (0..n_sequences).map(draw).collect(),
        TSampler::Stratified => {
            let u0 = draw(0);
            (0..n_sequences)
                .map(|i| (u0 + i as f32 / n_sequences as f32).fract())
                .collect()
        }
    }
}

/// A uniform draw for each token, keyed by step, slot of its sequence and position in it.
pub(crate) fn mask_draws(seed: u64, batch: &TokenBatch, step: u64) -> Vec<f32> {
    let philox = Philox::new(seed, Stream::Mask);
    let [step, _] = words(step); // Configurations have fewer than 2^32 steps.
    let mut draws = Vec::with_capacity(batch.n_tokens());
    for (slot, sequence) in batch.sequences().enumerate() {
        let draw = |position| philox.uniform_f32([position as u32, slot as u32, step]);
        draws.extend((0..sequence.len()).map(draw));
    }
    draws
}

/// Every token but the first of its sequence, predicted from those before it; the mean of all.
pub(crate) fn autoregressive_examples(batch: &TokenBatch) -> Examples {
    let (mut positions, mut targets) = (Vec::new(), Vec::new());
    for ends in batch.offsets().windows(2) {
        for position in ends[0]..ends[1] - 1 {
            positions.push(position);
            targets.push(batch.ids()[position + 1]);
        }
    }
    let weights = vec![1.0 / positions.len() as f32; positions.len()];
    Examples {
        batch: batch.clone(),
        positions,
        targets,
        weights,
    }
}

impl Examples {
    /// Cuts the sequences into micro-batches of at most `n_tokens` tokens each (0: any number). If
    /// their number is no multiple of that of the ranks, it is raised to one, and they are of about
    /// the same length. Only those that have something to predict.
    fn cut(&self, n_tokens: usize, n_ranks: usize) -> Vec<Range<usize>> {
        let limit = if n_tokens == 0 { usize::MAX } else { n_tokens };
        let (offsets, n_sequences) = (self.batch.offsets(), self.batch.n_sequences());
        let (mut parts, mut first) = (Vec::new(), 0);
        while first < n_sequences {
            let mut end = first + 1;
            while end < n_sequences && offsets[end + 1] - offsets[first] <= limit {
                end += 1;
            }
            parts.push(first..end);
            first = end;
        }
        let n_parts = parts.len().next_multiple_of(n_ranks);
        if parts.len() < n_parts {
            let n = self.batch.n_tokens();
            let until = |part: usize| offsets.partition_point(|o| o * n_parts < n * part);
            let part = |part| until(part)..until(part + 1);
            parts = (0..n_parts).map(part).collect();
        }
        let predicts = |part: &Range<usize>| {
            let before = |token| self.positions.partition_point(|&position| position < token);
            before(offsets[part.start]) < before(offsets[part.end])
        };
        parts.retain(predicts);
        parts
    }

    /// Some of the sequences.
    fn part(&self, sequences: &Range<usize>) -> Result<Self> {
        let (first, end) = (sequences.start, sequences.end);
        let offsets = self.batch.offsets();
        let (begin_token, end_token) = (offsets[first], offsets[end]);
        let begin = self
            .positions
            .partition_point(|&position| position < begin_token);
        let until = self
            .positions
            .partition_point(|&position| position < end_token);
        let sequences: Vec<_> = (first..end).map(|row| self.batch.sequence(row)).collect();
        Ok(Self {
            batch: TokenBatch::new(&sequences)?,
            positions: self.positions[begin..until]
                .iter()
                .map(|p| p - begin_token)
                .collect(),
            targets: self.targets[begin..until].to_vec(),
            weights: self.weights[begin..until].to_vec(),
        })
    }
}

fn words(step: u64) -> [u32; 2] {
    [step as u32, (step >> 32) as u32]
}

fn require_usual(norm: f64, limit: f64, step: u64) -> Result<()> {
    if norm <= limit {
        return Ok(());
    }
    let step = step + 1;
    Err(Error::Spike { step, norm, limit })
}

fn require_finite(what: &'static str, value: f64, step: u64) -> Result<()> {
    if value.is_finite() {
        Ok(())
    } else {
        Err(Error::NonFinite {
            step: step + 1,
            what,
            value,
        })
    }
}

#[cfg(test)]
mod tests;
