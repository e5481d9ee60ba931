//! Which rank keeps the optimizer state of which parameter, and what travels together.
//!
//! `ZeRO`, stage 1 (arXiv 1910.02054): gradients are summed where the moments are, and updated
//! parameters return from there. A parameter is never cut, since Muon needs whole matrices.

use std::ops::Range;

use llada_diffusion::Parameter;
use llada_tensor::{Gradients, Result, Tensor};

use crate::communicator::{Communicator, Wait};

/// Elements that travel together at least, if the model has as many: 16 MiB.
const BUCKET: usize = 1 << 22;
/// Buckets of a smaller model: the first leave while most of the backward pass is still to come.
const MIN_BUCKETS: usize = 8;

/// The owner of each parameter, and the buckets in which gradients and parameters travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shards {
    /// Rank that keeps the moments of each parameter.
    owners: Vec<usize>,
    /// Elements of each parameter.
    numels: Vec<usize>,
    /// Neighboring parameters each, the last ones first: the order of a backward pass.
    buckets: Vec<Range<usize>>,
    size: usize,
}

impl Shards {
    /// The largest parameter goes to the rank that has the least, then the next.
    pub(crate) fn new(numels: Vec<usize>, size: usize) -> Self {
        let mut by_size: Vec<usize> = (0..numels.len()).collect();
        by_size.sort_by_key(|&index| std::cmp::Reverse(numels[index]));
        let (mut owners, mut loads) = (vec![0; numels.len()], vec![0; size]);
        for index in by_size {
            let lightest = (0..size).min_by_key(|&rank| loads[rank]);
            owners[index] = lightest.expect("there is at least one rank");
            loads[owners[index]] += numels[index];
        }

        let target = BUCKET.min(numels.iter().sum::<usize>() / MIN_BUCKETS);
        let (mut buckets, mut end) = (Vec::new(), numels.len());
        while end > 0 {
            let (mut begin, mut n) = (end - 1, numels[end - 1]);
            while begin > 0 && n < target {
                begin -= 1;
                n += numels[begin];
            }
            buckets.push(begin..end);
            end = begin;
        }
        Self {
            owners,
            numels,
            buckets,
            size,
        }
    }

    /// Rank that keeps the moments of a parameter.
    pub(crate) fn owner(&self, parameter: usize) -> usize {
        self.owners[parameter]
    }

    /// The buckets, in the order in which they travel.
    pub(crate) fn buckets(&self) -> &[Range<usize>] {
        &self.buckets
    }

    /// The parameters of a bucket that a rank keeps.
    pub(crate) fn of(&self, bucket: usize, rank: usize) -> impl Iterator<Item = usize> {
        let mut parameters = self.buckets[bucket].clone();
        std::iter::from_fn(move || {
            parameters
                .by_ref()
                .find(|&index| self.owners[index] == rank)
        })
    }

    /// Elements of a bucket that each rank keeps.
    fn counts(&self, bucket: usize) -> Vec<usize> {
        let count = |rank| self.of(bucket, rank).map(|index| self.numels[index]).sum();
        (0..self.size).map(count).collect()
    }

    /// Sends the parameters of a bucket that this rank keeps to all others.
    pub(crate) fn start_return<'a>(
        &self,
        bucket: usize,
        parameters: &[Parameter],
        communicator: &'a dyn Communicator,
    ) -> Result<Wait<'a>> {
        let mut mine = Vec::new();
        for index in self.of(bucket, communicator.rank()) {
            mine.extend(parameters[index].value.to_vec_f32()?);
        }
        Ok(communicator.start_all_gather(mine, &self.counts(bucket)))
    }

    /// Takes over the parameters of a bucket that the other ranks keep.
    pub(crate) fn finish_return(
        &self,
        bucket: usize,
        parameters: &mut [Parameter],
        rank: usize,
        values: &[f32],
    ) -> Result<()> {
        let mut rest = values;
        for owner in 0..self.size {
            for index in self.of(bucket, owner) {
                let values = take(&mut rest, self.numels[index]);
                if owner != rank {
                    replace(&mut parameters[index].value, values)?;
                }
            }
        }
        Ok(())
    }
}

/// Sums of gradients on their way to the ranks that keep the moments.
pub(crate) struct Reduction<'a> {
    shards: &'a Shards,
    communicator: &'a dyn Communicator,
    /// Gradients of each bucket that are not final yet.
    missing: Vec<usize>,
    /// One for each bucket that has left. All ranks begin them in the same order, whatever the
    /// order in which their gradients become final.
    started: Vec<Wait<'a>>,
}

impl<'a> Reduction<'a> {
    pub(crate) fn new(shards: &'a Shards, communicator: &'a dyn Communicator) -> Self {
        Self {
            shards,
            communicator,
            missing: shards.buckets.iter().map(ExactSizeIterator::len).collect(),
            started: Vec::new(),
        }
    }

    /// Takes note that the gradient of a parameter is final, and sends what is complete.
    pub(crate) fn is_final(&mut self, parameter: usize, gradients: &Gradients) -> Result<()> {
        let mut buckets = self.shards.buckets.iter();
        let bucket = buckets.position(|bucket| bucket.contains(&parameter));
        self.missing[bucket.expect("each parameter is in a bucket")] -= 1;
        self.send_complete(gradients)
    }

    fn send_complete(&mut self, gradients: &Gradients) -> Result<()> {
        while self.started.len() < self.missing.len() && self.missing[self.started.len()] == 0 {
            let bucket = self.started.len();
            let mut values = Vec::new();
            for rank in 0..self.shards.size {
                for index in self.shards.of(bucket, rank) {
                    values.extend(gradients.tensors()[index].to_vec_f32()?);
                }
            }
            let counts = self.shards.counts(bucket);
            let wait = self.communicator.start_reduce_scatter(values, &counts);
            self.started.push(wait);
        }
        Ok(())
    }

    /// Sends the rest and waits; what this rank keeps of `gradients` are then the sums.
    pub(crate) fn finish(mut self, gradients: &mut Gradients) -> Result<()> {
        self.missing.fill(0);
        self.send_complete(gradients)?;
        for (bucket, wait) in self.started.into_iter().enumerate() {
            let sums = wait();
            let mut rest = &sums[..];
            for index in self.shards.of(bucket, self.communicator.rank()) {
                let values = take(&mut rest, self.shards.numels[index]);
                replace(&mut gradients.tensors_mut()[index], values)?;
            }
        }
        Ok(())
    }
}

/// The first `n` of a slice, which keeps the rest.
fn take<'v>(rest: &mut &'v [f32], n: usize) -> &'v [f32] {
    let (taken, after) = rest.split_at(n);
    *rest = after;
    taken
}

fn replace(tensor: &mut Tensor, values: &[f32]) -> Result<()> {
    *tensor = Tensor::from_f32(tensor.device(), tensor.shape(), values)?;
    Ok(())
}

#[cfg(test)]
mod tests;
