//! The clock.

use std::num::NonZeroUsize;
use std::time::Instant;

use anyhow::Result;
use llada::{Device, Precision};

use super::Subject;

/// Seconds that the timed passes take at least if their number is not given.
const BUDGET: f64 = 3.0;
/// Passes at most, if their number is not given.
const MANY: usize = 1_000;

/// How long a pass takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    pub(super) rounds: usize,
    /// The median.
    pub(super) seconds: f64,
    pub(super) seconds_min: f64,
    /// The most that the machine does, in 10^9 operations a second.
    pub(super) peak_gops: f64,
}

impl Timing {
    /// Runs `pass` once to warm up and then `rounds` times. Gives what the last one gave. The peak is
    /// the larger of those before and after, for the machine's speed changes with time.
    pub(super) fn of<T>(
        subject: &Subject,
        rounds: Option<NonZeroUsize>,
        mut pass: impl FnMut() -> Result<T>,
    ) -> Result<(Self, T)> {
        let mut timed = || -> Result<_> {
            let start = Instant::now();
            let last = std::hint::black_box(pass()?);
            Ok((start.elapsed().as_secs_f64(), last))
        };
        let before = peak_gops(&subject.device, subject.precision)?;
        let (first, mut last) = timed()?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most MANY"
        )]
        let usual = || ((BUDGET / first).ceil() as usize).clamp(1, MANY);
        let rounds = rounds.map_or_else(usual, NonZeroUsize::get);
        let mut all = Vec::new();
        for _ in 0..rounds {
            let (seconds, given) = timed()?;
            all.push(seconds);
            last = given;
        }
        all.sort_by(f64::total_cmp);
        let after = peak_gops(&subject.device, subject.precision)?;
        let timing = Self {
            rounds,
            peak_gops: before.max(after),
            seconds: f64::midpoint(all[(rounds - 1) / 2], all[rounds / 2]),
            seconds_min: all[0],
        };
        Ok((timing, last))
    }
}

/// The most that the machine does, in 10^9 operations a second: the best of many short runs, one
/// that nothing disturbed.
fn peak_gops(device: &Device, precision: Precision) -> Result<f64> {
    /// Some milliseconds on a fast machine.
    const ROUNDS: usize = 1_000;
    const RUNS: usize = 20;
    /// Enough, on a slow machine.
    const SECONDS: f64 = 0.2;
    let (start, mut gops) = (Instant::now(), 0.0);
    for _ in 0..RUNS {
        let run = Instant::now();
        let flops = device.backend().gemm_peak(precision, ROUNDS)?;
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = flops as f64 / run.elapsed().as_secs_f64() / 1e9;
        gops = f64::max(gops, rate);
        if start.elapsed().as_secs_f64() > SECONDS {
            break;
        }
    }
    Ok(gops)
}
