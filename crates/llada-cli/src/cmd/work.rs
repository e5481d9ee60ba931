//! Work on many items that the processes of a job share, with results in the order of the items.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use llada::train::Communicator;
use serde_json::Value;

use super::progress::Progress;
use super::result_file::ResultFile;
use crate::output::note;

/// Items to work on; the result of each depends on its key and on nothing else.
pub(super) struct Work<'a> {
    pub(super) communicator: &'a dyn Communicator,
    pub(super) progress: &'a Progress,
    /// What the items are, in words.
    pub(super) what: &'static str,
    /// Where results are kept while they come, and from which they are gone on with.
    pub(super) output: Option<&'a Path>,
    /// See [`super::result_file::key`].
    pub(super) keys: Vec<String>,
    /// Items that a rank works on before results are exchanged: what a process that is killed loses.
    pub(super) round: usize,
}

/// Results in the order of the items; of an interrupted job the first ones.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) results: Vec<Value>,
    /// How many of them were in the file before.
    pub(super) kept: usize,
}

impl Work<'_> {
    /// Works on all items, in rounds: rank `r` of `n` takes every `n`-th item of a round, and rank 0
    /// gets the results, writes them, and returns them. The others return `None`.
    ///
    /// `work` gets the places of items and returns their results.
    pub(super) fn run(
        self,
        mut work: impl FnMut(&[usize]) -> Result<Vec<Value>>,
    ) -> Result<Option<Done>> {
        let (rank, size) = (self.communicator.rank(), self.communicator.size());
        self.check_input()?;
        let (mut file, mut results) = match self.output {
            Some(path) if rank == 0 => {
                let (file, results) = ResultFile::open(path, &self.keys)?;
                (Some(file), results)
            }
            _ => (None, Vec::new()),
        };
        let (all, kept) = (self.keys.len(), self.of_rank_0(&results.len())?);
        let mut observer = self.progress.observe(self.what.to_owned());
        let mut done = kept;
        while done < all {
            let round = done..all.min(done + self.round * size);
            let mine: Vec<usize> = round.clone().skip(rank).step_by(size).collect();
            let mine = match mine.is_empty() {
                true => Vec::new(),
                false => work(&mine)?,
            };
            let mut of_rank = self.gather(mine)?;
            let of_round = round
                .clone()
                .filter_map(|at| of_rank[(at - done) % size].next());
            let of_round: Vec<Value> = of_round.collect();
            if let Some(file) = &mut file {
                file.append(&self.keys[round.clone()], &of_round)?;
            }
            results.extend(of_round);
            done = round.end;
            // Any rank may have got a signal. One that comes from here on counts in the next round:
            // a rank that stopped by itself would leave the others waiting.
            let is_stopped = f64::from(u8::from(self.progress.is_stopped()));
            let told = self.communicator.all_gather(&[is_stopped]);
            let stops = told.iter().flatten().any(|&is_stopped| is_stopped > 0.0);
            if stops {
                self.progress.stop();
            }
            if stops || !self.progress.is_stopped() {
                let _ = observer(done, all);
            }
            if stops {
                break;
            }
        }
        if done < all && rank == 0 && self.output.is_some() {
            note("run the same command again to go on");
        }
        Ok((rank == 0).then_some(Done { results, kept }))
    }

    /// Ranks that have other input than rank 0, such as an older file, would mix up results.
    fn check_input(&self) -> Result<()> {
        let of_rank_0: Vec<String> = self.of_rank_0(&self.keys)?;
        ensure!(
            of_rank_0 == self.keys,
            "its input or its settings are not those of rank 0"
        );
        Ok(())
    }

    /// What rank 0 says.
    fn of_rank_0<T: serde::Serialize + serde::de::DeserializeOwned>(&self, mine: &T) -> Result<T> {
        let bytes = serde_json::to_vec(mine)?;
        let told = self.communicator.broadcast(0, bytes);
        serde_json::from_slice(&told).context("reading what rank 0 says")
    }

    /// The results of each rank.
    fn gather(&self, mine: Vec<Value>) -> Result<Vec<std::vec::IntoIter<Value>>> {
        let size = self.communicator.size();
        if size == 1 {
            return Ok(vec![mine.into_iter()]);
        }
        let mine = serde_json::to_vec(&mine)?;
        let of_rank = |rank| {
            let told = self.communicator.broadcast(rank, mine.clone());
            let values: Vec<Value> = serde_json::from_slice(&told)
                .with_context(|| format!("reading the results of rank {rank}"))?;
            Ok(values.into_iter())
        };
        (0..size).map(of_rank).collect()
    }
}
