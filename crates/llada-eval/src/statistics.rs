//! Means with their standard errors.

/// A mean over items.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// The mean: of 0 and 1 an accuracy.
    pub mean: f64,
    /// Its standard error over items; 0 if there is one item only.
    pub standard_error: f64,
    /// Items.
    pub n: usize,
}

impl Figure {
    /// The accuracy of yes and no: `p`, and `sqrt(p (1 - p) / n)`. `None` without items.
    #[must_use]
    pub fn accuracy(correct: &[bool]) -> Option<Self> {
        let n = correct.len();
        let p = correct.iter().filter(|&&is_correct| is_correct).count() as f64 / n as f64;
        let standard_error = (p * (1.0 - p) / n as f64).sqrt();
        (n > 0).then_some(Self {
            mean: p,
            standard_error,
            n,
        })
    }

    /// The mean of numbers, and `sqrt(sum_i (x_i - mean)^2 / (n - 1) / n)`. `None` without items.
    #[must_use]
    pub fn mean(values: &[f64]) -> Option<Self> {
        let n = values.len();
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
        let variance = squares / (n as f64 - 1.0).max(1.0);
        (n > 0).then_some(Self {
            mean,
            standard_error: (variance / n as f64).sqrt(),
            n,
        })
    }
}

/// The mean difference of two figures of the same items.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gap {
    /// The first figure minus the second.
    pub mean: f64,
    /// Standard error of the difference, by pairing: what makes an item hard in both cancels.
    pub standard_error: f64,
}

impl Gap {
    /// The gap between two outcomes of each item. `None` without items.
    ///
    /// # Panics
    /// If there are not as many of both.
    #[must_use]
    pub fn paired(first: &[bool], second: &[bool]) -> Option<Self> {
        assert_eq!(first.len(), second.len(), "two outcomes of each item");
        let difference = |(&a, &b)| f64::from(u8::from(a)) - f64::from(u8::from(b));
        let differences: Vec<f64> = first.iter().zip(second).map(difference).collect();
        let figure = Figure::mean(&differences)?;
        Some(Self {
            mean: figure.mean,
            standard_error: figure.standard_error,
        })
    }
}

#[cfg(test)]
mod tests;
