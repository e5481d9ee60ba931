//! What the processes of a data-parallel run say to each other.

#[cfg(feature = "mpi")]
mod mpi;

use std::fmt;

#[cfg(feature = "mpi")]
pub use mpi::Mpi;

/// Waits for the end of an exchange and returns what it brought.
pub type Wait<'a> = Box<dyn FnOnce() -> Vec<f32> + 'a>;

/// The processes of a run, its *ranks*, as one of them sees them.
///
/// Every rank calls the same methods in the same order with arguments that fit. None returns an
/// error: an engine that loses a rank ends the others.
pub trait Communicator: fmt::Debug {
    /// Which process this is, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Begins to add up `values` over the ranks; rank `r` gets the `counts[r]` sums that follow
    /// those of the ranks before it. Goes on while the caller computes.
    ///
    /// Each sum begins with rank 0 and adds one rank after another, so that it has the bits of a
    /// single process that adds in this order.
    fn start_reduce_scatter(&self, values: Vec<f32>, counts: &[usize]) -> Wait<'_>;

    /// Begins to join the values of all ranks, `counts[r]` of rank `r`, in the order of ranks.
    fn start_all_gather(&self, mine: Vec<f32>, counts: &[usize]) -> Wait<'_>;

    /// The few numbers that each rank has to tell, by rank.
    fn all_gather(&self, mine: &[f64]) -> Vec<Vec<f64>>;

    /// The bytes of rank `root`; what the others pass is dropped.
    fn broadcast(&self, root: usize, bytes: Vec<u8>) -> Vec<u8>;

    /// Ends all processes of the run at once, as failed.
    fn abort(&self) -> !;
}

/// Whether one of the ranks says so.
pub(crate) fn any(communicator: &dyn Communicator, mine: bool) -> bool {
    let told = communicator.all_gather(&[f64::from(u8::from(mine))]);
    told.iter().flatten().any(|&x| x > 0.0)
}

/// The values of rank `root`.
pub(crate) fn broadcast_values(
    communicator: &dyn Communicator,
    root: usize,
    values: Vec<f32>,
) -> Vec<f32> {
    if communicator.size() == 1 {
        return values;
    }
    let bytes = communicator.broadcast(root, bytemuck::cast_slice(&values).to_vec());
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| f32::from_ne_bytes(*word)).collect()
}

/// The share of rank `rank` in `n` things: all ranks' shares follow each other.
pub(crate) fn share(n: usize, communicator: &dyn Communicator) -> std::ops::Range<usize> {
    let (rank, size) = (communicator.rank(), communicator.size());
    n * rank / size..n * (rank + 1) / size
}

/// A run of one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Single;

impl Communicator for Single {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn start_reduce_scatter(&self, values: Vec<f32>, _counts: &[usize]) -> Wait<'_> {
        Box::new(move || values)
    }

    fn start_all_gather(&self, mine: Vec<f32>, _counts: &[usize]) -> Wait<'_> {
        Box::new(move || mine)
    }

    fn all_gather(&self, mine: &[f64]) -> Vec<Vec<f64>> {
        vec![mine.to_vec()]
    }

    fn broadcast(&self, _root: usize, bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    fn abort(&self) -> ! {
        std::process::exit(1)
    }
}
