//! What can go wrong in the runtime.

use crate::DType;

/// Result of a tensor operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of the tensor runtime.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// Two shapes do not fit together.
    #[error("{op}: shapes {lhs:?} and {rhs:?} do not match")]
    ShapeMismatch {
        /// The op that was asked.
        op: &'static str,
        /// First shape.
        lhs: Vec<usize>,
        /// Second shape.
        rhs: Vec<usize>,
    },
    /// A tensor has another number of axes than the op needs.
    #[error("{op}: expected {expected} axes, got shape {shape:?}")]
    Rank {
        /// The op that was asked.
        op: &'static str,
        /// Axes that the op needs.
        expected: usize,
        /// Shape that came.
        shape: Vec<usize>,
    },
    /// A tensor has another element type than the op needs.
    #[error("{op}: expected {expected:?}, got {got:?}")]
    DTypeMismatch {
        /// The op that was asked.
        op: &'static str,
        /// Type that the op needs.
        expected: DType,
        /// Type that came.
        got: DType,
    },
    /// The op needs a contiguous tensor.
    #[error("{op}: tensor of shape {shape:?} is not contiguous")]
    NotContiguous {
        /// The op that was asked.
        op: &'static str,
        /// Shape of the view.
        shape: Vec<usize>,
    },
    /// An output is still used by another tensor.
    #[error("{op}: output of shape {shape:?} shares its storage with another tensor")]
    SharedOutput {
        /// The op that was asked.
        op: &'static str,
        /// Shape of the output.
        shape: Vec<usize>,
    },
    /// The op needs elements in host memory, but they are on a device.
    #[error("{op}: the elements are in the memory of a device, not of the host")]
    NotOnHost {
        /// The op that was asked.
        op: &'static str,
    },
    /// A device call failed.
    #[error("{device}: {call} failed: {reason}")]
    Device {
        /// Name of the device.
        device: String,
        /// What was asked of it.
        call: &'static str,
        /// What its driver or library says.
        reason: String,
    },
    /// A device has too little memory left.
    #[error(
        "{device}: {needed} bytes do not fit, {free} of {total} bytes are free; \
         use a smaller type (--dtype int8 or int4), a smaller batch or a device with more memory"
    )]
    OutOfMemory {
        /// Name of the device.
        device: String,
        /// Bytes asked for.
        needed: usize,
        /// Bytes that are free.
        free: usize,
        /// Bytes that the device has.
        total: usize,
    },
    /// An index is past the end.
    #[error("{op}: index {index} is out of range, limit is {limit}")]
    IndexOutOfRange {
        /// The op that was asked.
        op: &'static str,
        /// Offending index.
        index: usize,
        /// First index that is too large.
        limit: usize,
    },
    /// An argument has a value that the op cannot use.
    #[error("{op}: {what}")]
    InvalidArgument {
        /// The op that was asked.
        op: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// This machine lacks the asked instruction set.
    #[error("cpu level {level} is not available on this machine, best is {best}")]
    LevelUnavailable {
        /// The level asked for.
        level: &'static str,
        /// The best level of the machine.
        best: &'static str,
    },
    /// The worker threads could not be started.
    #[error("starting {threads} worker threads failed")]
    Threads {
        /// Threads asked for.
        threads: usize,
    },
}

impl Error {
    pub(crate) fn shapes(op: &'static str, lhs: &[usize], rhs: &[usize]) -> Self {
        let (lhs, rhs) = (lhs.to_vec(), rhs.to_vec());
        Self::ShapeMismatch { op, lhs, rhs }
    }
}

/// An error unless two shapes are equal.
pub(crate) fn expect_shapes(op: &'static str, lhs: &[usize], rhs: &[usize]) -> Result<()> {
    match lhs == rhs {
        true => Ok(()),
        false => Err(Error::shapes(op, lhs, rhs)),
    }
}

/// An error unless all ids are below a limit.
pub(crate) fn expect_ids(op: &'static str, ids: &[u32], limit: usize) -> Result<()> {
    match ids.iter().map(|&id| id as usize).find(|&id| id >= limit) {
        Some(index) => Err(Error::IndexOutOfRange { op, index, limit }),
        None => Ok(()),
    }
}
