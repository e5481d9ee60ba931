//! The learning rate as a function of the step: warm-up, stable, decay, or a line through points.

use crate::{DecayShape, OptimizationConfig};

/// Learning rate of the optimizer step `step`, counted from 0.
///
/// It rises in a line over `warmup_steps`, stays, and falls over the last `decay_steps` to
/// `min_learning_rate`, which the last step has. `learning_rate_points` override all of that: the
/// rate follows straight lines between them, such as those of the paper's pre-training.
///
/// # Panics
/// If `learning_rate_points` are none; a configuration that was read has one.
///
/// Source: arXiv 2502.09992, sections 2.2 and 2.3.
#[must_use]
pub fn learning_rate(config: &OptimizationConfig, step: u64) -> f64 {
    if let Some(points) = &config.learning_rate_points {
        return on_lines(points, step);
    }
    let (peak, floor) = (config.learning_rate, config.min_learning_rate);
    let decay_steps = decay_steps(config);
    let decay_begins = config.steps - decay_steps;
    let warmup = ratio(step + 1, config.warmup_steps).min(1.0);
    if step < decay_begins {
        return peak * warmup;
    }
    let progress = ratio(step + 1 - decay_begins, decay_steps).min(1.0);
    let rest = match config.decay_shape {
        DecayShape::Linear => 1.0 - progress,
        DecayShape::OneMinusSqrt => 1.0 - progress.sqrt(),
        DecayShape::Cosine => 0.5 + 0.5 * (std::f64::consts::PI * progress).cos(),
    };
    (floor + (peak - floor) * rest).min(peak * warmup)
}

/// The rate at a step: on the line between the points beside it, or that of the nearest point. Of
/// two points of one step, the later holds from that step on.
fn on_lines(points: &[(u64, f64)], step: u64) -> f64 {
    let after = points.partition_point(|&(at, _)| at <= step);
    let (from, a) = points[after.saturating_sub(1)];
    let (to, b) = points[after.min(points.len() - 1)];
    a + (b - a) * ratio(step.saturating_sub(from), to - from)
}

fn decay_steps(config: &OptimizationConfig) -> u64 {
    let share = (config.decay_fraction * config.steps as f64).round() as u64;
    config.decay_steps.unwrap_or(share).min(config.steps)
}

/// `a / b`, and 1 if `b` is 0.
fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 1.0 } else { a as f64 / b as f64 }
}

#[cfg(test)]
mod tests;
