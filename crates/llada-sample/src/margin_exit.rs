//! The end of a block before its last step, once all that is left is sure.

use crate::process::Bounds;

/// Takes all masks of a block in one step as soon as the mean of their margins, the differences
/// between the two highest probabilities, reaches a bar that falls while the block fills: `margin *
/// (1 - fall * p)`, where `p` is the share of the block's masks that are filled. It goes with any
/// rule that says what a step takes before that.
///
/// After `SchED` (progress-aware confidence schedules, arXiv 2512.02892), which compares the margins
/// of logits of a whole answer, tokens that stand included, and whose progress is that of the steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MarginExit {
    /// The bar of an empty block, in [0, 1].
    pub margin: f32,
    /// The share that the bar has lost when the block is full, in [0, 1].
    pub fall: f32,
}

impl MarginExit {
    /// Name, bounds and value of its numbers.
    pub(crate) fn numbers(self) -> [(&'static str, Bounds, f32); 2] {
        [
            ("margin_exit", Bounds::Unit, self.margin),
            ("margin_exit_fall", Bounds::Unit, self.fall),
        ]
    }

    /// Whether masks with these margins are all taken; `mask_ratio`: share of the block's masks that
    /// are left.
    pub(crate) fn is_reached(self, margins: impl Iterator<Item = f32>, mask_ratio: f32) -> bool {
        let (sum, n) = margins.fold((0.0_f64, 0_u32), |(sum, n), x| (sum + f64::from(x), n + 1));
        let bar = self.margin * (1.0 - self.fall * (1.0 - mask_ratio));
        n > 0 && sum / f64::from(n) >= f64::from(bar)
    }
}

#[cfg(test)]
mod tests;
