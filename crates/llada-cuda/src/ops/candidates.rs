//! See `/kernels/candidates.cu`.

use llada_tensor::Result;
use llada_tensor::backend::{Candidate, CandidateArgs};

use crate::context::Context;
use crate::ops::missing;

/// See [`llada_tensor::backend::Backend::candidates`].
pub(crate) fn candidates(cx: &Context, _args: CandidateArgs<'_>) -> Result<Vec<Candidate>> {
    missing(cx, "candidates")
}
