//! The examples of supervised fine-tuning: prompts stay as they are, answers are masked, and
//! short pairs are padded with EOS, which are tokens like all others. Or, packed, all is masked.

use llada_diffusion::{PredictorInfo, TokenBatch, forward_process, sft_loss_weights};

use crate::step::{Examples, diffusion_examples, mask_draws, masking_ratios};
use crate::{LossWeight, MaskUse, Result, SftConfig, TrainConfig};

/// The forward process of the step on the answers, weighted as in eq. 5 or all alike.
///
/// `prompt_lens`: `[B]`. Pads are masked and predicted as the rest of the answer; they may count
/// less (`eos_pad_weight`).
///
/// Source: SFT in the reference's GUIDELINES.md.
pub(crate) fn answer_examples(
    batch: &TokenBatch,
    prompt_lens: &[usize],
    info: &PredictorInfo,
    config: &TrainConfig,
    step: u64,
) -> Result<Examples> {
    let sft = config.sft.clone().unwrap_or_default();
    if sft.masks == MaskUse::Packed {
        let packed = packed(batch, config.data.sequence_length)?;
        return diffusion_examples(&packed, info.mask_token_id, config, step);
    }
    let (padded, token_weights) = pad(batch, prompt_lens, info.eos_token_id, &sft)?;
    let (seed, t_sampler) = (config.seed, config.train.t_sampler);
    let t = masking_ratios(seed, t_sampler, padded.n_sequences(), step); // [B]
    let u = mask_draws(seed, &padded, step); // [T]
    let is_answer = answers(&padded, prompt_lens); // [T]
    let noised = forward_process(&padded, info.mask_token_id, &t, &u, Some(&is_answer))?;
    let weights = match config.train.loss_weight {
        LossWeight::InverseP => sft_loss_weights(&noised, &token_weights)?,
        LossWeight::Uniform => mean_weights(&noised.positions, &token_weights),
    };
    Ok(Examples {
        batch: noised.batch,
        positions: noised.positions,
        targets: noised.targets,
        weights,
    })
}

/// The sequences one behind the other, as many in each as fit into `length` tokens: masked as in
/// pre-training, as iLLaDA's were.
fn packed(batch: &TokenBatch, length: usize) -> Result<TokenBatch> {
    let mut packed: Vec<Vec<u32>> = Vec::new();
    for sequence in batch.sequences() {
        match packed
            .last_mut()
            .filter(|last| last.len() + sequence.len() <= length)
        {
            Some(last) => last.extend(sequence),
            None => packed.push(sequence.to_vec()),
        }
    }
    Ok(TokenBatch::new(&packed)?)
}

/// Sequences that are padded with EOS to the longest of their local batch, and the weight of each
/// token in the loss: 0 in prompts, 1 in answers, `eos_pad_weight` of pads.
fn pad(
    batch: &TokenBatch,
    prompt_lens: &[usize],
    eos_token_id: u32,
    sft: &SftConfig,
) -> Result<(TokenBatch, Vec<f32>)> {
    let sequences: Vec<&[u32]> = batch.sequences().collect();
    let local = match sft.local_batch_size {
        0 => sequences.len().max(1),
        n => n,
    };
    let (mut padded, mut weights) = (Vec::with_capacity(sequences.len()), Vec::new());
    for (group, lens) in sequences.chunks(local).zip(prompt_lens.chunks(local)) {
        let longest = group.iter().map(|sequence| sequence.len()).max();
        let longest = longest.unwrap_or(0);
        for (sequence, &prompt_len) in group.iter().zip(lens) {
            let mut tokens = sequence.to_vec();
            tokens.resize(longest, eos_token_id);
            padded.push(tokens);
            let n_pads = longest - sequence.len();
            weights.extend(std::iter::repeat_n(0.0, prompt_len));
            weights.extend(std::iter::repeat_n(1.0, sequence.len() - prompt_len));
            weights.extend(std::iter::repeat_n(sft.eos_pad_weight as f32, n_pads));
        }
    }
    Ok((TokenBatch::new(&padded)?, weights))
}

/// Which tokens are no prompt.
fn answers(batch: &TokenBatch, prompt_lens: &[usize]) -> Vec<bool> {
    let pairs = batch.sequences().zip(prompt_lens);
    let of = |(sequence, &prompt_len): (&[u32], &usize)| {
        (0..sequence.len()).map(move |position| position >= prompt_len)
    };
    pairs.flat_map(of).collect()
}

/// Weights of a mean over the masked positions; all zero if these are pads that don't count.
fn mean_weights(positions: &[usize], token_weights: &[f32]) -> Vec<f32> {
    let own = || positions.iter().map(|&at| f64::from(token_weights[at]));
    let total = own().sum::<f64>().max(f64::MIN_POSITIVE);
    own().map(|weight| (weight / total) as f32).collect()
}

#[cfg(test)]
mod tests;
