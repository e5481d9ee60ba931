//! Launch plans: with which grid each kernel runs, as pure functions of shapes.

pub(crate) mod adamw;
pub(crate) mod add;
pub(crate) mod attention;
pub(crate) mod candidates;
pub(crate) mod cross_entropy;
pub(crate) mod elementwise;
pub(crate) mod embedding;
pub(crate) mod gemm;
pub(crate) mod moe;
pub(crate) mod quantized;
pub(crate) mod remask;
pub(crate) mod rms_norm;
pub(crate) mod rope;
pub(crate) mod swiglu;

use llada_tensor::{Error, Result};

/// Grid and block of one launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaunchPlan {
    /// Blocks along x, y and z; none if one of them is 0.
    pub(crate) grid: [u32; 3],
    /// Threads of a block, along x.
    pub(crate) block: u32,
    /// Dynamic shared memory of a block.
    pub(crate) shared_bytes: u32,
}

/// Most blocks along y and z.
const GRID_YZ: u32 = 65_535;

impl LaunchPlan {
    /// A grid along x without dynamic shared memory.
    pub(crate) fn linear(op: &'static str, blocks: usize, block: u32) -> Result<Self> {
        Self::new(op, [blocks, 1, 1], block, 0)
    }

    /// Any grid.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it is larger than CUDA allows.
    pub(crate) fn new(
        op: &'static str,
        [x, y, z]: [usize; 3],
        block: u32,
        shared_bytes: u32,
    ) -> Result<Self> {
        let what = "the operands are too large for one launch";
        let too_large = Error::InvalidArgument { op, what };
        let within = |n: usize, limit: u32| {
            u32::try_from(n)
                .ok()
                .filter(|&n| n <= limit)
                .ok_or_else(|| too_large.clone())
        };
        // The limit along x is 2^31 - 1.
        let grid = [
            within(x, u32::MAX >> 1)?,
            within(y, GRID_YZ)?,
            within(z, GRID_YZ)?,
        ];
        Ok(Self {
            grid,
            block,
            shared_bytes,
        })
    }
}

/// A size as the kernels' 32-bit arguments have it.
///
/// # Errors
/// [`Error::InvalidArgument`] from 2^31 on.
pub(crate) fn narrow(op: &'static str, n: usize) -> Result<i32> {
    let what = "a dimension is 2^31 or more";
    i32::try_from(n).map_err(|_| Error::InvalidArgument { op, what })
}
