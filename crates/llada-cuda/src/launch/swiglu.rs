//! Plans of `kernels/swiglu.cu`.

use llada_tensor::{DType, Result};

use crate::launch::LaunchPlan;
use crate::launch::elementwise::{VECTOR, flat};

/// Either direction over `n` elements, written as `dtype`: a vector of 128 bits per thread.
pub(crate) fn swiglu(n: usize, dtype: DType) -> Result<LaunchPlan> {
    flat("swiglu", n, 4 * VECTOR / dtype.size_bytes())
}

#[cfg(test)]
mod tests;
