//! Where random numbers come from: Philox, or a recording of the reference's.

use llada_diffusion::StepKey;

use crate::{Error, Result};

/// Source of the random numbers of a request.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Draws {
    /// Philox, keyed by seed, sequence, position and step.
    #[default]
    Philox,
    /// Numbers drawn before, to repeat a run of the reference.
    Recorded(RecordedDraws),
}

/// The uniform draws of a recorded run of one row. Kinds of draws that a run does not need may be
/// empty. Positions are those of the request's canvas: columns of padding are left out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RecordedDraws {
    /// First position that `gumbel` covers (the reference's recordings: the prompt's length).
    pub gumbel_start: usize,
    /// Number of positions that `gumbel` covers.
    pub gumbel_len: usize,
    /// Uniform draws behind the Gumbel noise, `[steps, gumbel_len, V]`.
    pub gumbel: Vec<f64>,
    /// Uniform draws of random remasking, `[steps, L]` with `L` the length of the canvas.
    pub remask: Vec<f32>,
}

impl RecordedDraws {
    /// The draws of one position and step, `[V]`.
    pub(crate) fn gumbel(&self, step: usize, position: usize, vocab_size: usize) -> &[f64] {
        let at = (step * self.gumbel_len + position - self.gumbel_start) * vocab_size;
        &self.gumbel[at..at + vocab_size]
    }

    /// Checks that positions `first..canvas_len` of `steps` steps have Gumbel draws.
    pub(crate) fn check_gumbel(
        &self,
        request: usize,
        steps: usize,
        first: usize,
        canvas_len: usize,
        vocab_size: usize,
    ) -> Result<()> {
        let covered =
            self.gumbel_start <= first && canvas_len <= self.gumbel_start + self.gumbel_len;
        let length = if covered {
            self.gumbel_len
        } else {
            canvas_len - first
        };
        let (expected, got) = (steps * length * vocab_size, self.gumbel.len());
        if covered && expected == got {
            return Ok(());
        }
        Err(Error::RecordedDraws {
            request,
            what: "gumbel draws",
            expected,
            got,
        })
    }

    /// Checks that all positions of `steps` steps have draws for random remasking.
    pub(crate) fn check_remask(
        &self,
        request: usize,
        steps: usize,
        canvas_len: usize,
    ) -> Result<()> {
        let (expected, got) = (steps * canvas_len, self.remask.len());
        if expected == got {
            return Ok(());
        }
        Err(Error::RecordedDraws {
            request,
            what: "remasking draws",
            expected,
            got,
        })
    }
}

impl Draws {
    /// The draw that ranks a position in random remasking, or decides about it in the reverse
    /// process.
    pub(crate) fn remask(&self, key: StepKey, position: usize, canvas_len: usize) -> f32 {
        match self {
            Self::Philox => key.remask_uniform(position),
            Self::Recorded(draws) => draws.remask[key.step as usize * canvas_len + position],
        }
    }
}
