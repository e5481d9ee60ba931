//! Counter-based random numbers: Philox4x32-10.
//!
//! Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".

/// What a number is drawn for. Draws of different streams never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// Initial parameters.
    Init = 1,
    /// Order of the training data.
    DataOrder = 2,
    /// Choice among weighted training files.
    DataChoice = 3,
    /// Masking ratio t of each training sequence.
    MaskRatio = 4,
    /// Which tokens are masked.
    Mask = 5,
    /// Gumbel noise on logits.
    Gumbel = 6,
    /// Random remasking order.
    Remask = 7,
    /// Monte Carlo draws of likelihood estimates.
    Likelihood = 8,
    /// Random sequence lengths in pre-training.
    Length = 9,
    /// Tests and benchmarks.
    Test = 10,
    /// Initial low-rank adapters.
    Adapter = 11,
}

/// A generator keyed by a seed and a stream; every draw is a pure function of its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
    stream: u32,
}

impl Philox {
    /// A generator for one seed and one purpose.
    #[must_use]
    pub fn new(seed: u64, stream: Stream) -> Self {
        Self {
            key: [low(seed), low(seed >> 32)],
            stream: stream as u32,
        }
    }

    /// Four random words for a counter of three words (the fourth is the stream).
    #[must_use]
    pub fn words(&self, counter: [u32; 3]) -> [u32; 4] {
        philox4x32_10([counter[0], counter[1], counter[2], self.stream], self.key)
    }

    /// Uniform on the open interval (0, 1), 24 bits: `(k + 1/2) / 2^24`.
    #[must_use]
    pub fn uniform_f32(&self, counter: [u32; 3]) -> f32 {
        unit_f32(self.words(counter)[0])
    }

    /// Uniform on the open interval (0, 1), 52 bits: `(k + 1/2) / 2^52`.
    #[must_use]
    pub fn uniform_f64(&self, counter: [u32; 3]) -> f64 {
        let [a, b, ..] = self.words(counter);
        unit_f64(a, b)
    }

    /// Two independent draws of [`Self::uniform_f64`] from one block.
    #[must_use]
    pub fn uniform_f64_pair(&self, counter: [u32; 3]) -> [f64; 2] {
        let [a, b, c, d] = self.words(counter);
        [unit_f64(a, b), unit_f64(c, d)]
    }

    /// Uniform integer in `0..n`.
    ///
    /// # Panics
    /// If `n` is 0.
    #[must_use]
    pub fn below(&self, n: u64, counter: [u32; 3]) -> u64 {
        assert!(n > 0, "an empty range has no members");
        let [a, b, ..] = self.words(counter);
        let word = u128::from(a) | (u128::from(b) << 32);
        // The product is below n * 2^64.
        ((word * u128::from(n)) >> 64) as u64
    }

    /// Two independent standard normal draws (Box and Muller).
    #[must_use]
    pub fn normal_pair(&self, counter: [u32; 3]) -> [f64; 2] {
        let [u, v] = self.uniform_f64_pair(counter);
        let radius = (-2.0 * u.ln()).sqrt();
        let angle = std::f64::consts::TAU * v;
        [radius * angle.cos(), radius * angle.sin()]
    }
}

fn unit_f32(word: u32) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
    let k = (word >> 8) as f32;
    // 2^24 - 1 + 1/2 would round to 2^24: the largest draw is clamped below one.
    ((k + 0.5) * (1.0 / 16_777_216.0)).min(1.0 - f32::EPSILON / 2.0)
}

fn unit_f64(a: u32, b: u32) -> f64 {
    let word = u64::from(a) | (u64::from(b) << 32);
    #[expect(clippy::cast_precision_loss, reason = "52 bits fit")]
    let k = (word >> 12) as f64;
    (k + 0.5) * (1.0 / 4_503_599_627_370_496.0)
}

fn low(x: u64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low word is what is asked"
    )]
    let word = x as u32;
    word
}

/// The Philox4x32 bijection with ten rounds.
fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let p0 = u64::from(counter[0]) * 0xD251_1F53;
        let p1 = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            low(p1 >> 32) ^ counter[1] ^ key[0],
            low(p1),
            low(p0 >> 32) ^ counter[3] ^ key[1],
            low(p0),
        ];
        key = [
            key[0].wrapping_add(0x9E37_79B9),
            key[1].wrapping_add(0xBB67_AE85),
        ];
    }
    counter
}

#[cfg(test)]
mod tests;
