//! How many tokens each sampling step reveals.

/// Splits `masked` tokens over `steps` steps as evenly as integers allow: every step gets
/// `masked / steps`, the first `masked % steps` steps one more.
///
/// With the linear noise schedule of eq. 8 every step of equal length is expected to reveal the
/// same number of tokens. With fewer masked tokens than steps the last steps reveal none; without
/// steps the result is empty.
///
/// Source: `get_num_transfer_tokens` in the reference's generate.py.
#[must_use]
pub fn num_transfer_tokens(masked: usize, steps: usize) -> Vec<usize> {
    (0..steps)
        .map(|step| masked / steps + usize::from(step < masked % steps))
        .collect()
}

#[cfg(test)]
mod tests;
