//! How many masks a step of Dream takes.
//!
//! All of it is `f32` arithmetic, as in the reference, since numbers are cut off to integers.
//!
//! Source: `_sample` in Dream's `generation_utils.py`.

/// The share of the masks that a step takes: `1 - t[step + 1] / t[step]`, of the last one 1.
pub(crate) fn share(step: usize, steps: usize, eps: f32) -> f32 {
    match step + 1 < steps {
        true => 1.0 - time(step + 1, steps, eps) / time(step, steps, eps),
        false => 1.0,
    }
}

/// How many masks a share of them is.
pub(crate) fn number(masks: usize, share: f32) -> usize {
    (masks as f32 * share) as usize
}

/// Point `i` of `steps + 1` from 1 to `eps` in equal steps, to the bit as `torch.linspace`, which
/// counts those of the second half from the end and rounds once.
fn time(i: usize, steps: usize, eps: f32) -> f32 {
    let step = (eps - 1.0) / steps as f32;
    match i < steps.div_ceil(2) {
        true => step.mul_add(i as f32, 1.0),
        false => (-step).mul_add((steps - i) as f32, eps),
    }
}

#[cfg(test)]
mod tests;
